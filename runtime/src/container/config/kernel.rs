//! `limits.kernel.*` and `linux.sysctl.*`: what the kernel keeps for each process, and for the
//! container's own namespaces.

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

pub const LIMITS: &str = "limits.kernel.";
pub const SYSCTL: &str = "linux.sysctl.";

/// By the names LXD has for them.
const RESOURCES: &[(&str, Resource)] = &[
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// Those that each container has for itself; `*` stands for the rest of a name.
const NAMESPACED: &[&str] = &[
    "fs.mqueue.*",
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.*",
];

/// A limit of each process; none: no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// As LXD names it.
    pub name: String,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

impl Limit {
    /// What the kernel calls it.
    pub fn resource(&self) -> Option<Resource> {
        RESOURCES.iter().find(|(name, _)| *name == self.name).map(|(_, resource)| *resource)
    }

    /// `name` is what follows `limits.kernel.`, the value as in `1024`, `1024:4096` or `unlimited`.
    pub fn parse(name: &str, value: &str) -> Result<Self, String> {
        let number = |text: &str| match text {
            "unlimited" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                format!("{value:?} is no limit; one is a number, unlimited, or SOFT:HARD of these")
            }),
        };
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        Self::new(name, number(soft)?, number(hard)?)
    }

    /// Of a name of LXD's.
    pub fn new(name: &str, soft: Option<u64>, hard: Option<u64>) -> Result<Self, String> {
        let limit = Self { name: name.to_owned(), soft, hard };
        if limit.resource().is_none() {
            let names: Vec<_> = RESOURCES.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no such limit; there are {}", names.join(", ")));
        }
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            return Err("the soft limit is above the hard one".into());
        }
        Ok(limit)
    }
}

/// Whether a kernel parameter is the container's own, and has a name that is nothing else.
pub fn check_sysctl(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '@');
    let parts = || name.split('.');
    if name.len() > 200 || parts().any(|part| part.is_empty() || !part.chars().all(plain)) {
        return Err("it is no name of a kernel parameter, as in net.ipv4.ip_forward".into());
    }
    let fits = |known: &&str| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *known,
    };
    if NAMESPACED.iter().any(fits) {
        Ok(())
    } else {
        Err(format!("it is the whole host's; a container has for itself {}", NAMESPACED.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_lxd_reads_them() {
        assert_eq!(Limit::parse("nofile", "1024:4096"), Limit::new("nofile", Some(1024), Some(4096)));
        assert_eq!(Limit::parse("memlock", "unlimited"), Limit::new("memlock", None, None));
        for (name, value) in
            [("nofile", "4096:1024"), ("nofile", "unlimited:5"), ("nofile", "many"), ("x", "1")]
        {
            assert!(Limit::parse(name, value).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn only_parameters_of_namespaces_are_taken() {
        for good in ["net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.msg_max"] {
            check_sysctl(good).unwrap();
        }
        for bad in
            ["kernel.core_pattern", "vm.swappiness", "net..x", "net./../kernel", "", "net", "kernel.shmmaxi"]
        {
            assert!(check_sysctl(bad).is_err(), "{bad}");
        }
    }
}
