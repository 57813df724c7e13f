//! Fetching and unpacking a published image against LXC's own template.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::bail;

use crate::builds::repository;
use crate::compare::{Bench, Comparison, Sides};

pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "fetch-unpack",
            about: "a container of the default image over loopback, fetched, verified and unpacked, against \
                    lxc-create -t download",
            target: 0.45,
            setup,
            check: same_files,
        },
        Comparison {
            name: "fetch-unpack-lxc",
            about: "lxc-create -t millstream against lxc-create -t download, nothing cached",
            target: 0.45,
            setup: |bench| {
                let sides = setup(bench)?;
                let ours = "export MILLSTREAM_DIR=$PWD/client\n\
                            lxc-create -P $PWD/ours -n c1 -f default.conf -t $PWD/lxc-millstream -- \
                            -d debian -r bookworm -a amd64";
                bench.run("ln -s $MILLSTREAM lxc-millstream")?;
                Ok(Sides {
                    ours: ours.into(),
                    before_ours: move_away("client/data client/cache ours"),
                    ..sides
                })
            },
            check: |_| Ok(String::new()),
        },
        Comparison {
            name: "fetch-unpack-incus",
            about: "the same container against incus image copy and incus init, on directory storage",
            target: 0.45,
            setup: against_incus,
            check: |bench| same_files_as(bench, "incus/storage-pools/default/containers/*/rootfs"),
        },
        Comparison {
            name: "create-cached",
            about: "a container of an image that is here, against lxc-create -t download with a warm cache",
            target: 0.01,
            setup: |bench| {
                let sides = setup(bench)?;
                bench.run(&sides.ours)?;
                bench.run(&sides.theirs)?;
                Ok(Sides {
                    ours: "MILLSTREAM_DIR=$PWD/client $MILLSTREAM -q create local:debian/bookworm c2".into(),
                    // Neither waits for what the other wrote.
                    before_ours: "MILLSTREAM_DIR=$PWD/client $MILLSTREAM -q delete c2 || true; sync".into(),
                    before_theirs: format!("{}; sync", move_away("lxc")),
                    ..sides
                })
            },
            check: |_| Ok(String::new()),
        },
        Comparison {
            name: "update",
            about: "the default image after all updates of its release, by delta on a link of 100 Mbit/s, \
                    against the whole image",
            target: 0.5,
            setup: update,
            check: bytes,
        },
    ]
}

/// Serves `tree` on a free port, and makes it the remote `home` of a client in `client`; the URL's host
/// and port.
pub fn serve(bench: &Bench) -> anyhow::Result<String> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    bench.keep(&format!("exec $MILLSTREAM -q serve --root tree --listen 127.0.0.1:{port}"))?;
    let ca = bench.path("state/config/tls/ca.crt");
    for _ in 0..100 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bench.run(&format!(
        "MILLSTREAM_DIR=$PWD/client $MILLSTREAM -q remote add home https://127.0.0.1:{port} \
         --key tree/key.asc --ca {}",
        ca.display()
    ))?;
    Ok(format!("127.0.0.1:{port}"))
}

/// Moved, not removed: ext4 is slow to make files where many were deleted a minute ago.
fn move_away(paths: &str) -> String {
    format!(
        "old=old-$(date +%s%N); mkdir $old; for d in {paths}; do [ ! -e $d ] || mv $d $old/$(echo $d | tr / -); done"
    )
}

fn setup(bench: &Bench) -> anyhow::Result<Sides> {
    let recipe = repository("recipes/debian.yaml");
    bench.run(&format!(
        "$MILLSTREAM -q build {} -o image.release=bookworm --out image\n\
         $MILLSTREAM -q stream init tree\n\
         $MILLSTREAM -q stream add tree image",
        recipe.display()
    ))?;
    let address = serve(bench)?;
    let ca = bench.path("state/config/tls/ca.crt");
    fs::write(bench.path("wgetrc"), format!("ca_certificate = {}\n", ca.display()))?;
    fs::write(bench.path("default.conf"), "lxc.net.0.type = empty\n")?;
    Ok(Sides {
        ours: "MILLSTREAM_DIR=$PWD/client $MILLSTREAM -q create home:debian/bookworm c1".into(),
        theirs: format!(
            "WGETRC=$PWD/wgetrc LXC_CACHE_PATH=$PWD/cache lxc-create -P $PWD/lxc -n c1 -f default.conf \
             -t download -- -d debian -r bookworm -a amd64 --server {address}"
        ),
        before_ours: move_away("client/data client/cache"),
        before_theirs: move_away("lxc cache"),
    })
}

