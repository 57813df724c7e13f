//! Programs of other processors, run by QEMU: the kernel is told in a binfmt_misc of the sandbox's
//! user namespace, so that the host's own stays as it is and nobody needs to be root.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Tells the kernel of an interpreter; `line` is as in binfmt.d(5), with flag F, so that the kernel
/// opens the interpreter now, while the host's files can be seen. Programs inside never see the
/// mount: `place`, below the new root, gets another one on top of it.
pub(super) fn register(line: &str, place: &Path) -> Result<(), String> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("binfmt_misc"), place, Some("binfmt_misc"), plain, None::<&str>).map_err(|error| {
        format!("a binfmt_misc of the sandbox's own: {error}; it needs Linux 6.7 with CONFIG_BINFMT_MISC")
    })?;
    match fs::write(place.join("register"), line) {
        // All sandboxes of a user namespace share what it knows.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|error| format!("registering {line} in binfmt_misc: {error}")),
    }
}
