//! dpkg's database for packages that were unpacked by us (dpkg(1), deb-control(5)): each is
//! recorded as *unpacked*, its scripts and lists in `info/`, so that dpkg can configure it.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::deb::Unpacked;
use super::deb822::paragraphs;
use super::index::Package;
use crate::{Error, Result};

/// Writes `status` and `info/` below `root`.
pub(super) fn register(root: &Path, packages: &[(Arc<Package>, Unpacked)]) -> Result<()> {
    let admin = root.join("var/lib/dpkg");
    for directory in ["info", "updates", "triggers", "alternatives", "parts"] {
        let directory = admin.join(directory);
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
    }
    let mut status = String::new();
    for (package, unpacked) in packages {
        write_info(&admin, package, unpacked)?;
        status.push_str(&status_paragraph(unpacked));
    }
    for (name, text) in [("status", status.as_str()), ("diversions", "")] {
        let file = admin.join(name);
        fs::write(&file, text).map_err(Error::io(&file))?;
    }
    let format = admin.join("info/format");
    fs::write(&format, "1\n").map_err(Error::io(&format))
}

/// `NAME` or, where several architectures may be installed together, `NAME:ARCH`.
pub(super) fn info_name(package: &Package) -> String {
    if package.field("Multi-Arch") == "same" {
        format!("{}:{}", package.name, package.field("Architecture"))
    } else {
        package.name.clone()
    }
}

fn write_info(admin: &Path, package: &Package, unpacked: &Unpacked) -> Result<()> {
    let base = info_name(package);
    let mut list = unpacked.list.join("\n");
    list.push('\n');
    let list_file = admin.join("info").join(format!("{base}.list"));
    fs::write(&list_file, list).map_err(Error::io(&list_file))?;
    for (name, (mode, data)) in &unpacked.control {
        if name == "control" || name.contains('/') {
            continue;
        }
        let file = admin.join("info").join(format!("{base}.{name}"));
        fs::write(&file, data).map_err(Error::io(&file))?;
        fs::set_permissions(&file, Permissions::from_mode(mode & 0o777)).map_err(Error::io(&file))?;
    }
    Ok(())
}

fn status_paragraph(unpacked: &Unpacked) -> String {
    let control =
        unpacked.control.get("control").map(|(_, data)| String::from_utf8_lossy(data)).unwrap_or_default();
    let mut text = String::new();
    for (name, value) in paragraphs(&control).next().unwrap_or_default().fields {
        let _ = writeln!(text, "{name}: {value}");
        if name == "Package" {
            text.push_str("Status: install ok unpacked\n");
        }
    }
    let conffiles: Vec<_> = unpacked.conffiles().collect();
    if !conffiles.is_empty() {
        text.push_str("Conffiles:\n");
        for file in conffiles {
            let _ = writeln!(text, " {file} newconffile");
        }
    }
    text.push('\n');
    text
}