fn against_incus(bench: &Bench) -> anyhow::Result<Sides> {
    let sides = setup(bench)?;
    let ca = bench.path("state/config/tls/ca.crt");
    let incus = crate::incus::start(bench, &ca.display().to_string())?;
    let port = bench.run(
        "MILLSTREAM_DIR=$PWD/client $MILLSTREAM remote show home | grep -o '127.0.0.1:[0-9]*' | head -1",
    )?;
    bench.run(&format!(
        "{incus}\nincus remote add home https://{} --protocol simplestreams < /dev/null",
        port.trim()
    ))?;
    Ok(Sides {
        theirs: format!(
            "{incus}\nincus image copy home:debian/bookworm local: --alias default < /dev/null > /dev/null
             incus init default ${{C}}1 < /dev/null > /dev/null"
        ),
        before_ours: format!("{}; sync", sides.before_ours),
        before_theirs: format!(
            "{incus}\nincus delete ${{C}}1 2>/dev/null || true; incus image delete default 2>/dev/null || true; sync"
        ),
        ..sides
    })
}

/// The release as it came out in a store, and the same with all its updates behind a link of 100 Mbit/s:
/// the loopback interface of a network namespace, which goes with the server in it.
fn update(bench: &Bench) -> anyhow::Result<Sides> {
    crate::delta::two_days(bench)?;
    bench.run("$MILLSTREAM -q stream init tree; $MILLSTREAM -q stream add tree old")?;
    bench.keep(
        "exec unshare --net sh -euc 'ip link set lo mtu 1500 up
         tc qdisc add dev lo root tbf rate 100mbit burst 32kb latency 50ms
         echo $$ > server
         exec $MILLSTREAM -q serve --root tree --listen 127.0.0.1:8443'",
    )?;
    let inside = "nsenter -t $(cat server) --net env MILLSTREAM_DIR=$PWD/client $MILLSTREAM -q";
    bench.run(&format!(
        "for try in $(seq 100); do [ ! -e state/config/tls/ca.crt ] || break; sleep 0.1; done
         sleep 1
         {inside} remote add home https://127.0.0.1:8443 --key tree/key.asc --ca state/config/tls/ca.crt
         {inside} image copy home:debian/bookworm
         mv client first
         $MILLSTREAM -q stream add tree new --deltas 1"
    ))?;
    let copy = format!("{inside} image copy home:debian/bookworm");
    let before = "[ ! -e client ] || mv client old-$(date +%s%N); cp -a first client";
    Ok(Sides {
        ours: copy.clone(),
        theirs: copy,
        before_ours: before.into(),
        before_theirs: format!("{before}; rm -r client/data/images"),
    })
}

fn bytes(bench: &Bench) -> anyhow::Result<String> {
    let size = |file: &str| -> anyhow::Result<f64> {
        let path = bench.run(&format!("ls -t tree/images/*/*/*/*/*/{file} | head -1"))?;
        Ok(fs::metadata(bench.path(path.trim()))?.len() as f64)
    };
    let share = size("rootfs.*.delta")? / size("rootfs.tar.xz")?;
    let verdict = if share <= 0.05 { "met" } else { "missed" };
    Ok(format!("{:.1} % of the bytes (5 %: {verdict})", share * 100.0))
}

fn same_files(bench: &Bench) -> anyhow::Result<String> {
    same_files_as(bench, "lxc/c1/rootfs")
}

fn same_files_as(bench: &Bench, theirs: &str) -> anyhow::Result<String> {
    // LXC's template writes the container's name into two files, and nothing else.
    let list =
        |root: &str| bench.run(&format!("cd {root} && find . -type f -printf '%P %s %m %U:%G\\n' | sort"));
    let ours = bench.run("echo client/data/containers/images/*/rootfs")?;
    let (ours, theirs) = (list(ours.trim())?, list(theirs)?);
    let differ = |line: &&str| !line.starts_with("etc/host") && !theirs.contains(*line);
    if let Some(line) = ours.lines().find(differ) {
        bail!("only ours: {line}");
    }
    Ok(format!("the same {} files on both sides", ours.lines().count()))
}
