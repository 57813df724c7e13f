//! An LXD daemon of a test's own, or one of Incus, which has the same commands.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{end, succeed, wait_for};

/// How the programs and their variables are called.
struct Family {
    daemon: &'static str,
    client: &'static str,
    dir: &'static str,
    configuration: &'static str,
    /// Program and arguments that end all containers and the daemon.
    shutdown: &'static [&'static str],
    /// What the daemon mounts for them besides `shmounts`.
    guest: &'static str,
}

const LXD: Family = Family {
    daemon: "lxd",
    client: "lxc",
    dir: "LXD_DIR",
    configuration: "LXD_CONF",
    shutdown: &["lxd", "shutdown"],
    guest: "devlxd",
};

/// As `cargo xtask test` unpacks it.
const INCUS: Family = Family {
    daemon: concat!(env!("CARGO_MANIFEST_DIR"), "/target/incus/unpacked/usr/libexec/incus/incusd"),
    client: INCUS_CLIENT,
    dir: "INCUS_DIR",
    configuration: "INCUS_CONF",
    shutdown: &[INCUS_CLIENT, "admin", "shutdown"],
    guest: "guestapi",
};
const INCUS_CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/incus/unpacked/usr/bin/incus");

pub struct Lxd {
    family: &'static Family,
    dir: TempDir,
    daemon: Child,
    ca: std::path::PathBuf,
}

impl Lxd {
    /// Starts a daemon that trusts `ca`; it reads certificate authorities only now.
    pub fn start(ca: &Path) -> Self {
        Self::of(&LXD, ca)
    }

    /// The same of Incus.
    pub fn incus(ca: &Path) -> Self {
        Self::of(&INCUS, ca)
    }

    fn of(family: &'static Family, ca: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("ms-lxd-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let log = fs::File::create(dir.path().join("daemon.log")).unwrap();
        let daemon = program(family.daemon)
            .args(["--group", "root"])
            .env(family.dir, dir.path())
            .env("SSL_CERT_FILE", ca)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; cargo xtask test brings it", family.daemon));
        let lxd = Self { family, dir, daemon, ca: ca.to_owned() };
        wait_for(family.daemon, 60, || {
            lxd.command(&["query", "/1.0"]).stderr(Stdio::null()).output().is_ok_and(|o| o.status.success())
        });
        lxd.run(&["storage", "create", "default", "dir"]);
        lxd.run(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=default"]);
        lxd
    }

    pub fn run(&self, args: &[&str]) -> String {
        succeed(&mut self.command(args))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program(self.family.client);
        command
            .args(args)
            .env(self.family.dir, self.dir.path())
            .env(self.family.configuration, self.dir.path().join("client"))
            .env("SSL_CERT_FILE", &self.ca)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Lxd {
    fn drop(&mut self) {
        let names = self.command(&["list", "-c", "n", "-f", "csv"]).output();
        let names = names.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        for name in names.lines() {
            let _ = self.command(&["delete", "-f", name]).output();
        }
        let _ = program(self.family.shutdown[0])
            .args(&self.family.shutdown[1..])
            .args(["--timeout", "20"])
            .env(self.family.dir, self.dir.path())
            .output();
        end(&mut self.daemon);
        for mount in ["shmounts", self.family.guest] {
            let _ = Command::new("umount").arg("-lq").arg(self.dir.path().join(mount)).output();
        }
    }
}

/// One of their programs, with the libraries that were unpacked beside it.
fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    if let Some((unpacked, _)) = path.split_once("/usr/") {
        let libraries = format!("{unpacked}/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}
