//! `busybox`: compiled from a tarball of sources by the host's own compiler. The sources here are a
//! miniature with the targets and the options that busybox's have.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use millstream_image::Sha256Digest;

use super::distributions::key;
use super::server::Server;
use crate::bench::{Bench, fails, works};

const MAKEFILE: &str = "all: busybox\n\
defconfig:\n\t@echo '# CONFIG_STATIC is not set' > .config\n\
busybox: busybox.c\n\t@grep -q CONFIG_STATIC=y .config\n\t$(CC) -static -o $@ $<\n";

/// Says its names, and whether it was compiled where it could see or reach what it must not.
const PROGRAM: &str = r#"#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--list-full")) return puts("bin/busybox\nbin/sh\nusr/bin/env\nsbin/init") < 0;
    return puts("works") < 0;
}
"#;

/// A tarball of these sources, as published.
fn tarball(bench: &Bench, makefile: &str) -> Vec<u8> {
    let tree = bench.path("busybox-1.36.1");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("Makefile"), makefile).unwrap();
    fs::write(tree.join("busybox.c"), PROGRAM).unwrap();
    let file = bench.path("source.tar.bz2");
    let mut tar = Command::new("tar");
    tar.args(["--mtime=@1700000000", "--owner=0", "--group=0", "-cjf"]).arg(&file);
    works(tar.arg("-C").arg(bench.path("")).arg("busybox-1.36.1"));
    fs::read(file).unwrap()
}

const NAME: &str = "busybox-1.36.1.tar.bz2";

fn publish(server: &Server, data: &[u8]) {
    server.put(&format!("{NAME}.sha256"), format!("{}  {NAME}\n", Sha256Digest::of(data)));
    server.put(NAME, data);
}

fn recipe(server: &Server, more: &str) -> String {
    format!(
        "image:\n  distribution: busybox\n  release: 1.36.1\n  architecture: amd64\nsource:\n  downloader: busybox\n  url: {}\n{more}",
        server.url
    )
}

#[test]
fn busybox_is_compiled_and_linked_under_all_its_names() {
    let (bench, server) = (Bench::new(), Server::start());
    publish(&server, &tarball(&bench, MAKEFILE));
    works(&mut bench.build(&recipe(&server, ""), "out", &["--format=dir"]));
    let root = bench.path("out/rootfs");
    assert_eq!(works(&mut Command::new(root.join("bin/busybox"))), "works\n", "static, so it runs anywhere");
    for name in ["bin/sh", "usr/bin/env", "sbin/init"] {
        assert_eq!(fs::read_link(root.join(name)).unwrap().to_str(), Some("/bin/busybox"), "{name}");
    }
    assert!(root.join("proc").is_dir() && root.join("tmp").is_dir());
}

#[test]
fn sources_that_are_not_what_was_published_are_refused() {
    let (bench, server, signer) = (Bench::new(), Server::start(), key());
    let data = tarball(&bench, MAKEFILE);
    let refused = |recipe: &str, word: &str| {
        let text = fails(&mut bench.build(recipe, "out", &["--format=dir"]));
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
        bench.assert_clean("out");
    };
    publish(&server, b"other");
    server.put(NAME, data.clone());
    refused(&recipe(&server, ""), "published is SHA-256");
    server.remove(&format!("{NAME}.sha256"));
    refused(&recipe(&server, ""), "there is no checksum");
    publish(&server, &data);
    let armored = signer.to_armored_public().unwrap().replace('\n', "\n      ");
    let signed = recipe(&server, &format!("  keys:\n  - |\n      {armored}\n"));
    refused(&signed, "source.keys asks for a signature");
    server.put(&format!("{NAME}.sig"), key().sign_detached(&data[..], SystemTime::now()).unwrap());
    refused(&signed, "no good signature");
    refused(&recipe(&server, "").replace("amd64", "riscv64"), "compiled for this host's");
}

#[test]
fn compiling_sees_neither_the_hosts_files_nor_the_network() {
    let (bench, server) = (Bench::new(), Server::start());
    let secret = bench.write("secret", "secret");
    let port = server.url.rsplit(':').next().unwrap();
    // A link out of the workshop is followed inside it, where nothing is.
    let makefile = MAKEFILE.replace(
        "\t$(CC)",
        &format!(
            "\t@! cat {0} /etc/shadow\n\t@! bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'\n\t@! touch /usr/was-here\n\
             \t@! mount -o remount,rw /usr\n\tln -s {0} $@\n\t@exit 0; $(CC)",
            secret.display()
        ),
    );
    publish(&server, &tarball(&bench, &makefile));
    let text = fails(&mut bench.build(&recipe(&server, ""), "out", &["--format=dir"]));
    assert!(text.contains("./busybox: not found"), "every command before failed as it must:\n{text}");
    bench.assert_clean("out");
}

#[test]
fn an_installation_medium_gives_its_live_system() {
    let (bench, server) = (Bench::new(), Server::start());
    let tree = bench.path("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/which"), "vyos").unwrap();
    let medium = bench.path("medium");
    fs::create_dir_all(medium.join("live")).unwrap();
    let image = medium.join("live/filesystem.squashfs");
    works(Command::new("mksquashfs").arg(&tree).arg(&image).args(["-quiet", "-no-progress"]));
    let iso = bench.path("vyos.iso");
    let mut make = Command::new("genisoimage");
    works(make.args(["-quiet", "-J", "-R", "-l", "-o"]).arg(&iso).arg(&medium));
    let data = fs::read(&iso).unwrap();
    for (path, release) in [
        ("vyos-2026.02.01-0021-rolling-generic-amd64.iso", "current"),
        ("1.4.1/vyos-1.4.1-generic-amd64.iso", "1.4.1"),
    ] {
        server.put("vyos-2026.01.30-0021-rolling-generic-amd64.iso", "older");
        server.put(path, data.clone());
        let recipe = format!(
            "image:\n  distribution: vyos\n  release: '{release}'\n  architecture: amd64\nsource:\n  downloader: vyos-http\n  url: {}\n",
            server.url
        );
        works(&mut bench.build(&recipe, release, &["--format=dir"]));
        assert_eq!(fs::read_to_string(bench.path(release).join("rootfs/etc/which")).unwrap(), "vyos");
    }
    // One without a live system, by another downloader.
    fs::remove_file(&image).unwrap();
    let mut make = Command::new("genisoimage");
    works(make.args(["-quiet", "-J", "-R", "-l", "-o"]).arg(&iso).arg(&medium));
    let recipe = "image:\n  distribution: d\n  release: r\n  architecture: amd64\nsource:\n  downloader: rootfs-http\n  url: vyos.iso\n";
    let text = fails(&mut bench.build(recipe, "out", &["--format=dir"]));
    assert!(text.contains("no live system"), "{text}");
    bench.assert_clean("out");
}
