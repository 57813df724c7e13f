//! What builds keep for each other: finished images and bases.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::archive::Member;

use crate::bench::{Bench, failed, fails, says, sha256, start, wait_until, works};
use crate::mirror::{Deb, Fault, Mirror, Release, package, pool, version};

/// Touches what an overlay must get right: links, modes, renames, removed and remade directories.
const SCRIPT: &str = "actions:\n  - trigger: post-unpack\n    action: |\n      #!/bin/sh\n      set -e\n      echo more >> /usr/share/doc/base-files/note\n      chmod 4755 /usr/bin/cat\n      rm -r /var/lib/mini\n      mkdir /var/lib/mini\n      echo new > /var/lib/mini/other\n      rm /usr/bin/dd\n";

/// What LXC cannot start an image without.
const LXC: &str = "targets:\n  lxc:\n    config:\n      - type: all\n        content: lxc.arch = linux64\n";

/// Images here are made to be compared, not to be small.
const QUICK: &str = "--compression=xz:0";

/// The packages of [`Mirror::start`], apt with another file.
fn packages(text: &str) -> Vec<Deb> {
    let mut packages = Mirror::standard();
    packages.retain(|package| package.name != "apt");
    let note = [(PathBuf::from("usr/share/doc/apt/note"), Member::file(text))];
    packages.push(package("apt", &note.into()));
    packages
}

#[test]
fn an_unchanged_image_is_used_again_until_something_changes() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe("files:\n  - generator: copy\n    source: copied\n    path: /etc/copied\n");
    bench.write("copied", "one");
    let build = |out: &str, more: &[&str]| {
        let mut command = bench.command();
        command.arg("build").arg(bench.write("recipe.yaml", &recipe)).arg("--out").arg(bench.path(out));
        says(command.arg(QUICK).args(more))
    };
    let unchanged = "unchanged since";
    assert!(!build("first", &[]).contains(unchanged));
    let again = build("second", &[]);
    assert!(again.contains(unchanged), "{again}");
    for file in ["rootfs.tar.xz", "lxd.tar.xz", "manifest.json", "SHA256SUMS"] {
        assert_eq!(
            sha256(&bench.path("first").join(file)),
            sha256(&bench.path("second").join(file)),
            "{file}"
        );
    }
    // Signed anew, with the same packages: still unchanged.
    let release = Release { valid_until: Some("Wed, 01 Jul 2099 00:00:00 UTC".into()), ..Release::default() };
    mirror.publish(&Mirror::standard(), &release);
    let signed = build("signed", &["--explain"]);
    assert!(!bench.path("signed").exists(), "--explain builds nothing");
    assert!(signed.contains("signed anew") && signed.contains("reuse"), "{signed}");
    assert!(build("third", &[]).contains(unchanged));
    assert!(!build("forced", &["--force"]).contains(unchanged));
    assert!(
        !build("epoch", &["-o", "image.serial=20260801_0000"]).contains(unchanged),
        "another serial is asked for"
    );
    bench.write("copied", "two");
    let copied = build("why", &["--explain"]);
    assert!(copied.contains("copied file copied"), "{copied}");
    assert!(!build("copied-too", &[]).contains(unchanged));
    // A damaged image in the cache is noticed.
    let kept = fs::read_dir(bench.path("state/cache/images")).unwrap().flatten().map(|item| item.path());
    for image in kept.filter(|path| path.is_dir()) {
        fs::remove_file(image.join("rootfs.tar.xz")).unwrap();
        fs::write(image.join("rootfs.tar.xz"), "damaged").unwrap();
    }
    let damaged = build("healed", &[]);
    assert!(damaged.contains("damaged") && !damaged.contains(unchanged), "{damaged}");
    // Another package, at last.
    mirror.publish(&packages("another note"), &Release::default());
    let changed = build("changed-why", &["--explain"]);
    assert!(changed.contains("other packages are needed now") && changed.contains("run"), "{changed}");
    assert!(!build("changed", &[]).contains(unchanged));
}

#[test]
fn images_are_the_same_from_an_overlay_a_copy_and_a_new_base() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe(SCRIPT);
    let new = says(&mut bench.build(&recipe, "new", &[QUICK]));
    assert!(new.contains("a new base of 3 packages, on an overlay"), "{new}");
    let shared = says(&mut bench.build(&recipe, "shared", &[QUICK, "-o", "image.variant=other"]));
    assert!(shared.contains("a base of 3 packages from the cache, on an overlay"), "{shared}");
    let copied = says(&mut bench.build(&recipe, "copied", &[QUICK, "--format=image,dir"]));
    assert!(copied.contains("from the cache, on a copy"), "{copied}");
    // Without any base: what a directory alone is made from.
    let none = Bench::new();
    let alone = says(&mut none.build(&recipe, "alone", &[QUICK, "--format=image,dir"]));
    assert!(!alone.contains("base of"), "{alone}");
    let expected = sha256(&none.path("alone/rootfs.tar.xz"));
    for out in ["new", "shared", "copied"] {
        assert_eq!(sha256(&bench.path(out).join("rootfs.tar.xz")), expected, "{out}");
    }
    // Somebody tidied up in the cache: the base is made again.
    let bases: Vec<_> = fs::read_dir(bench.path("state/cache/bases")).unwrap().flatten().collect();
    assert_eq!(bases.len(), 1);
    fs::remove_file(bases[0].path().join("rootfs/usr/bin/cat")).unwrap();
    let healed = says(&mut bench.build(&recipe, "healed", &[QUICK, "--force"]));
    assert!(healed.contains("a new base"), "{healed}");
    assert_eq!(sha256(&bench.path("healed/rootfs.tar.xz")), expected);
    bench.assert_clean("nothing");
}

