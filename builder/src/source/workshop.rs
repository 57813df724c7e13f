//! A place in which this host's own programs work on a root file system: they see the host's `/usr`
//! read-only, a directory for what they are given, and nothing else of the host. So scripts that
//! come with packages run as confined as those that run inside the new root file system.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use millstream_runtime::sandbox::Sandbox;

use crate::packages::NameServers;
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result};

/// Directories that are links into `/usr` on hosts that have merged them.
const TOP: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"];

/// What programs need of the host's `/etc`; there is no secret in it.
const SHARED: [&str; 6] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
];

const TEXTS: [(&str, &str); 4] = [
    ("passwd", "root:x:0:0:root:/shop:/bin/sh\n"),
    ("group", "root:x:0:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// Mounts what programs in the new root file system need, then gives up the rights by which read-only
/// could be undone, or files be opened past the mounts.
const ENTER: &str = "#!/bin/sh
set -e
if [ -d /rootfs ]; then
    for place in dev proc sys; do
        mkdir -p /rootfs/$place
        mount --rbind /$place /rootfs/$place
    done
fi
cd /shop
exec setpriv --bounding-set=-sys_admin,-sys_ptrace,-net_admin,-dac_read_search -- /bin/sh -e /shop/.script
";

/// The place; it goes with this value.
pub(super) struct Workshop {
    dir: tempfile::TempDir,
    sandbox: Sandbox,
}

impl Workshop {
    /// Makes one beside `root`, which its programs see as `/rootfs`.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let parent = root.parent().unwrap_or(Path::new("."));
        let dir =
            tempfile::Builder::new().prefix("workshop-").tempdir_in(parent).map_err(Error::io(parent))?;
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).map_err(Error::io(dir.path()))?;
        let make = |name: &str| -> Result<PathBuf> {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).map_err(Error::io(&path))?;
            Ok(path)
        };
        for name in ["etc", "tmp", "usr", "var/tmp", "shop", "rootfs"] {
            make(name)?;
        }
        let mut sandbox = Sandbox::new(dir.path()).no_fsync(true);
        sandbox = sandbox.bind(Path::new("/usr"), "/usr", true).bind(root, "/rootfs", false);
        for name in TOP {
            let host = Path::new("/").join(name);
            match fs::read_link(&host) {
                Ok(target) => {
                    symlink(target, dir.path().join(name)).map_err(Error::io(dir.path()))?;
                }
                Err(_) if host.is_dir() => {
                    make(name)?;
                    sandbox = sandbox.bind(&host, &format!("/{name}"), true);
                }
                Err(_) => {}
            }
        }
        for place in SHARED.map(Path::new).into_iter().filter(|place| place.exists()) {
            let target = place.to_string_lossy().into_owned();
            if place.is_dir() {
                make(target.trim_start_matches('/'))?;
            } else {
                let inside = dir.path().join(target.trim_start_matches('/'));
                fs::write(&inside, "").map_err(Error::io(&inside))?;
            }
            sandbox = sandbox.bind(place, &target, true);
        }
        let workshop = Self { dir, sandbox };
        let servers = NameServers::of_host().text();
        for (name, text) in TEXTS.into_iter().chain([("resolv.conf", servers.as_str())]) {
            let path = workshop.dir.path().join("etc").join(name);
            fs::write(&path, text).map_err(Error::io(&path))?;
        }
        Ok(workshop)
    }

    /// Where `/shop` is for us.
    pub(super) fn work(&self) -> PathBuf {
        self.dir.path().join("shop")
    }

    /// Writes a file into `/shop`. What ran there may have left links, which lead nowhere else.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        Rootfs::open(&self.work())?.write(&format!("/{name}"), text.as_bytes(), Attributes::default())
    }

    /// Opens a file in `/shop`, which must be there.
    pub(super) fn open(&self, name: &str) -> Result<File> {
        let found = Rootfs::open(&self.work())?.open_file(&format!("/{name}"))?;
        found.ok_or_else(|| Error::Refused(format!("the host's programs left no file {name}; see the log")))
    }

    /// Reads a text of at most 64 MiB in `/shop`.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let mut data = Vec::new();
        self.open(name)?.take(64 << 20).read_to_end(&mut data).map_err(Error::io(name))?;
        Ok(String::from_utf8_lossy(&data).into_owned())
    }

    /// Runs a shell script in `/shop`, with or without the network, as `scripts` are run.
    pub(super) fn run(&self, scripts: &Scripts<'_>, what: &str, script: &str, network: bool) -> Result<()> {
        self.write(".script", script)?;
        let mut env = scripts.env.clone();
        env.insert("HOME".into(), "/shop".into());
        let scripts = Scripts {
            sandbox: self.sandbox.clone().network(network),
            env,
            timeout: scripts.timeout,
            log: scripts.log,
            log_path: scripts.log_path.clone(),
            cancel: scripts.cancel,
        };
        scripts.run(what, ENTER)
    }
}

/// The first of these programs that this host has.
pub(super) fn program(names: &[&'static str]) -> Option<&'static str> {
    let there = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| Path::new(d).join(name).exists())
    };
    names.iter().copied().find(|name| there(name))
}

/// A word of a shell script, whatever it holds.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $(x)"), "'it'\\''s $(x)'");
    }

    #[test]
    fn programs_are_found_where_they_are() {
        assert_eq!(program(&["no-such-program", "sh"]), Some("sh"));
        assert_eq!(program(&["no-such-program"]), None);
    }
}
