//! AppArmor's profile of containers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::executable;
use crate::container::sys::in_first_user_namespace;

/// Files of the host that containers neither read nor write, wherever they mount `/proc` and `/sys`.
const CLOSED: [&str; 7] = [
    "@{PROC}/kcore",
    "@{PROC}/kmem",
    "@{PROC}/mem",
    "@{PROC}/sysrq-trigger",
    "/sys/firmware/**",
    "/sys/kernel/debug/**",
    "/sys/kernel/security/**",
];
/// Switches of the whole machine.
const READ_ONLY: [&str; 6] = [
    "@{PROC}/sys/kernel/core_pattern",
    "@{PROC}/sys/kernel/modprobe",
    "@{PROC}/sys/kernel/sysrq",
    "@{PROC}/sys/vm/**",
    "/sys/kernel/uevent_helper",
    "/sys/power/**",
];
/// File systems that show the machine rather than the container.
const NOT_MOUNTED: [&str; 4] = ["debugfs", "devtmpfs", "securityfs", "tracefs"];

/// The profile's name. A changed profile has another number, so that the one loaded before stays with
/// the containers that have it.
pub fn name(nesting: bool) -> String {
    if nesting { "millstream-nesting-1" } else { "millstream-1" }.to_owned()
}

/// Its text, in the language of AppArmor 3. What containers may do among themselves, other profiles
/// and the namespaces decide; from outside they get signals and are looked at.
pub fn text(nesting: bool) -> String {
    let mut rules = vec![
        "capability,".to_owned(),
        "dbus,".to_owned(),
        "file,".to_owned(),
        "mount,".to_owned(),
        "network,".to_owned(),
        "pivot_root,".to_owned(),
        "remount,".to_owned(),
        "umount,".to_owned(),
        "unix,".to_owned(),
        "signal (receive),".to_owned(),
        "signal (send) peer=@{profile_name},".to_owned(),
        "ptrace (readby, tracedby),".to_owned(),
        "ptrace (read, trace) peer=@{profile_name},".to_owned(),
    ];
    rules.extend(CLOSED.map(|path| format!("deny {path} rwklx,")));
    rules.extend(READ_ONLY.map(|path| format!("deny {path} wkl,")));
    rules.extend(NOT_MOUNTED.map(|kind| format!("deny mount fstype={kind},")));
    if nesting {
        // Containers inside get what this one has.
        rules.push("change_profile -> @{profile_name},".to_owned());
    }
    let name = name(nesting);
    format!(
        "abi <abi/3.0>,\ninclude <tunables/global>\n\nprofile {name} flags=(attach_disconnected, mediate_deleted) {{\n  {}\n}}\n",
        rules.join("\n  ")
    )
}

/// Loads it into the kernel; `None` where that is not ours to do, or nobody has installed the parser.
pub fn load(root: &Path, nesting: bool) -> Option<Result<(), String>> {
    let parser = executable(root, "apparmor_parser").filter(|_| in_first_user_namespace())?;
    let run = || -> std::io::Result<Result<(), String>> {
        let mut child = Command::new(&parser)
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // One that does not read has failed, and says why.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(text(nesting).as_bytes()));
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        let told = || format!("{} failed: {last}", parser.display());
        Ok(if output.status.success() { Ok(()) } else { Err(told()) })
    };
    Some(run().unwrap_or_else(|error| Err(format!("{}: {error}", parser.display()))))
}