#[test]
fn a_build_killed_while_it_makes_a_base_or_works_on_one_leaves_nothing_that_runs() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = mirror.recipe("actions:\n  - trigger: post-unpack\n    action: |\n      #!/bin/sh\n      [ -e /etc/go ] || sleep 10003\n");
    mirror.break_path(&pool("dpkg"), Fault::Stall);
    let kill = |ready: &mut dyn FnMut() -> bool| {
        let mut child = start(&mut bench.build(&recipe, "out", &[QUICK]));
        wait_until("the moment", ready);
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the end of all processes", || bench.processes().is_empty());
    };
    let making = || fs::read_dir(bench.path("state/cache/bases")).into_iter().flatten().flatten().count();
    kill(&mut || making() > 0);
    mirror.break_path("nothing", Fault::Cut);
    kill(&mut || bench.processes().iter().any(|line| line.contains("sleep 10003")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*bench.path("").to_string_lossy()), "{mounts}");
    works(&mut bench.build(&mirror.recipe(""), "out", &[QUICK]));
}

#[test]
fn the_log_of_a_failed_build_is_kept_and_named() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let script = "actions:\n  - trigger: post-files\n    action: |\n      #!/bin/sh\n      echo what happened\n      exit 7\n";
    let text = fails(&mut bench.build(&mirror.recipe(script), "out", &[]));
    let log = text.lines().find_map(|line| line.split_once("the whole log: ")).expect(&text).1;
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("what happened") && log.contains("failed: action post-files"), "{log}");
    bench.assert_clean("out");
}

#[test]
fn a_stream_gets_what_was_built_and_nothing_twice() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let root = bench.path("tree");
    works(bench.command().args(["stream", "init"]).arg(&root));
    let build = |recipe: &str| {
        let mut command = bench.command();
        command.arg("build").arg(bench.write("recipe.yaml", recipe)).arg("--stream").arg(&root).arg(QUICK);
        command
    };
    let published = works(&mut build(&mirror.recipe(LXC)));
    assert!(Path::new(published.trim()).join("rootfs.tar.xz").exists(), "{published}");
    assert_eq!(works(&mut build(&mirror.recipe(LXC))), published, "nothing changed");
    // The stream alone is enough to know that.
    fs::remove_dir_all(bench.path("state/cache/images")).unwrap();
    assert_eq!(works(&mut build(&mirror.recipe(LXC))), published, "nothing changed");
    let broken = "actions:\n  - trigger: post-files\n    action: |\n      #!/bin/sh\n      exit 7\n";
    failed(&build(&mirror.recipe(broken)).output().unwrap());
    let list = works(bench.command().args(["stream", "list", "--format=json"]).arg(&root));
    assert_eq!(list.matches("\"serial\"").count(), 1, "{list}");
    works(bench.command().args(["stream", "verify"]).arg(&root));
}

#[test]
fn verify_builds_the_same_again_after_the_mirror_moved_on() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    works(&mut bench.build(&mirror.recipe(SCRIPT), "out", &[QUICK]));
    let mut newer = packages("a newer note");
    newer.iter_mut().filter(|package| package.name == "apt").for_each(|package| {
        *package =
            version("apt", "2.0", &[(PathBuf::from("usr/share/doc/apt/note"), Member::file("2"))].into());
    });
    mirror.publish(&newer, &Release::default());
    let verify = || {
        let mut command = bench.command();
        command.args(["build", "--verify"]).arg(bench.path("out"));
        command
    };
    let same = says(&mut verify());
    assert!(same.contains("files are the same again"), "{same}");
    // Without the cache the old package is gone for good.
    fs::remove_dir_all(bench.path("state/cache/packages")).unwrap();
    let output = verify().output().unwrap();
    failed(&output);
    let told = String::from_utf8_lossy(&output.stdout);
    for expected in
        ["rootfs.tar.xz: was", "rootfs/usr/share/doc/apt/note: other contents", "package apt: 1.0 is neither"]
    {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
    assert!(!told.contains("usr/bin/cat"), "{told}");
}
