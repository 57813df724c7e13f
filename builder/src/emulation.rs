//! Programs of other architectures: whether this host can run them, asked before anything is
//! downloaded.

use std::fs;
use std::path::Path;

use millstream_image::Architecture;

use crate::recipe::{Definition, Resolved};
use crate::{Error, Result, source};

/// Where the kernel lists the interpreters it knows (binfmt_misc).
const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";

/// Fails when the build has to run programs that this host cannot run.
///
/// The kernel itself hands them to QEMU, found by the magic bytes at their beginning. It must have
/// opened QEMU when that was registered (flag F), because a root file system has none in it.
///
/// # Errors
/// With what to install.
pub(crate) fn check(resolved: &Resolved) -> Result<()> {
    let wanted = resolved.architecture;
    if runs_natively(Architecture::host(), wanted) || !runs_programs(&resolved.definition) {
        return Ok(());
    }
    look(Path::new(REGISTRY), wanted).map_err(|reason| {
        Error::Refused(format!(
            "this build runs programs for {wanted}, which this {} host cannot: {reason}. Install the packages \
             qemu-user-static and binfmt-support (a container has to be given them by its host)",
            Architecture::host()
        ))
    })
}

/// Processors and kernels that run their older kin's programs too.
fn runs_natively(host: Architecture, wanted: Architecture) -> bool {
    host == wanted
        || matches!(
            (host.debian(), wanted.debian()),
            ("amd64", "i386") | ("armhf", "armel") | ("ppc64el", "powerpc")
        )
}

/// Whether anything of the new root file system is run while it is built.
fn runs_programs(definition: &Definition) -> bool {
    let packages = &definition.packages;
    source::runs_programs(&definition.source.downloader)
        || !definition.actions.is_empty()
        || packages.update
        || packages.cleanup
        || packages.sets.iter().any(|set| !set.packages.is_empty())
}

/// QEMU's names of architectures.
fn qemu(architecture: Architecture) -> &'static str {
    match architecture.debian() {
        "armel" | "armhf" => "arm",
        "i386" => "i386",
        "mips64el" => "mips64el",
        "powerpc" => "ppc",
        "ppc64el" => "ppc64le",
        _ => architecture.kernel(),
    }
}

fn look(registry: &Path, architecture: Architecture) -> Result<(), String> {
    let state = |name: &str| fs::read_to_string(registry.join(name));
    let name = format!("qemu-{}", qemu(architecture));
    match state("status") {
        Err(_) => return Err("binfmt_misc is not mounted".into()),
        Ok(text) if text.trim() != "enabled" => return Err("binfmt_misc is disabled".into()),
        Ok(_) => {}
    }
    let entry = state(&name).map_err(|_| format!("binfmt_misc has no {name}"))?;
    if entry.lines().next() != Some("enabled") {
        return Err(format!("{name} is disabled in binfmt_misc"));
    }
    let flags = entry.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
    if flags.contains('F') {
        return Ok(());
    }
    Err(format!("{name} is registered without flag F, so its interpreter would have to be in the image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_decides() {
        let registry = tempfile::tempdir().unwrap();
        let arm: Architecture = "arm64".parse().unwrap();
        let said = || look(registry.path(), arm).err().unwrap_or_default();
        assert!(said().contains("not mounted"));
        let put = |name: &str, text: &str| fs::write(registry.path().join(name), text).unwrap();
        put("status", "enabled\n");
        assert!(said().contains("no qemu-aarch64"));
        put("qemu-aarch64", "enabled\ninterpreter /usr/libexec/qemu\nflags: OC\noffset 0\n");
        assert!(said().contains("flag F"));
        put("qemu-aarch64", "enabled\ninterpreter /usr/libexec/qemu\nflags: OCF\noffset 0\n");
        assert_eq!(said(), "");
        put("qemu-aarch64", "disabled\nflags: OCF\n");
        assert!(said().contains("disabled"));
    }

    #[test]
    fn older_kin_need_no_emulation() {
        let arch = |name: &str| name.parse::<Architecture>().unwrap();
        assert!(runs_natively(arch("amd64"), arch("i386")));
        assert!(!runs_natively(arch("i386"), arch("amd64")) && !runs_natively(arch("amd64"), arch("arm64")));
    }
}
