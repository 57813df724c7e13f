//! Programs of other architectures: whether this host can run them, asked before anything is
//! downloaded.

use std::fs;
use std::path::Path;

use millstream_image::Architecture;
use millstream_runtime::CancelToken;
use millstream_runtime::sandbox::{Exec, Sandbox};

use crate::recipe::{Definition, Resolved};
use crate::{Error, Result, source};

/// Where the kernel lists the interpreters it knows (binfmt_misc).
const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";
/// Where packages say how to register theirs, see binfmt.d(5).
const SETTINGS: [&str; 3] = ["/etc/binfmt.d", "/usr/local/lib/binfmt.d", "/usr/lib/binfmt.d"];

/// What a build needs to run the image's programs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Emulation {
    /// Nothing: they are the host's kind, or the host's kernel knows their interpreter, or none is run.
    None,
    /// This line of binfmt.d(5), in the sandboxes of the build.
    Own(String),
}

impl Emulation {
    /// How this host runs the programs that the build has to run; `boot` when the image is also
    /// started. Makes a directory in `work` for as long as this looks.
    ///
    /// The kernel itself hands them to QEMU, found by the magic bytes at their beginning. It must have
    /// opened QEMU when that was registered (flag F), because a root file system has none in it. Where
    /// the host's kernel has not been told, the build's own user namespace is (Linux 6.7).
    ///
    /// # Errors
    /// When it cannot, with what to install.
    pub(crate) fn find(resolved: &Resolved, work: &Path, boot: bool) -> Result<Self> {
        let (host, wanted) = (Architecture::host(), resolved.architecture);
        if runs_natively(host, wanted) || !(boot || runs_programs(&resolved.definition)) {
            return Ok(Self::None);
        }
        let Err(reason) = look(Path::new(REGISTRY), wanted) else { return Ok(Self::None) };
        let refused = |reason: String| {
            Error::Refused(format!(
                "this build runs programs for {wanted}, which this {host} host cannot: {reason}. Install the \
                 package qemu-user-static, and before Linux 6.7 or for a boot test also binfmt-support (a \
                 container has to be given them by its host)"
            ))
        };
        let setting = SETTINGS.iter().find_map(|directory| setting(Path::new(directory), wanted));
        let Some(line) = setting.filter(|_| !boot) else { return Err(refused(reason)) };
        let own = Self::Own(line);
        own.attempt(work).map_err(|error| refused(format!("{reason}, and {error}")))?;
        Ok(own)
    }

    /// The sandbox, able to run the image's programs.
    pub(crate) fn apply(&self, sandbox: Sandbox) -> Sandbox {
        match self {
            Self::None => sandbox,
            Self::Own(line) => sandbox.interpreter(line),
        }
    }

    /// Tries whether the kernel lets a sandbox have it. There is nothing inside to be run.
    fn attempt(&self, work: &Path) -> Result<()> {
        let root = work.join("emulation");
        fs::create_dir(&root).map_err(Error::io(&root))?;
        let nothing = Exec { argv: vec!["/nothing".into()], timeout: Some(10), ..Exec::default() };
        self.apply(Sandbox::new(&root)).run(&nothing, &CancelToken::default(), &mut |_| {})?;
        fs::remove_dir_all(&root).map_err(Error::io(&root))
    }
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

/// Names under which QEMU is registered, by Debian and by others.
fn names(architecture: Architecture) -> [String; 2] {
    let name = format!("qemu-{}", qemu(architecture));
    [name.clone(), name + "-static"]
}

/// The line by which a package registers its QEMU, if it has flag F and the interpreter is there.
fn setting(directory: &Path, architecture: Architecture) -> Option<String> {
    let files = names(architecture).map(|name| directory.join(name + ".conf"));
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok())?;
    let line = text.lines().map(str::trim).find(|line| line.starts_with(':'))?;
    let fields: Vec<_> = line.split(':').collect();
    let [_, _, "M", _, _, _, interpreter, flags] = fields[..] else { return None };
    (flags.contains('F') && Path::new(interpreter).is_file()).then(|| line.to_owned())
}

fn look(registry: &Path, architecture: Architecture) -> Result<(), String> {
    let state = |name: &str| fs::read_to_string(registry.join(name));
    let [debians, others] = names(architecture);
    let name = if registry.join(&others).exists() { others } else { debians };
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
    fn a_packages_own_line_is_taken_when_it_can_work() {
        let dir = tempfile::tempdir().unwrap();
        let found = |line: &str| {
            fs::write(dir.path().join("qemu-riscv64-static.conf"), format!("# note\n{line}\n")).unwrap();
            setting(dir.path(), "riscv64".parse().unwrap())
        };
        let line = ":qemu-riscv64:M::\\x7f:\\xff:/proc/self/exe:OPF";
        assert_eq!(found(line).as_deref(), Some(line));
        for bad in [&line.replace("OPF", "OP"), &line.replace("self/exe", "nothing"), ":x", ""] {
            assert_eq!(found(bad), None, "{bad}");
        }
        assert_eq!(setting(dir.path(), "arm64".parse().unwrap()), None);
    }

    #[test]
    fn older_kin_need_no_emulation() {
        let arch = |name: &str| name.parse::<Architecture>().unwrap();
        assert!(runs_natively(arch("amd64"), arch("i386")));
        assert!(!runs_natively(arch("i386"), arch("amd64")) && !runs_natively(arch("amd64"), arch("arm64")));
    }
}
