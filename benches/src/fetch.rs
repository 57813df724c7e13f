//! Fetching and unpacking a published image against LXC's own template.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::bail;

use crate::builds::repository;
use crate::compare::{Bench, Comparison, Sides};

pub fn all() -> Vec<Comparison> {
    vec![Comparison {
        name: "fetch-unpack",
        about: "the default image over loopback, fetched, verified and unpacked, against lxc-create -t download",
        target: 0.6,
        setup,
        check: same_files,
    }]
}

fn setup(bench: &Bench) -> anyhow::Result<Sides> {
    let recipe = repository("recipes/debian.yaml");
    bench.run(&format!(
        "$MILLSTREAM -q build {} -o image.release=bookworm --out image\n\
         $MILLSTREAM -q stream init tree\n\
         $MILLSTREAM -q stream add tree image",
        recipe.display()
    ))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    bench.keep(&format!("exec $MILLSTREAM -q serve --root tree --listen 127.0.0.1:{port}"))?;
    let ca = bench.path("state/config/tls/ca.crt");
    for _ in 0..100 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::write(bench.path("wgetrc"), format!("ca_certificate = {}\n", ca.display()))?;
    fs::write(bench.path("default.conf"), "lxc.net.0.type = empty\n")?;
    bench.run(&format!(
        "MILLSTREAM_DIR=$PWD/client $MILLSTREAM -q remote add home https://127.0.0.1:{port} \
         --key tree/key.asc --ca {}",
        ca.display()
    ))?;
    Ok(Sides {
        ours: "export MILLSTREAM_DIR=$PWD/client\n\
               $MILLSTREAM -q image copy home:debian/bookworm local: --alias d\n\
               $MILLSTREAM -q create d c1"
            .into(),
        theirs: format!(
            "WGETRC=$PWD/wgetrc LXC_CACHE_PATH=$PWD/cache lxc-create -P $PWD/lxc -n c1 -f default.conf \
             -t download -- -d debian -r bookworm -a amd64 --server 127.0.0.1:{port}"
        ),
        // Moved, not removed: ext4 is slow to make files where many were deleted a minute ago.
        before_ours:
            "old=old-$(date +%s%N); mkdir $old; for d in data cache; do [ ! -e client/$d ] || mv client/$d $old; done"
                .into(),
        before_theirs: "old=old-$(date +%s%N); mkdir $old; for d in lxc cache; do [ ! -e $d ] || mv $d $old; done"
            .into(),
    })
}

fn same_files(bench: &Bench) -> anyhow::Result<String> {
    // LXC's template writes the container's name into two files, and nothing else.
    let list =
        |root: &str| bench.run(&format!("cd {root} && find . -type f -printf '%P %s %m %U:%G\\n' | sort"));
    let ours = bench.run("echo client/data/containers/images/*/rootfs")?;
    let (ours, theirs) = (list(ours.trim())?, list("lxc/c1/rootfs")?);
    let differ = |line: &&str| !line.starts_with("etc/host") && !theirs.contains(*line);
    if let Some(line) = ours.lines().find(differ) {
        bail!("only ours: {line}");
    }
    Ok(format!("the same {} files on both sides", ours.lines().count()))
}
