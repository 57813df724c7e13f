//! Root file systems out of single packages of Slackware's kind.
//!
//! Each package is unpacked with the checks of every archive; then its script is run as the
//! distribution's `installpkg --root` would, by the host's bash in a [`Workshop`] without network,
//! and the package is noted in the database. Order and dates depend on the packages alone.

mod layouts;
mod mirror;
mod package;

use std::fs::{self, File};
use std::path::Path;

use millstream_image::archive::{ExtractOptions, Limits, extract_layer};

use self::layouts::{LAYOUTS, Layout, Plan};
use self::mirror::Package;
use self::package::{Contents, divide};
use super::layouts::Signed;
use super::remote::Remote;
use super::trust::Trust;
use super::workshop::{Workshop, program};
use super::{Context, Origin};
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result, apt};

/// The layout behind a downloader's name.
pub(super) fn layout(downloader: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.downloader == downloader)
}

/// Fills the root directory from the distribution's mirror.
pub(super) fn unpack(context: &Context<'_>, layout: &Layout, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let resolved = context.resolved;
    let base = apt::mirror::base_url(resolved, context.host)?;
    let plan = plan(context, layout)?;
    let trust = Trust::of(resolved, context.host)?;
    trust.check_way(&base, plan.signed != Signed::Nothing)?;
    if program(&["bash"]).is_none() {
        return Err(Error::Refused(
            "this host has no bash, which runs the scripts of packages; install the package bash".into(),
        ));
    }
    let remote = Remote { context, trust: &trust };
    let packages = context.fetcher.run(mirror::fetch(&remote, &base, &plan))?;
    scripts.note(&format!("source: {base}/{}, {} packages", plan.top, packages.len()))?;
    if trust.is_skipped() {
        scripts.note("warning: source.skip_verification: neither checksum nor signature was checked")?;
    } else if plan.signed == Signed::Nothing {
        scripts.note("warning: this distribution signs nothing; the server itself was trusted")?;
    } else if !trust.has_keys() {
        scripts.note("warning: no source.keys: no signature was checked; the server itself was trusted")?;
    }
    let contents: Vec<_> =
        packages.iter().map(|package| Contents::read(&package.file.path)).collect::<Result<_>>()?;
    let date = contents.iter().map(|contents| contents.newest).max().unwrap_or(0);
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| date.to_string());
    let mut installer = Installer {
        root: context.root,
        workshop: Workshop::new(context.root)?,
        plan: &plan,
        limits: Limits::default(),
    };
    for (package, contents) in packages.iter().zip(&contents) {
        context.fetcher.cancel.check()?;
        installer.install(package, contents, scripts)?;
    }
    let ldconfig = "cd /rootfs\nif [ -x sbin/ldconfig ]; then chroot . /sbin/ldconfig; fi\n";
    installer.workshop.run(scripts, "making the list of libraries", ldconfig, false)?;
    if layout.downloader == "slackware-http" {
        settle(&Rootfs::open(context.root)?, &format!("{base}/{}/", plan.top))?;
    }
    let sources = packages.into_iter().map(|package| package.file.source).collect();
    Ok(Origin { sources, date, installed: None })
}

fn plan(context: &Context<'_>, layout: &Layout) -> Result<Plan> {
    let resolved = context.resolved;
    let debian = resolved.architecture.debian();
    let names = layout.architectures;
    let Some((_, arch)) = names.iter().find(|(name, _)| *name == debian) else {
        let valid: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        return Err(Error::Refused(format!(
            "image.architecture: {} has no root file system for {debian} (valid: {})",
            layout.title,
            valid.join(", ")
        )));
    };
    let release = &resolved.definition.image.release;
    if release.contains(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) || release.contains("..")
    {
        return Err(Error::Refused(format!("image.release: {release:?} cannot be part of a file's name")));
    }
    (layout.plan)(release, arch)
}

