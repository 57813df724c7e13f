//! Systems with other inits than systemd, made of Debian's packages, started and stopped. They share
//! one base and one cache.
#![allow(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use millstream_builder::come_up;
use millstream_runtime::{CancelToken, Runtime};

use crate::bench::{Bench, says, works};

/// The runtime starts this very program again inside containers, before any test harness runs.
// SAFETY: the loader calls it once, before main, in the only thread.
#[used]
#[unsafe(link_section = ".init_array")]
static TAKE_OVER: extern "C" fn() = {
    extern "C" fn take_over() {
        millstream_runtime::init();
    }
    take_over
};

struct System {
    /// Of the recipe.
    variant: &'static str,
    packages: &'static str,
    /// What the boot test calls it.
    known_as: &'static str,
    /// Adds a service that cannot be started.
    breaks: &'static str,
    /// What is said about that.
    reason: &'static str,
}

const BREAKS_OPENRC: &str = "printf '#!/sbin/openrc-run\\nstart() { return 1; }\\n' > /etc/init.d/broken; chmod 755 /etc/init.d/broken; rc-update add broken default";

const SYSTEMS: [System; 4] = [
    System {
        variant: "runit",
        packages: "runit-init, sysv-rc",
        known_as: "runit",
        breaks: "mkdir /etc/sv/broken; printf '#!/bin/sh\\nexit 1\\n' > /etc/sv/broken/run; chmod 755 /etc/sv/broken/run; ln -s /etc/sv/broken /etc/runit/runsvdir/default/",
        reason: "these services do not stay up: broken (down)",
    },
    System {
        variant: "sysv",
        packages: "sysvinit-core, sysv-rc",
        known_as: "sysvinit",
        breaks: "printf '#!/bin/sh\\n### BEGIN INIT INFO\\n# Provides: broken\\n# Required-Start:\\n# Required-Stop:\\n# Default-Start: 2 3 4 5\\n# Default-Stop:\\n# Short-Description: x\\n### END INIT INFO\\n[ $1 != start ]\\n' > /etc/init.d/broken; chmod 755 /etc/init.d/broken; update-rc.d broken defaults",
        reason: "these services failed: broken",
    },
    System {
        variant: "openrc",
        packages: "sysvinit-core, openrc",
        known_as: "OpenRC",
        breaks: BREAKS_OPENRC,
        reason: "these services failed: broken",
    },
    System {
        variant: "openrc-init",
        packages: "openrc, initscripts",
        known_as: "OpenRC",
        breaks: BREAKS_OPENRC,
        reason: "these services failed: broken",
    },
];

/// With what a system needs and no more.
fn recipe(system: &System) -> String {
    let System { variant, packages, .. } = system;
    format!(
        "image:\n  distribution: debian\n  release: bookworm\n  variant: {variant}\nsource:\n  downloader: debootstrap\n  variant: minbase\npackages:\n  manager: apt\n  sets:\n    - packages: [{packages}]\n      action: install\n      flags: [--no-install-recommends]\nactions:\n  - trigger: post-packages\n    action: |\n      #!/bin/sh\n      rm -r /usr/share/doc /usr/share/locale /usr/share/zoneinfo\n      [ -e /sbin/init ] || ln -s openrc-init /sbin/init\n"
    )
}

fn build(bench: &Bench, system: &System) -> String {
    let file = bench.write(&format!("{}.yaml", system.variant), &recipe(system));
    let mut command = bench.command();
    command.arg("build").arg(file).arg("--out").arg(bench.path(system.variant));
    says(command.args(["--test", "--compression=xz:0"]))
}

/// What users do with a container, and a service that fails.
fn live(bench: &Bench, system: &System) {
    let millstream = |args: &[&str]| works(bench.command().args(args));
    let name = format!("i{}-{}", std::process::id(), system.variant);
    let directory = bench.path("state/data/containers");
    let runtime = Runtime::open(&directory).unwrap();
    let up = || come_up(&runtime, &name.parse().unwrap(), Duration::from_mins(2), &CancelToken::default());
    millstream(&["launch", bench.path(system.variant).to_str().unwrap(), &name]);
    assert_eq!(up().unwrap(), system.known_as);
    millstream(&["exec", &name, "--", "sh", "-ec", system.breaks]);
    let begin = Instant::now();
    let stopped = Command::new(bench.binary())
        .args(["stop", "--timeout=120", &name])
        .env("MILLSTREAM_DIR", bench.path("state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(stopped.status.success() && begin.elapsed() < Duration::from_mins(2), "{name}: {said}");
    assert_eq!(last_exit(&directory.join(&name)), 0, "{name}");
    millstream(&["start", &name]);
    let reason = up().unwrap_err().to_string();
    assert!(reason.contains(system.reason), "{name}: {reason}");
    millstream(&["delete", "--force", &name]);
}

fn last_exit(container: &Path) -> i64 {
    let state = std::fs::read(container.join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    state["last_exit"]["code"].as_i64().unwrap()
}

#[test]
fn openrc_runit_and_sysvinit_come_up_and_shut_down() {
    let bench = Bench::new();
    let build = |system: &System| {
        let text = build(&bench, system);
        assert!(text.contains(&format!("{} came up", system.known_as)), "{text}");
    };
    // The first makes the base of all.
    let [slowest, others @ ..] = &SYSTEMS;
    build(slowest);
    std::thread::scope(|scope| {
        scope.spawn(|| live(&bench, slowest));
        for system in others {
            let (bench, build) = (&bench, &build);
            scope.spawn(move || {
                build(system);
                live(bench, system);
            });
        }
    });
    bench.assert_clean("nothing");
}
