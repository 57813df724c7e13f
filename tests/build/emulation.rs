//! Images for another processor, whose programs run under the real QEMU. The host's kernel knows
//! nothing of it: each build tells its own user namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use millstream_image::archive::{Member, PackOptions, pack_members};

use crate::bench::{Bench, fails, works};
use crate::unprivileged::User;

/// A program for arm64 that ends with status 42.
fn tiny() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let code: [u32; 3] = [0xd280_0ba8, 0xd280_0540, 0xd400_0001]; // mov x8, 93; mov x0, 42; svc 0
    let size = 64 + 56 + 4 * code.len() as u64;
    let halves = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let longs = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        halves(&[2, 183]),
        words(&[1]),
        longs(&[BASE + 120, 64, 0]),
        words(&[0]),
        halves(&[64, 56, 1, 0, 0, 0]),
        words(&[1, 5]),
        longs(&[0, BASE, BASE, size, size, 0x1000]),
        words(&code),
    ]
    .concat()
}

/// Lets nothing but the build itself know of QEMU.
fn without_the_hosts(command: &Command) -> Command {
    let script = "d=/proc/sys/fs/binfmt_misc; if [ -d $d ]; then mount -t tmpfs none $d; fi && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    outer
}

#[test]
fn another_processors_programs_run_for_root_and_for_users() {
    let bench = Bench::new();
    let files = BTreeMap::from([(PathBuf::from("bin/tiny"), Member { mode: 0o755, data: tiny() })]);
    let archive = pack_members(&files, Vec::new(), &PackOptions::default()).unwrap().0;
    fs::write(bench.path("root.tar.xz"), archive).unwrap();
    let recipe = format!(
        "image:\n  distribution: d\n  release: r\n  architecture: arm64\nsource:\n  downloader: rootfs-http\n  url: file://{}\n  skip_verification: true\nactions:\n- trigger: post-files\n  action: |\n    #!/bin/tiny\n",
        bench.path("root.tar.xz").display()
    );
    let text = fails(&mut without_the_hosts(&bench.build(&recipe, "root", &[])));
    assert!(text.contains("exit status: 42"), "{text}");
    bench.assert_clean("root");
    let (user, home) = (User::add("msarm"), bench.path("home"));
    let text = fails(&mut without_the_hosts(&user.run(&bench.build(&recipe, "home/user", &[]), &home)));
    assert!(text.contains("exit status: 42"), "{text}");
    let boot = bench.build(&recipe, "boot", &["--test"]);
    let text = fails(&mut without_the_hosts(&boot));
    assert!(text.contains("binfmt-support"), "{text}");
    bench.assert_clean("boot");
    assert!(!fs::exists("/proc/sys/fs/binfmt_misc/qemu-aarch64").unwrap(), "the host's kernel was told");
}

/// The real Debian, by an ordinary user.
#[test]
fn debian_for_arm64_is_built_here() {
    let bench = Bench::new();
    let recipe = "image:\n  distribution: debian\n  release: bookworm\n  architecture: arm64\nsource:\n  downloader: debootstrap\n  variant: minbase\nactions:\n- trigger: post-files\n  action: |\n    #!/bin/sh\n    set -e\n    [ \"$(uname -m)\" = aarch64 ]\n    dpkg --print-architecture > /etc/which\n    dpkg --audit > /etc/audit\n";
    let (user, home) = (User::add("msdeb"), bench.path("home"));
    let build = bench.build(recipe, "home/out", &["--format=tar"]);
    works(&mut without_the_hosts(&user.run(&build, &home)));
    let root = bench.path("root");
    fs::create_dir(&root).unwrap();
    let archive = bench.path("home/out/rootfs.tar.xz");
    works(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&root));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!((read("etc/which").as_str(), read("etc/audit").as_str()), ("arm64\n", ""));
    let program = fs::read(root.join("bin/ls")).unwrap();
    assert_eq!(program[18..20], [183, 0], "not a program for arm64");
    assert!(read("var/lib/dpkg/status").contains("Status: install ok installed"));
}
