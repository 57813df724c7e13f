//! Builds by ordinary users, and by root with fewer rights, make the same bytes as root's.

use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, fails, says, sha256, works};
use crate::mirror::Mirror;

/// A user of this test's own, with a subordinate id range.
pub struct User {
    pub name: String,
}

impl User {
    pub fn add(name: &str) -> Self {
        let user = Self { name: format!("{name}{}", std::process::id()) };
        works(Command::new("useradd").args(["--no-create-home", "--shell=/bin/sh", &user.name]));
        user
    }

    /// The command as this user, with a home and cache in `home`.
    pub fn run(&self, command: &Command, home: &Path) -> Command {
        std::fs::create_dir_all(home).unwrap();
        works(Command::new("chown").arg(&self.name).arg(home));
        let mut run = Command::new("/usr/bin/setpriv");
        run.args(["--init-groups", "--reuid", &self.name, "--regid", &self.name, "--inh-caps=-all"])
            .arg(command.get_program())
            .args(command.get_args())
            .env_remove("MILLSTREAM_DIR")
            .env("HOME", home);
        run
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

const SCRIPT: &str = "actions:\n  - trigger: post-packages\n    action: |\n      #!/bin/sh\n      set -e\n      id\n      echo made > /etc/made\n      chmod 4755 /etc/made\nfiles:\n  - generator: dump\n    path: /etc/owned\n    content: x\n    uid: 123\n    gid: 65534\n    mode: 0640\n";

#[test]
fn a_users_image_has_the_bytes_of_roots() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe(SCRIPT);
    works(&mut bench.build(&recipe, "root", &[]));
    let user = User::add("msbuild");
    let home = bench.path("home");
    let new = says(&mut user.run(&bench.build(&recipe, "home/out", &[]), &home));
    assert!(new.contains("a new base of 3 packages, on a copy"), "{new}");
    // Root's base is not for them, their own is.
    let shared = says(&mut user.run(&bench.build(&recipe, "home/shared", &["--force"]), &home));
    assert!(shared.contains("a base of 3 packages from the cache, on a copy"), "{shared}");
    assert_eq!(sha256(&bench.path("root/rootfs.tar.xz")), sha256(&bench.path("home/shared/rootfs.tar.xz")));
    for file in ["rootfs.tar.xz", "meta.tar.xz", "lxd.tar.xz", "SHA256SUMS"] {
        let path = |out: &str| bench.path(out).join(file);
        assert_eq!(sha256(&path("root")), sha256(&path("home/out")), "{file}");
    }
    // Its cache is the user's own, and so is the image.
    assert!(home.join(".cache/millstream/packages").is_dir());
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(bench.path("home/out/rootfs.tar.xz")).unwrap(),
    );
    let id = works(Command::new("id").args(["-u", &user.name]));
    assert_eq!(owner.to_string(), id.trim());
}

#[test]
fn root_without_the_right_to_mount_makes_the_same() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe(SCRIPT);
    works(&mut bench.build(&recipe, "full", &[]));
    let build = bench.build(&recipe, "less", &[]);
    let mut less = Command::new("setpriv");
    less.args(["--bounding-set=-sys_admin,-mknod", "--inh-caps=-all"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("MILLSTREAM_DIR", bench.path("state"));
    works(&mut less);
    assert_eq!(sha256(&bench.path("full/rootfs.tar.xz")), sha256(&bench.path("less/rootfs.tar.xz")));
}

#[test]
fn roots_scripts_cannot_open_the_hosts_files_by_handle() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    // Bit 2 is CAP_DAC_READ_SEARCH, bit 1 CAP_DAC_OVERRIDE, which packages' scripts need.
    let script = "actions:\n  - trigger: post-packages\n    action: |\n      #!/bin/sh\n      while read -r name value; do\n        case $name in CapEff:|CapPrm:|CapBnd:)\n          echo \"$name right to search $((0x$value >> 2 & 1)), to override $((0x$value >> 1 & 1))\";;\n        esac\n      done < /proc/self/status > /etc/rights\n";
    works(&mut bench.build(&mirror.recipe(script), "out", &["--format=dir"]));
    let rights = std::fs::read_to_string(bench.path("out/rootfs/etc/rights")).unwrap();
    let expected =
        ["CapPrm", "CapEff", "CapBnd"].map(|set| format!("{set}: right to search 0, to override 1\n"));
    assert_eq!(rights, expected.concat());
}

#[test]
fn what_a_user_lacks_is_said() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let user = User::add("mspoor");
    let home = bench.path("home");
    let build = bench.build(&mirror.recipe(""), "home/out", &[]);
    let text = fails(user.run(&build, &home).env("PATH", "/nonexistent"));
    assert!(text.contains("newuidmap is not installed") && text.contains("uidmap"), "{text}");
    works(Command::new("sed").args(["-i", &format!("/^{}:/d", user.name), "/etc/subuid"]));
    let text = fails(&mut user.run(&build, &home));
    assert!(text.contains("/etc/subuid") && text.contains("usermod --add-subuids"), "{text}");
    bench.assert_clean("home/out");
}
