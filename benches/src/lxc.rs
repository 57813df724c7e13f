//! The smallest containers there are, on both sides: busybox, in the same namespaces, each with a virtual
//! Ethernet interface on one bridge.

use std::fs;

use crate::compare::{Bench, prefix};

/// Makes `root`, the files, and `image`, the same as an image of ours.
const IMAGE: &str = r"
for d in bin sbin etc tmp root proc sys dev run; do mkdir -p root/$d; done
cp /bin/busybox root/bin/
for name in sh sleep true cat ls readlink dd sync; do ln -s busybox root/bin/$name; done
ln -s ../bin/busybox root/sbin/init
printf '::sysinit:/bin/true\n::once:/bin/sleep 100000\n::shutdown:/bin/true\n' > root/etc/inittab
echo root:x:0:0:root:/root:/bin/sh > root/etc/passwd
mkdir image
printf 'architecture: %s\ncreation_date: 1\nproperties: {description: busybox}\n' $(uname -m) > image/metadata.yaml
tar -C root -c --numeric-owner --owner=0 --group=0 . | xz -0 > image/rootfs.tar.xz
tar -C image -cJf image/lxd.tar.xz metadata.yaml
";

/// As containers of Debian's LXC are configured, for an ordinary user's ids.
const CONFIG: &str = "\
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.idmap = u 0 1000000 65536
lxc.idmap = g 0 1000000 65536
lxc.rootfs.path = dir:DIR/lxc/NAME/rootfs
lxc.uts.name = NAME
lxc.net.0.type = veth
lxc.net.0.link = BRIDGE
lxc.net.0.flags = up
";

/// Containers `${C}1` to `${C}COUNT` on both sides, none of which runs. Files are the same, and programs lie on
/// the disk once on either side.
pub fn containers(bench: &Bench, count: usize) -> anyhow::Result<()> {
    let bridge = format!("msb{}", std::process::id());
    bench.run(IMAGE)?;
    bench.run(&format!("ip link add {bridge} type bridge && ip link set {bridge} up"))?;
    bench.at_end(format!("ip link delete {bridge}"));
    // LXC's root is somebody else, who must get here.
    bench.run("chmod 711 . && cp -a root shared && chown -hR 1000000:1000000 shared")?;
    for name in (1..=count).map(|number| format!("{}{number}", prefix())) {
        bench.run(&format!("mkdir -p lxc/{name} && cp -al shared lxc/{name}/rootfs"))?;
        let config = CONFIG
            .replace("DIR", &bench.path("").display().to_string())
            .replace("NAME", &name)
            .replace("BRIDGE", &bridge);
        fs::write(bench.path(&format!("lxc/{name}/config")), config)?;
    }
    bench.at_end(stop_theirs(count));
    bench.at_end(format!("for i in $(seq {count}); do $MILLSTREAM -q delete --force $C$i || true; done"));
    bench.run(&format!(
        "$MILLSTREAM -q create ./image ${{C}}1
         $MILLSTREAM -q profile device add default eth0 nic nictype=bridged parent={bridge}
         for i in $(seq 2 {count}); do $MILLSTREAM -q create ./image $C$i; done"
    ))?;
    Ok(())
}

/// Starts ours.
pub fn start_ours(count: usize) -> String {
    format!("for i in $(seq {count}); do $MILLSTREAM -q start $C$i; done")
}

/// Starts theirs.
pub fn start_theirs(count: usize) -> String {
    format!("for i in $(seq {count}); do lxc-start -P $PWD/lxc -n $C$i -d; done")
}

/// Stops those of ours that run.
pub fn stop_ours(count: usize) -> String {
    format!("$MILLSTREAM -q stop --force $(seq -f $C%g {count}) 2>/dev/null || true")
}

/// Stops those of theirs that run.
pub fn stop_theirs(count: usize) -> String {
    format!("for i in $(seq {count}); do lxc-stop -P $PWD/lxc -n $C$i -k 2>/dev/null || true; done")
}

/// The process ids of the inits of both sides' first container, ours first.
pub fn inits(bench: &Bench) -> anyhow::Result<[i32; 2]> {
    let ours = bench.run("grep -A1 '\"init\"' state/data/containers/${C}1/state.json | grep -o '[0-9]*'")?;
    let theirs = bench.run("lxc-info -P $PWD/lxc -n ${C}1 -p -H")?;
    Ok([ours.trim().parse()?, theirs.trim().parse()?])
}
