//! Every format a root file system can be made into, held against the programs that read it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use millstream_image::manifest::Manifest;
use millstream_image::oci::{Index, layout};

use crate::bench::{Bench, failed, fails, interrupt, sha256, start, wait_until, works};
use crate::mirror::Mirror;
use crate::tree::{NEWEST, OS_RELEASE, busybox, listing, odd, same};
use crate::unprivileged::User;

const ALL: [&str; 2] = ["--format=image,squashfs,unified,oci,oci-tar,dir", "--compression=gzip:1"];

#[test]
fn one_build_makes_every_format_with_the_same_bytes_each_time() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe("files:\n  - generator: hostname\n");
    works(&mut bench.build(&recipe, "one", &[ALL[0], ALL[1], "--threads=1"]));
    works(&mut bench.build(&recipe, "two", &[ALL[0], ALL[1], "--threads=3"]));
    let manifest = Manifest::parse(&fs::read(bench.path("one/manifest.json")).unwrap()).unwrap();
    let names: Vec<_> = manifest.files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "incus.tar.xz",
            "lxd.tar.xz",
            "meta.tar.xz",
            "oci.tar",
            "rootfs.squashfs",
            "rootfs.tar.gz",
            "sbom.spdx.json",
            "unified.tar.gz"
        ]
    );
    for name in names.into_iter().chain(["SHA256SUMS", "oci/index.json", "oci/oci-layout"]) {
        assert_eq!(sha256(&bench.path("one").join(name)), sha256(&bench.path("two").join(name)), "{name}");
    }
    works(
        Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(bench.path("one")),
    );
    assert!(bench.path("one/rootfs/usr/bin/dpkg").exists());
    let unified = works(Command::new("tar").arg("-tf").arg(bench.path("one/unified.tar.gz")));
    let first: Vec<_> = unified.lines().take(5).collect();
    let expected = ["metadata.yaml", "templates/", "templates/hostname.tpl", "rootfs/", "rootfs/dev/"];
    assert_eq!(first, expected, "metadata comes first");
    assert!(unified.lines().any(|line| line == "rootfs/usr/bin/dpkg"));
    // Some tools look for just these names.
    let metadata = works(Command::new("tar").arg("-tf").arg(bench.path("one/incus.tar.xz")));
    assert_eq!(metadata.lines().collect::<Vec<_>>(), expected[..3]);
}

#[test]
fn a_stream_takes_squashfs_and_lists_it_with_its_fingerprint() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let more = "targets:\n  lxc:\n    config:\n      - type: all\n        content: lxc.arch = linux64\n";
    works(&mut bench.build(
        &mirror.recipe(more),
        "image",
        &["--format=image,squashfs,unified", "--compression=xz:0"],
    ));
    works(bench.command().args(["stream", "init"]).arg(bench.path("tree")));
    works(Command::new("cp").arg("-a").args([bench.path("image"), bench.path("broken")]));
    let file = fs::File::options().write(true).open(bench.path("broken/rootfs.squashfs")).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let broken = [bench.path("tree"), bench.path("broken")];
    let error = fails(bench.command().args(["stream", "add"]).args(broken));
    assert!(error.contains("rootfs.squashfs") && error.contains("says it uses"), "{error}");
    works(bench.command().args(["stream", "add"]).args([bench.path("tree"), bench.path("image")]));
    works(bench.command().args(["stream", "verify"]).arg(bench.path("tree")));
    let text = fs::read(bench.path("tree/streams/v1/images-mini.json")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let items = &document["products"]["mini:test:amd64:default"]["versions"]["20260701_0000"]["items"];
    assert_eq!(items["squashfs"]["ftype"], "squashfs");
    assert_eq!(items["squashfs"]["sha256"], sha256(&bench.path("image/rootfs.squashfs")));
    let both =
        ["lxd.tar.xz", "rootfs.squashfs"].map(|name| fs::read(bench.path("image").join(name)).unwrap());
    let fingerprint = millstream_image::Sha256Digest::of(&both.concat()).to_string();
    for name in ["lxd.tar.xz", "incus.tar.xz"] {
        assert_eq!(items[name]["combined_squashfs_sha256"], fingerprint, "{name}");
    }
}