struct Installer<'a> {
    root: &'a Path,
    workshop: Workshop,
    plan: &'a Plan,
    /// What the packages still to come may cost.
    limits: Limits,
}

impl Installer<'_> {
    fn install(&mut self, package: &Package, contents: &Contents, scripts: &Scripts<'_>) -> Result<()> {
        let (name, place) = (&package.name, &package.file.path);
        let file = File::open(place).map_err(Error::io(place))?;
        let options = ExtractOptions { limits: self.limits.clone(), ..ExtractOptions::default() };
        let extracted = extract_layer(file, self.root, &options)
            .map_err(|error| Error::Refused(format!("{}: {error}", name.file)))?;
        self.limits.entries = self.limits.entries.saturating_sub(extracted.entries);
        self.limits.unpacked = self.limits.unpacked.saturating_sub(extracted.size);
        let rootfs = Rootfs::open(self.root)?;
        let database = &self.plan.database;
        let entry = if database.bare { &name.bare } else { &name.full };
        if let Some(script) = &contents.script {
            let (now, later) = match database.later {
                Some(_) => divide(script),
                None => (script.clone(), String::new()),
            };
            self.run(&name.bare, &now, scripts)?;
            let executable = Attributes { mode: Some(0o755), ..Attributes::default() };
            rootfs.write(&format!("{}/scripts/{entry}", database.directory), now.as_bytes(), executable)?;
            if let Some(directory) = database.later.filter(|_| !later.is_empty()) {
                rootfs.write(&format!("{directory}/{entry}"), later.as_bytes(), Attributes::default())?;
            }
        }
        rootfs.remove("/install")?;
        let packed = fs::metadata(place).map_err(Error::io(place))?.len();
        let record = contents.record(name, packed);
        rootfs.write(
            &format!("{}/packages/{entry}", database.directory),
            record.as_bytes(),
            Attributes::default(),
        )
    }

    /// Many scripts end with a question whose answer is no; so does `installpkg` not ask how they end.
    fn run(&self, name: &str, script: &str, scripts: &Scripts<'_>) -> Result<()> {
        // There is no init that could be told to start anew.
        let script =
            if name == "sysvinit" { script.replace("/sbin/init", "#/sbin/init") } else { script.to_owned() };
        self.workshop.write("doinst.sh", &script)?;
        let command =
            "cd /rootfs\nbash /shop/doinst.sh -install || echo \"the script ended with status $?\"\n";
        self.workshop.run(scripts, &format!("script of package {name}"), command, false)
    }
}

/// Pieces of a file that do not fit a container, and what takes their place.
const SETTINGS: &[(&str, &[(&str, &str)])] = &[
    ("/etc/rc.d/rc.M", &[("/bin/dmesg", "#/bin/dmesg")]),
    ("/etc/rc.d/rc.inet1", &[("/sbin/modprobe", "echo")]),
    ("/etc/rc.d/rc.elogind", &[("cd /sys/fs/cgroup;", "")]),
    (
        "/etc/rc.d/rc.inet1.conf",
        &[("USE_DHCP[0]=\"\"", "USE_DHCP[0]=\"yes\""), ("USE_DHCP6[0]=\"\"", "USE_DHCP6[0]=\"yes\"")],
    ),
];

/// Makes a container of it, as distrobuilder does: network by DHCP, and nothing of the kernel's.
fn settle(rootfs: &Rootfs, mirror: &str) -> Result<()> {
    for (path, changes) in SETTINGS {
        if let Some(data) = rootfs.read(path)? {
            let text = String::from_utf8_lossy(&data).into_owned();
            let text = changes.iter().fold(text, |text, (from, to)| text.replace(from, to));
            rootfs.write(path, text.as_bytes(), Attributes::default())?;
        }
    }
    if !rootfs.exists("/etc/fstab")? {
        rootfs.write("/etc/fstab", b"", Attributes::default())?;
    }
    rootfs.write("/etc/slackpkg/mirrors", format!("{mirror}\n").as_bytes(), Attributes::default())
}
