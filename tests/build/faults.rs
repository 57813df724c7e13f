//! Whatever ends a build early leaves no mounts, no processes and no half image, and says why.

use std::process::{Command, Stdio};

use crate::bench::{Bench, failed, fails, interrupt, start, wait_until};
use crate::mirror::{Fault, Mirror, pool};

const ENDLESS: &str = r"actions:
  - trigger: post-unpack
    action: |
      #!/bin/sh
      sleep 10000 &
      (sleep 10001 >/dev/null 2>&1 &)
      echo started > /started
      sleep 10002
";

#[test]
fn a_failing_script_is_quoted() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let script = "actions:\n  - trigger: post-files\n    action: |\n      #!/bin/sh\n      echo first\n      echo the last line >&2\n      exit 7\n";
    let text = fails(&mut bench.build(&mirror.recipe(script), "out", &[]));
    for word in ["action post-files", "exit status: 7", "first", "the last line"] {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    bench.assert_clean("out");
}

#[test]
fn an_endless_script_is_ended_with_all_it_started() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let text = fails(&mut bench.build(&mirror.recipe(ENDLESS), "out", &["--script-timeout=2"]));
    assert!(text.contains("ran longer than 2 seconds"), "{text}");
    bench.assert_clean("out");
}

#[test]
fn a_script_that_closes_its_output_is_ended_too() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let script = "actions:\n  - trigger: post-unpack\n    action: |\n      #!/bin/sh\n      exec >/dev/null 2>&1 </dev/null\n      sleep 10000\n";
    let text = fails(&mut bench.build(&mirror.recipe(script), "out", &["--script-timeout=2"]));
    assert!(text.contains("ran longer than 2 seconds"), "{text}");
    bench.assert_clean("out");
}

#[test]
fn ctrl_c_during_a_script() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let child = start(&mut bench.build(&mirror.recipe(ENDLESS), "out", &[]));
    wait_until("the script", || bench.processes().iter().any(|line| line.contains("sleep 10002")));
    interrupt(&child);
    let text = failed(&child.wait_with_output().unwrap());
    assert!(text.contains("interrupted"), "{text}");
    bench.assert_clean("out");
}

#[test]
fn ctrl_c_during_a_download_that_hangs() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    mirror.break_path(&pool("dpkg"), Fault::Stall);
    let child = start(&mut bench.build(&mirror.recipe(""), "out", &[]));
    wait_until("the download", || {
        let cache = std::fs::read_dir(bench.path("state/cache/packages")).into_iter().flatten().flatten();
        cache.into_iter().any(|item| item.file_name().to_string_lossy().ends_with(".part"))
    });
    interrupt(&child);
    let text = failed(&child.wait_with_output().unwrap());
    assert!(text.contains("interrupted"), "{text}");
    bench.assert_clean("out");
}

#[test]
fn a_mirror_lost_midway_is_named_and_a_later_build_works() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    mirror.break_path(&pool("dpkg"), Fault::Cut);
    let text = fails(&mut bench.build(&mirror.recipe(""), "out", &["--format=dir"]));
    assert!(text.contains("pool/dpkg.deb"), "{text}");
    bench.assert_clean("out");
    mirror.break_path("nothing", Fault::Cut);
    crate::bench::works(&mut bench.build(&mirror.recipe(""), "out", &["--format=dir"]));
}

#[test]
fn a_full_disk() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let recipe = bench.write("recipe.yaml", &mirror.recipe(""));
    // A small file system that exists only for this build; the base is in the cache, elsewhere.
    let script = format!(
        "mkdir {0}/small && mount -t tmpfs -o size=1m none {0}/small && {1} build {2} --out {0}/small/out; \
         code=$?; ls -A {0}/small; exit $code",
        bench.path("").display(),
        bench.binary().display(),
        recipe.display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("MILLSTREAM_DIR", bench.path("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = failed(&output);
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "something is left on the full disk");
    bench.assert_clean("out");
}

/// Fills up what builds share, at several places of the way; with room again all is as it was.
/// Downloads that ran beside the one that found no room may stay begun: the next build goes on
/// with them.
#[test]
fn a_full_cache_is_named_and_used_again_when_there_is_room() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    crate::bench::works(&mut bench.build(&mirror.recipe(""), "reference", &[]));
    let here = bench.path("").display().to_string();
    let script = "cd $0 && mkdir -p small && mount -t tmpfs -o size=$1 none small && export MILLSTREAM_DIR=$0/small && \
         build() { ./millstream build recipe.yaml --serial=20260701_0000 --out $2; } && \
         { build x out-$1 && echo fits; find small -name 'build-*' -o -name '.tmp*' | grep -v /logs/; \
         mount -o remount,size=1g small && build x again-$1 >/dev/null && find small -name '*.part'; }";
    let mut full = 0;
    for size in ["64k", "4m", "16m"] {
        let mut command = Command::new("unshare");
        let output = command.args(["--mount", "sh", "-c", script, &here, size]).output().unwrap();
        let (said, text) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{size}: {text}");
        let fits = said.lines().any(|line| line == "fits");
        assert!(fits || text.contains("No space left on device") && text.contains("small"), "{size}: {text}");
        assert!(!said.contains("small/"), "{size}: half files are left: {said}");
        assert_eq!(bench.path(&format!("out-{size}")).exists(), fits, "{size}: {text}");
        full += usize::from(!fits);
        let again = bench.path(&format!("again-{size}")).join("rootfs.tar.xz");
        let reference = bench.path("reference/rootfs.tar.xz");
        assert_eq!(crate::bench::sha256(&again), crate::bench::sha256(&reference), "{size}");
    }
    assert!(full >= 2, "the caches were too large for this test");
}

#[test]
fn scripts_cannot_reach_the_hosts_devices_or_settings() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let script = "actions:\n  - trigger: post-unpack\n    action: |\n      #!/bin/sh\n      set -x\n      ls /dev\n      ! [ /proc/1/root -ef / ] && echo in a chroot\n      dd if=/dev/zero of=/proc/sys/kernel/domainname count=1 && exit 8\n      mkdir -p /x && dpkg --version >/dev/null && exit 9\n";
    let text = fails(&mut bench.build(&mirror.recipe(script), "out", &[]));
    assert!(text.contains("exit status: 9"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.contains("\n  in a chroot\n"), "there is no init to talk to: {text}");
    assert!(!text.contains("sda") && !text.contains("vda") && !text.contains("kmsg"), "{text}");
    bench.assert_clean("out");
}