#[test]
fn what_cannot_be_made_is_told_before_anything_is_built() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe("");
    let error = fails(bench.build(&recipe, "out", &["--format=squashfs"]).env("PATH", bench.path("empty")));
    assert!(error.contains("install squashfs-tools"), "{error}");
    let error = fails(&mut bench.build(&recipe, "out", &["--format=image,oci", "--compression=xz:9"]));
    assert!(error.contains("use gzip, zstd or none"), "{error}");
    for wrong in [["--format=imgae", "valid"], ["--compression=zstd:40", "levels 0 to 22"]] {
        let output = bench.build(&recipe, "out", &wrong[..1]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(wrong[1]), "{text}");
    }
    assert!(!bench.path("state/cache/packages").exists(), "nothing was fetched");
    bench.assert_clean("out");
}

#[test]
fn a_writer_of_squashfs_that_fails_or_hangs_leaves_nothing() {
    let bench = Bench::new();
    let root = busybox(&bench);
    fs::create_dir(bench.path("bin")).unwrap();
    let tool = |script: &str| {
        let path = bench.write("bin/mksquashfs", script);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:/usr/bin:/bin", bench.path("bin").display());
    tool("#!/bin/sh\necho no luck today >&2\nexit 3\n");
    let error = fails(pack(&bench, &root, "out").arg("--format=squashfs").env("PATH", &path));
    assert!(error.contains("mksquashfs") && error.contains("no luck today"), "{error}");
    bench.assert_clean("out");
    // Sixty-four bytes of the first block.
    tool(
        "#!/bin/sh\n/usr/bin/mksquashfs \"$@\" || exit\n\
         exec dd if=/dev/zero of=\"$2\" bs=1 seek=300 count=64 conv=notrunc status=none\n",
    );
    let error = fails(pack(&bench, &root, "out").arg("--format=squashfs").env("PATH", &path));
    assert!(error.contains("unsquashfs cannot read it"), "{error}");
    bench.assert_clean("out");
    tool("#!/bin/sh\ncat >/dev/null\n: >\"$(dirname \"$0\")/fed\"\nexec sleep 1000\n");
    let child = start(pack(&bench, &root, "out").arg("--format=squashfs").env("PATH", &path));
    wait_until("the tool's input", || bench.path("bin/fed").exists());
    interrupt(&child);
    failed(&child.wait_with_output().unwrap());
    bench.assert_clean("out");
}

#[test]
fn an_oci_image_is_read_unpacked_and_run_by_others() {
    let bench = Bench::new();
    let root = busybox(&bench);
    for compression in ["gzip", "zstd", "none"] {
        let out = bench.path(compression);
        let option = format!("--compression={compression}");
        works(pack(&bench, &root, compression).args(["--format=oci,oci-tar", &option]));
        let layout = format!("oci:{}:latest", out.join("oci").display());
        let archive = format!("oci-archive:{}:latest", out.join("oci.tar").display());
        for image in [&layout, &archive] {
            let text = works(Command::new("skopeo").args(["inspect", image]));
            let found: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&found["Architecture"], &found["Os"]), (&"amd64".into(), &"linux".into()), "{text}");
            assert_eq!(found["Created"], "2026-07-01T00:00:00Z");
            assert_eq!(found["Labels"]["org.opencontainers.image.version"], "20260701_0000");
            let copy = format!("dir:{}", bench.path("copy").display());
            works(Command::new("skopeo").args(["--insecure-policy", "copy", image, &copy]));
        }
        let config = works(Command::new("skopeo").args(["inspect", "--config", &layout]));
        assert!(config.contains(r#""/sbin/init""#) && config.contains("SIGTERM"), "{config}");
    }
    // umoci of Debian 12 knows no zstd.
    let bundle = bench.path("bundle");
    let image = format!("{}:latest", bench.path("gzip/oci").display());
    works(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/os-release")).unwrap(), OS_RELEASE);
    assert_eq!(run_in(&bundle, &["/bin/busybox", "cat", "/etc/greeting"]), "hello\n");
    assert_eq!(run_in(&bundle, &["/bin/busybox", "sh", "-c", "echo $((6 * 7))"]), "42\n");
}

#[test]
fn what_a_layer_would_mean_as_a_removal_is_refused() {
    let bench = Bench::new();
    let root = busybox(&bench);
    fs::write(root.join("etc/.wh.passwd"), "").unwrap();
    let error = fails(pack(&bench, &root, "out").arg("--format=oci"));
    assert!(error.contains("/etc/.wh.passwd"), "{error}");
    bench.assert_clean("out");
    works(pack(&bench, &root, "out").arg("--format=tar"));
}

#[test]
fn packing_reads_what_the_image_is_and_changes_nothing() {
    let bench = Bench::new();
    let root = busybox(&bench);
    let before = listing(&root);
    works(pack(&bench, &root, "out").args(["--format=image,squashfs"]));
    assert_eq!(listing(&root), before, "the source is as it was");
    let manifest = Manifest::parse(&fs::read(bench.path("out/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.product.to_string(), "tiny:one:amd64:default");
    assert_eq!((manifest.os.as_str(), manifest.description.as_str()), ("Tiny", "Tiny One"));
    assert_eq!(manifest.source_date_epoch, NEWEST, "the newest file's time");
    works(bench.command().args(["stream", "init"]).arg(bench.path("tree")));
    works(bench.command().args(["stream", "add"]).args([bench.path("tree"), bench.path("out")]));
    // Somebody else's files are not taken for nobody's.
    let stranger = User::add("msstranger");
    let home = bench.path("strange");
    let mut packing = stranger.run(&pack(&bench, &root, "strange/out"), &home);
    let error = fails(&mut packing);
    assert!(error.contains("run this as root"), "{error}");
    // The same from an archive of it, whatever its compression.
    let archive = bench.path("root.tar.gz");
    works(
        Command::new("tar")
            .args(["--xattrs", "--numeric-owner", "-czf"])
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg("."),
    );
    works(&mut pack(&bench, &archive, "again"));
    assert_eq!(sha256(&bench.path("out/rootfs.tar.xz")), sha256(&bench.path("again/rootfs.tar.xz")));
    let said = ["-o", "image.distribution=mine", "-o", "image.release=2", "-o", "image.variant=small"];
    works(pack(&bench, &root, "named").args(said));
    let manifest = Manifest::parse(&fs::read(bench.path("named/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.product.to_string(), "mine:2:amd64:small");
}

#[test]
fn packing_refuses_what_it_cannot_know_or_must_not_do() {
    let bench = Bench::new();
    let root = busybox(&bench);
    let error = fails(&mut pack(&bench, &root, "root/out"));
    assert!(error.contains("only read"), "{error}");
    let error = fails(pack(&bench, &root, "out").arg("--format=dir"));
    assert!(error.contains("leave dir out"), "{error}");
    let error = fails(&mut pack(&bench, &bench.path("nothing"), "out"));
    assert!(error.contains("nothing"), "{error}");
    fs::create_dir(bench.path("empty")).unwrap();
    let error = fails(&mut pack(&bench, &bench.path("empty"), "out"));
    assert!(error.contains("no root file system"), "{error}");
    fs::write(bench.path("noise.tar"), "no archive").unwrap();
    fails(&mut pack(&bench, &bench.path("noise.tar"), "out"));
    works(pack(&bench, &root, "unified").arg("--format=unified"));
    works(bench.command().args(["stream", "init"]).arg(bench.path("tree")));
    let error =
        fails(bench.command().args(["stream", "add"]).args([bench.path("tree"), bench.path("unified")]));
    assert!(error.contains("build it with image among the formats"), "{error}");
    fs::remove_file(root.join("etc/os-release")).unwrap();
    let error = fails(&mut pack(&bench, &root, "out"));
    assert!(error.contains("-o image.distribution=NAME"), "{error}");
    // What a hostile root file system says of itself is text, and links lead nowhere else.
    fs::write(bench.path("secret"), "ID=secret\n").unwrap();
    symlink("../../secret", root.join("etc/os-release")).unwrap();
    fails(&mut pack(&bench, &root, "out"));
    fs::remove_file(root.join("etc/os-release")).unwrap();
    fs::write(root.join("etc/os-release"), "ID=../../evil\nVERSION_ID=1\nPRETTY_NAME=\"{% for %}\"\n")
        .unwrap();
    let error = fails(&mut pack(&bench, &root, "out"));
    assert!(error.contains("distribution"), "{error}");
    bench.assert_clean("out");
}

#[test]
fn squashfs_and_archive_hold_the_same_odd_tree() {
    let bench = Bench::new();
    let root = busybox(&bench);
    odd(&root.join("odd"));
    works(pack(&bench, &root, "out").args(["--format=tar,squashfs", "--compression=zstd:3"]));
    let (tar, squashfs) = (bench.path("tar"), bench.path("squashfs"));
    fs::create_dir(&tar).unwrap();
    let mut unpack = Command::new("tar");
    unpack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions"]);
    // Directories come first in our archives; tar would else date them before it fills them.
    unpack.args(["--delay-directory-restore", "-xf"]).arg(bench.path("out/rootfs.tar.zst"));
    works(unpack.arg("-C").arg(&tar));
    let mut unpack = Command::new("unsquashfs");
    works(
        unpack.args(["-quiet", "-no-progress", "-d"]).arg(&squashfs).arg(bench.path("out/rootfs.squashfs")),
    );
    let original = listing(&root);
    same(&listing(&tar), &original);
    // What squashfs cannot hold: parts of seconds, times before 1970, access control lists; its
    // root directory has the epoch's time.
    let expected: BTreeMap<_, _> = original
        .into_iter()
        .map(|(path, mut entry)| {
            entry.nanos = 0;
            entry.seconds = if path.as_os_str().is_empty() { NEWEST } else { entry.seconds.max(0) };
            entry.xattrs.retain(|name, _| !name.starts_with("system."));
            (path, entry)
        })
        .collect();
    same(&listing(&squashfs), &expected);
    let log = fs::read_to_string(bench.path("out/build.log")).unwrap();
    assert!(log.contains("system.posix_acl_access"), "what is lost is in the log: {log}");
}

#[test]
fn an_ordinary_users_tree_becomes_roots() {
    let bench = Bench::new();
    let root = busybox(&bench);
    works(pack(&bench, &root, "roots").arg("--format=image,oci"));
    let user = User::add("mspack");
    let (home, own) = (bench.path("home"), bench.path("home/root"));
    fs::create_dir(&home).unwrap();
    works(Command::new("cp").arg("-a").arg(&root).arg(&own));
    works(Command::new("chown").args(["-hR", &format!("{0}:{0}", user.name)]).arg(&own));
    works(
        user.run(pack(&bench, &own, "home/out").arg("--format=image,oci"), &home)
            .env("PATH", "/usr/bin:/bin"),
    );
    let out = home.join("out");
    for name in ["rootfs.tar.xz", "meta.tar.xz", "lxd.tar.xz", "sbom.spdx.json", "oci/index.json"] {
        assert_eq!(sha256(&out.join(name)), sha256(&bench.path("roots").join(name)), "{name}");
    }
}

#[test]
fn manifests_are_shown_and_compared() {
    let bench = Bench::new();
    let root = busybox(&bench);
    let status = |packages: &[(&str, &str)]| {
        let paragraph = |(name, version): &(&str, &str)| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
            )
        };
        fs::create_dir_all(root.join("var/lib/dpkg/info")).unwrap();
        let text: String = packages.iter().map(paragraph).collect();
        fs::write(root.join("var/lib/dpkg/status"), text).unwrap();
    };
    works(bench.command().args(["stream", "init"]).arg(bench.path("tree")));
    let serials = ["20260701_0000", "20260702_0000"];
    let versions: [&[(&str, &str)]; 2] =
        [&[("bash", "5.2-9"), ("gone", "1")], &[("bash", "5.2-10"), ("libstdc++6", "1:2~rc1")]];
    for (serial, packages) in serials.iter().zip(versions) {
        status(packages);
        works(pack(&bench, &root, serial).args(["-o", &format!("image.serial={serial}")]));
        works(bench.command().args(["stream", "add"]).args([bench.path("tree"), bench.path(serial)]));
    }
    let [old, new] = serials.map(|serial| bench.path(serial));
    let text = works(bench.command().args(["manifest", "diff", "--format=json"]).args([&old, &new]));
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let changes: Vec<_> = found["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            [&p["name"], &p["change"], &p["from"], &p["to"]].map(|v| v.as_str().unwrap_or("-").to_owned())
        })
        .collect();
    assert_eq!(
        changes,
        [
            ["bash", "updated", "5.2-9", "5.2-10"],
            ["gone", "removed", "1", "-"],
            ["libstdc++6", "added", "-", "1:2~rc1"]
        ]
    );
    let table = works(
        bench.command().args(["manifest", "diff"]).arg(bench.path("tree/images/tiny/one/amd64/default")),
    );
    assert!(table.lines().any(|line| line.starts_with("updated") && line.contains("5.2-10")), "{table}");
    assert!(table.contains("file rootfs.tar.xz"), "{table}");
    let show = works(bench.command().args(["manifest", "show"]).arg(new.join("manifest.json")));
    assert!(show.contains("libstdc++6"), "{show}");
    let bill = fs::read_to_string(new.join("sbom.spdx.json")).unwrap();
    assert!(bill.contains("pkg:deb/tiny/libstdc%2B%2B6@1:2~rc1?arch=amd64&distro=one"), "{bill}");
    let error = fails(bench.command().args(["manifest", "show"]).arg(bench.path("state")));
    assert!(error.contains("neither manifest.json nor serials"), "{error}");
}

#[test]
fn a_layout_names_its_image() {
    let bench = Bench::new();
    let root = busybox(&bench);
    works(pack(&bench, &root, "out").arg("--format=oci"));
    let read = |name: &str| fs::read(bench.path("out/oci").join(name)).unwrap();
    layout::check_marker(&read(layout::MARKER)).unwrap();
    let index = Index::parse(&read(layout::INDEX)).unwrap();
    assert_eq!(index.manifests[0].annotations[layout::REF_NAME], "latest");
    let data = fs::read(bench.path("out/oci").join(index.manifests[0].digest.blob_path())).unwrap();
    index.manifests[0].verify(&data).unwrap();
}

/// `millstream pack` of `source` into `out`.
fn pack(bench: &Bench, source: &Path, out: &str) -> Command {
    let mut command = bench.command();
    command
        .arg("pack")
        .arg(source)
        .arg("--out")
        .arg(bench.path(out))
        .args(["-o", "image.serial=20260701_0000"]);
    command
}

/// Runs a command with runc in a bundle that umoci made.
fn run_in(bundle: &Path, words: &[&str]) -> String {
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["process"]["args"] = words.into();
    config["process"]["terminal"] = false.into();
    fs::write(&file, config.to_string()).unwrap();
    let name = format!("millstream-test-{}", std::process::id());
    works(Command::new("runc").args(["run", "--bundle"]).arg(bundle).arg(name))
}
