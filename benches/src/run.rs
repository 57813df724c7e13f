//! Starting containers, and commands in them, against LXC and LXD.

use std::fs;

use anyhow::bail;

use crate::builds::repository;
use crate::compare::{Bench, Comparison, Sides};
use crate::lxc;

/// Containers of one round.
const STARTS: usize = 20;
/// Commands of one round.
const COMMANDS: usize = 50;
/// What both sides have of their own.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "launch",
            about: "a container of the default image, which is here: created and started until init runs; \
                    lxc launch of LXD on directory storage",
            target: 0.05,
            setup: launch,
            check: launched,
        },
        Comparison {
            name: "launch-incus",
            about: "the same; incus launch on directory storage",
            target: 0.05,
            setup: launch_incus,
            check: |bench| same_system(bench, "$PWD/incus-exec"),
        },
        Comparison {
            name: "start",
            about: "twenty busybox containers, one after the other, until init runs; lxc-start -d",
            target: 1.0,
            setup: |bench| {
                lxc::containers(bench, STARTS)?;
                Ok(Sides {
                    ours: lxc::start_ours(STARTS),
                    theirs: lxc::start_theirs(STARTS),
                    before_ours: lxc::stop_ours(STARTS),
                    before_theirs: lxc::stop_theirs(STARTS),
                })
            },
            check: same_namespaces,
        },
        Comparison {
            name: "exec",
            about: "fifty times `true` in a busybox container; lxc-attach",
            target: 1.0,
            setup: |bench| {
                lxc::containers(bench, 1)?;
                bench.run(&format!("{}\n{}", lxc::start_ours(1), lxc::start_theirs(1)))?;
                let repeated = |command: &str| {
                    format!("for i in $(seq {COMMANDS}); do {command} true < /dev/null; done")
                };
                Ok(Sides {
                    ours: repeated("$MILLSTREAM exec ${C}1 --"),
                    theirs: repeated("lxc-attach -P $PWD/lxc -n ${C}1 --"),
                    before_ours: String::new(),
                    before_theirs: String::new(),
                })
            },
            check: same_place,
        },
    ]
}

/// The default image, in our store too.
fn default_image(bench: &Bench) -> anyhow::Result<()> {
    let recipe = repository("recipes/debian.yaml");
    bench
        .run(&format!(
            "$MILLSTREAM -q build {} -o image.release=bookworm --out image
             $MILLSTREAM -q image import image/lxd.tar.xz image/rootfs.tar.xz --alias default",
            recipe.display()
        ))
        .map(drop)
}

/// An LXD of the comparison's own, with the image that our store has.
fn launch(bench: &Bench) -> anyhow::Result<Sides> {
    default_image(bench)?;
    bench.run("chmod 711 .; mkdir -m 711 lxd")?;
    bench.keep("LXD_DIR=$PWD/lxd exec lxd --group root > lxd.log 2>&1")?;
    let lxc = "export LXD_DIR=$PWD/lxd LXD_CONF=$PWD/lxd/client";
    bench.at_end("umount -lq lxd/shmounts lxd/devlxd || true");
    bench.at_end("LXD_DIR=$PWD/lxd lxd shutdown --timeout 20");
    bench.at_end(format!("{lxc}\nlxc delete -f ${{C}}1 2>/dev/null || true"));
    bench.run(&format!(
        "{lxc}
         for i in $(seq 60); do lxc query /1.0 > /dev/null 2>&1 && break; sleep 1; done
         lxc storage create default dir
         lxc profile device add default root disk path=/ pool=default
         lxc image import image/lxd.tar.xz image/rootfs.tar.xz --alias default"
    ))?;
    launches(bench, &format!("{lxc}\nlxc"))
}

/// The same with an Incus.
fn launch_incus(bench: &Bench) -> anyhow::Result<Sides> {
    default_image(bench)?;
    let incus = crate::incus::start(bench, "/etc/ssl/certs/ca-certificates.crt")?;
    fs::write(bench.path("incus-exec"), format!("#!/bin/sh\n{incus}\nexec incus exec \"$@\"\n"))?;
    bench.run(&format!(
        "chmod +x incus-exec; {incus}
         incus image import image/incus.tar.xz image/rootfs.tar.xz --alias default"
    ))?;
    launches(bench, &format!("{incus}\nincus"))
}

/// Ours against a client's, given by the lines that end in its name. Each has made one before, so that ours
/// has the image unpacked.
fn launches(bench: &Bench, client: &str) -> anyhow::Result<Sides> {
    let sides = Sides {
        ours: "$MILLSTREAM -q launch local:default ${C}1".into(),
        theirs: format!("{client} launch default ${{C}}1 < /dev/null"),
        before_ours: "$MILLSTREAM -q delete --force ${C}1; sync".into(),
        before_theirs: format!("{client} delete -f ${{C}}1; sync"),
    };
    bench.at_end("$MILLSTREAM -q delete --force ${C}1 || true");
    bench.run(&sides.ours)?;
    bench.run(&sides.theirs)?;
    Ok(sides)
}

fn launched(bench: &Bench) -> anyhow::Result<String> {
    same_system(bench, "LXD_DIR=$PWD/lxd LXD_CONF=$PWD/lxd/client lxc exec")
}

fn same_system(bench: &Bench, exec: &str) -> anyhow::Result<String> {
    let look = "${C}1 -- cat /proc/1/comm /etc/debian_version < /dev/null";
    let ours = bench.run(&format!("$MILLSTREAM exec {look}"))?;
    let theirs = bench.run(&format!("{exec} {look}"))?;
    if ours != theirs {
        bail!("ours {ours:?}, theirs {theirs:?}");
    }
    Ok(format!("the same on both sides: {}", ours.replace('\n', " ")))
}

/// Whether both sides' containers have all namespaces and an interface of their own.
fn same_namespaces(bench: &Bench) -> anyhow::Result<String> {
    for init in lxc::inits(bench)? {
        for namespace in NAMESPACES {
            let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}"));
            if of(&init.to_string())? == of("self")? {
                bail!("process {init} has no {namespace} namespace of its own");
            }
        }
    }
    let bridge = format!("msb{}", std::process::id());
    let count = bench.run(&format!("ip -o link show master {bridge} | wc -l"))?;
    if count.trim() != (2 * STARTS).to_string() {
        bail!("{} interfaces on {bridge}", count.trim());
    }
    Ok(format!("{STARTS} run on each side, with {} namespaces and an interface", NAMESPACES.len()))
}

fn same_place(bench: &Bench) -> anyhow::Result<String> {
    let place = "sh -c 'for n in pid mnt net; do readlink /proc/self/ns/$n; done' < /dev/null";
    let inside = [
        bench.run(&format!("$MILLSTREAM exec ${{C}}1 -- {place}"))?,
        bench.run(&format!("lxc-attach -P $PWD/lxc -n ${{C}}1 -- {place}"))?,
    ];
    for (init, inside) in lxc::inits(bench)?.into_iter().zip(inside) {
        let outside = bench.run(&format!("cd /proc/{init}/ns && readlink pid mnt net"))?;
        if inside != outside {
            bail!("a command was in {inside:?}, init is in {outside:?}");
        }
    }
    Ok("commands run in their containers' namespaces on both sides".into())
}
