//! The last steps before a program of the container runs: what it inherits, and what it may not do.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_no_new_privs,
};

use super::tuning::Beginning;
use super::{seccomp, sys};

/// Capabilities a system container has no use for, even over its own namespaces.
const DROPPED: [CapabilitySet; 5] = [
    CapabilitySet::MAC_ADMIN,
    CapabilitySet::MAC_OVERRIDE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_TIME,
];

type Step<T> = Result<T, String>;

/// Becomes the container's root, in a user namespace whose maps are written. The groups of the
/// caller are left behind.
pub fn become_root() -> Step<()> {
    become_user(0, 0)
}

/// Becomes a user of the container.
pub fn become_user(uid: u32, gid: u32) -> Step<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| format!("becoming user {uid}:{gid}: {e}"))
}

/// Ends this process when its parent ends. A change of user undoes it.
pub fn die_with_parent() -> Step<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| format!("prctl: {e}"))
}

/// Gives up what programs of a container do not have. Needs the container's root.
pub fn confine(beginning: &Beginning) -> Step<()> {
    let step = |what: &str, error: std::io::Error| format!("{what}: {error}");
    limits(beginning).map_err(|e| step("resource limits", e.into()))?;
    sys::new_session_keyring().map_err(|e| step("keyring", e))?;
    for capability in DROPPED {
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability).map_err(|e| step("capabilities", e.into()))?;
        }
    }
    clear_ambient_capability_set().map_err(|e| step("capabilities", e.into()))?;
    sys::set_seccomp_filter(&seccomp::program()).map_err(|e| step("seccomp", e))?;
    if beginning.no_new_privileges {
        set_no_new_privs(true).map_err(|e| step("no_new_privs", e.into()))?;
    }
    Ok(())
}

/// Limits do not depend on the shell that started the container.
fn limits(beginning: &Beginning) -> rustix::io::Result<()> {
    beginning.take();
    let set = |resource, soft: u64, hard: u64| {
        // Never above what the host's administrator left us.
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let maximum = Some(hard.min(allowed));
        setrlimit(resource, Rlimit { current: Some(soft.min(allowed)), maximum })
    };
    if !beginning.limits(Resource::Nofile) {
        set(Resource::Nofile, 1024, 524_288)?;
    }
    if beginning.limits(Resource::Core) {
        return Ok(());
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: getrlimit(Resource::Core).maximum })
}
