//! The same packages and serial make the same image, wherever and however it is built.

use std::fs;
use std::process::Command;

use millstream_image::archive::read_small;
use millstream_image::manifest::Manifest;

use crate::bench::{Bench, sha256, works};
use crate::mirror::Mirror;

#[test]
fn threads_place_and_umask_do_not_matter() {
    let (one, two, mirror) = (Bench::new(), Bench::new(), Mirror::start());
    let recipe = mirror.recipe("files:\n  - generator: hostname\n  - generator: hosts\n");
    works(&mut one.build(&recipe, "out", &["--threads=1"]));
    let build = two.build(&recipe, "deeper/still/out", &["--threads=3"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 0077; exec \"$@\"", "sh"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("MILLSTREAM_DIR", two.path("state"));
    works(&mut shell);
    for file in ["rootfs.tar.xz", "meta.tar.xz", "lxd.tar.xz", "incus.tar.xz", "SHA256SUMS"] {
        let (a, b) = (one.path("out").join(file), two.path("deeper/still/out").join(file));
        assert_eq!(sha256(&a), sha256(&b), "{file}");
    }
}

#[test]
fn an_image_is_complete() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let more = "simplestream:\n  distro_name: Mini\n  release_aliases:\n    test: \"7, seven\"\ntargets:\n  lxc:\n    create_message: You made {{ image.release }}.\n    config:\n      - type: all\n        before: 5\n        content: lxc.include = OLD\n      - type: all\n        after: 4\n        content: lxc.include = NEW\n      - type: user\n        content: lxc.include = USER\n      - type: all\n        content: lxc.arch = {{ image.architecture_personality }}\nfiles:\n  - generator: hostname\n";
    works(&mut bench.build(&mirror.recipe(more), "out", &[]));
    let read = |name: &str| read_small(fs::File::open(bench.path("out").join(name)).unwrap()).unwrap();
    let meta = read("meta.tar.xz");
    let text = |name: &str| String::from_utf8(meta[std::path::Path::new(name)].data.clone()).unwrap();
    assert_eq!(text("config"), "lxc.include = NEW\nlxc.arch = linux64\n");
    assert_eq!(text("config-user"), "lxc.include = NEW\nlxc.include = USER\nlxc.arch = linux64\n");
    for level in 1..=4 {
        assert_eq!(text(&format!("config.{level}")), "lxc.include = OLD\nlxc.arch = linux64\n");
    }
    assert_eq!(text("create-message"), "You made test.\n");
    assert_eq!(text("expiry"), "1785456000\n", "30 days after the serial");
    assert_eq!(text("templates"), "/etc/hostname\n");
    assert_eq!(text("build_id"), "20260701_0000\n");
    assert!(meta.contains_key(std::path::Path::new("excludes-user")));
    let lxd = read("lxd.tar.xz");
    let metadata = &lxd[std::path::Path::new("metadata.yaml")].data;
    let metadata = millstream_image::metadata::Metadata::parse(metadata).unwrap();
    assert_eq!(metadata.architecture, "x86_64");
    assert_eq!(metadata.properties["os"], "Mini");
    assert_eq!(metadata.properties["serial"], "20260701_0000");
    assert_eq!(sha256(&bench.path("out/lxd.tar.xz")), sha256(&bench.path("out/incus.tar.xz")));
    let manifest = Manifest::parse(&fs::read(bench.path("out/manifest.json")).unwrap()).unwrap();
    let names: Vec<_> = manifest.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["apt", "base-files", "dpkg"]);
    assert!(manifest.packages.iter().all(|package| package.sha256.is_some()), "every package has its hash");
    assert_eq!(manifest.release_aliases, ["7", "seven"]);
    assert_eq!(manifest.files["rootfs.tar.xz"].sha256.to_string(), sha256(&bench.path("out/rootfs.tar.xz")));
    let log = fs::read_to_string(bench.path("out/build.log")).unwrap();
    assert!(log.contains(&format!("==> source: {}", mirror.url)) && log.contains("Setting up dpkg"), "{log}");
    works(
        Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(bench.path("out")),
    );
}
