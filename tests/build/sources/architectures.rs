//! Images for processors this host does not have.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use millstream_image::archive::{Compression, Member, PackOptions, pack_members};

use super::distributions::archive;
use super::server::Server;
use super::table::CASES;
use crate::bench::{Bench, fails, works};

/// The command on a host whose kernel knows no interpreters, and that has none to register.
fn without_emulation(command: &Command) -> Command {
    let script = "for d in /proc/sys/fs/binfmt_misc /usr/lib/binfmt.d; do [ ! -d $d ] || mount -t tmpfs none $d; done && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        outer.env(key, value.unwrap_or_default());
    }
    outer
}

fn recipe(server: &Server, downloader: &str, more: &str) -> String {
    format!(
        "image:\n  distribution: d\n  release: 3.20\n  architecture: riscv64\nsource:\n  downloader: {downloader}\n  url: {}\n  skip_verification: true\n{more}",
        server.url
    )
}

#[test]
fn programs_that_cannot_run_here_are_told_before_anything_is_fetched() {
    let (bench, server) = (Bench::new(), Server::start());
    let action = "actions:\n- trigger: post-files\n  action: |\n    #!/bin/sh\n    true\n";
    for recipe in [recipe(&server, "debootstrap", ""), recipe(&server, "alpinelinux-http", action)] {
        let text = fails(&mut without_emulation(&bench.build(&recipe, "out", &[])));
        assert!(text.contains("qemu-user-static") && text.contains("riscv64"), "{text}");
        assert_eq!(server.asked(), Vec::<String>::new());
        bench.assert_clean("out");
    }
}

#[test]
fn a_root_file_system_in_which_nothing_is_run_needs_no_emulation() {
    let (bench, server) = (Bench::new(), Server::start());
    let case = CASES.iter().find(|case| case.compression == Compression::Gzip).unwrap();
    let path = "v3.20/releases/riscv64/alpine-minirootfs-3.20.1-riscv64.tar.gz";
    server.put(path, archive(case, path));
    let recipe = recipe(&server, "alpinelinux-http", "");
    works(&mut without_emulation(&bench.build(&recipe, "out", &["--format=dir"])));
    assert_eq!(fs::read_to_string(bench.path("out/rootfs/etc/which")).unwrap(), path);
}

/// A program for i386 that ends with status 0.
fn tiny() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    let code = [0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80]; // mov eax, 1; xor ebx, ebx; int 0x80
    let size = 84 + code.len() as u32;
    let halves = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        halves(&[2, 3]),
        words(&[1, BASE + 84, 52, 0, 0]),
        halves(&[52, 32, 1, 0, 0, 0]),
        words(&[1, 0, BASE, BASE, size, size, 5, 0x1000]),
        code.to_vec(),
    ]
    .concat()
}

#[test]
fn i386_runs_on_amd64_without_emulation() {
    let (bench, server) = (Bench::new(), Server::start());
    let files = BTreeMap::from([(PathBuf::from("bin/tiny"), Member { mode: 0o755, data: tiny() })]);
    let archive = pack_members(&files, Vec::new(), &PackOptions::default()).unwrap().0;
    server.put("v3.20/releases/x86/alpine-minirootfs-3.20.1-x86.tar.gz", archive);
    let action = "actions:\n- trigger: post-files\n  action: |\n    #!/bin/tiny\n";
    let recipe = recipe(&server, "alpinelinux-http", action).replace("riscv64", "i386");
    works(&mut without_emulation(&bench.build(&recipe, "out", &["--format=dir"])));
}

#[test]
fn a_squashfs_file_system_is_unpacked_with_the_same_checks() {
    let (bench, server) = (Bench::new(), Server::start());
    let tree = bench.path("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/which"), "squashfs").unwrap();
    std::os::unix::fs::symlink("/etc/which", tree.join("link")).unwrap();
    let image = bench.path("image");
    works(Command::new("mksquashfs").arg(&tree).arg(&image).args(["-quiet", "-no-progress"]));
    let data = fs::read(&image).unwrap();
    let job = "job/nixos/release-25.11/nixos.incusContainerImage.x86_64-linux/latest/download-by-type/file";
    server.put(&format!("{job}/squashfs-image"), data.clone());
    let recipe = format!(
        "image:\n  distribution: nixos\n  release: 25.11\n  architecture: amd64\nsource:\n  downloader: nixos-http\n  url: {}\n",
        server.url
    );
    works(&mut bench.build(&recipe, "out", &["--format=dir"]));
    assert_eq!(fs::read_to_string(bench.path("out/rootfs/etc/which")).unwrap(), "squashfs");
    assert!(bench.path("out/rootfs/link").is_symlink());
    server.put(&format!("{job}/squashfs-image"), data[..150].to_vec());
    fails(&mut bench.build(&recipe, "cut", &["--format=dir"]));
    bench.assert_clean("cut");
}
