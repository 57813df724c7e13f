//! An LXD daemon of a test's own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{end, succeed, wait_for};

pub struct Lxd {
    dir: TempDir,
    daemon: Child,
    ca: std::path::PathBuf,
}

impl Lxd {
    /// Starts a daemon that trusts `ca`; it reads certificate authorities only now.
    pub fn start(ca: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("ms-lxd-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let log = fs::File::create(dir.path().join("daemon.log")).unwrap();
        let daemon = Command::new("lxd")
            .args(["--group", "root"])
            .env("LXD_DIR", dir.path())
            .env("SSL_CERT_FILE", ca)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let lxd = Self { dir, daemon, ca: ca.to_owned() };
        wait_for("LXD", 60, || {
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
        let mut command = Command::new("lxc");
        command
            .args(args)
            .env("LXD_DIR", self.dir.path())
            .env("LXD_CONF", self.dir.path().join("client"))
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
        let _ = Command::new("lxd")
            .args(["shutdown", "--timeout", "20"])
            .env("LXD_DIR", self.dir.path())
            .output();
        end(&mut self.daemon);
        for mount in ["shmounts", "devlxd"] {
            let _ = Command::new("umount").arg("-lq").arg(self.dir.path().join(mount)).output();
        }
    }
}
