//! What the chores need on the machine, from Debian's packages and PyPI.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run;

/// A file that shows the package is there, the package, and what it is for.
type Need = (&'static str, &'static str, &'static str);

/// For `millstream up`: nothing but certificates and, for ordinary users, the id-map helpers.
pub const UP: &[Need] = &[
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates", "verifies mirrors served over HTTPS"),
    ("/usr/bin/newuidmap", "uidmap", "lets ordinary users build and run containers"),
];

/// For the tests.
pub const TESTS: &[Need] = &[
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates", "verifies mirrors served over HTTPS"),
    ("/usr/bin/newuidmap", "uidmap", "maps ids of ordinary users"),
    ("/usr/bin/gpg", "gnupg", "checks every signature"),
    ("/usr/bin/gpgv", "gpgv", "checks signed documents for the reference tools"),
    ("/usr/bin/xz", "xz-utils", "reads our archives"),
    ("/usr/bin/tar", "tar", "unpacks our archives"),
    ("/usr/bin/curl", "curl", "fetches from our server"),
    ("/usr/bin/wget", "wget", "fetches for LXC's template"),
    ("/usr/bin/python3", "python3-minimal", "runs the reference tools"),
    ("/usr/share/doc/python3-venv", "python3-venv", "holds the reference tools"),
    ("/bin/busybox", "busybox-static", "is the smallest container there is"),
    ("/usr/bin/lxc-create", "lxc", "creates containers from our tree"),
    ("/usr/share/lxc/templates/lxc-busybox", "lxc-templates", "comes with LXC's templates"),
    ("/usr/sbin/apparmor_parser", "apparmor", "reads the profile of containers"),
    ("/usr/bin/lxcfs", "lxcfs", "shows containers their own limits"),
    ("/usr/bin/lxd", "lxd", "launches containers from our tree"),
    ("/usr/bin/lxc", "lxd-client", "talks to LXD"),
    ("/usr/bin/rsync", "rsync", "is what Incus copies with"),
    ("/usr/sbin/nginx", "nginx-light", "serves our tree instead of us"),
    ("/usr/sbin/apache2", "apache2-bin", "serves our tree instead of us"),
    ("/usr/bin/caddy", "caddy", "serves our tree instead of us"),
    ("/usr/bin/tinyproxy", "tinyproxy-bin", "is the proxy our client goes through"),
    ("/usr/bin/openssl", "openssl", "makes certificates that are not ours"),
    ("/usr/bin/mmdebstrap", "mmdebstrap", "builds the root file system ours is compared with"),
    ("/usr/bin/mksquashfs", "squashfs-tools", "writes and reads root file systems as squashfs"),
    ("/usr/bin/skopeo", "skopeo", "reads and copies our OCI images"),
    ("/usr/bin/docker-registry", "docker-registry", "is the registry our client reads"),
    ("/usr/bin/umoci", "umoci", "unpacks our OCI images"),
    ("/usr/sbin/runc", "runc", "runs our OCI images"),
    ("/usr/bin/dnf", "dnf", "manages packages in a build"),
    ("/usr/bin/zypper", "zypper", "manages packages in a build"),
    ("/usr/bin/pacman", "pacman-package-manager", "manages packages in a build"),
    ("/usr/bin/rpmbuild", "rpm", "makes packages for dnf and zypper"),
    ("/usr/bin/db5.3_load", "db5.3-util", "makes a database as rpm had it until 2020"),
    ("/usr/bin/createrepo_c", "createrepo-c", "makes their repositories"),
    ("/usr/bin/xdelta3", "xdelta3", "makes and applies the deltas that LXD and Incus read"),
    ("/usr/bin/chromium", "chromium", "shows the pages"),
    ("/usr/bin/chromedriver", "chromium-driver", "clicks and types in them"),
    ("/usr/bin/ps", "procps", "shows that no process stays behind"),
    ("/usr/bin/bsdtar", "libarchive-tools", "reads root file systems that come on installation media"),
    ("/usr/bin/genisoimage", "genisoimage", "makes an installation medium"),
    ("/usr/bin/gcc", "gcc", "compiles busybox in a build"),
    ("/usr/bin/make", "make", "compiles busybox in a build"),
    ("/usr/include/stdio.h", "libc6-dev", "compiles busybox in a build"),
    ("/usr/bin/bzip2", "bzip2", "packs its sources"),
    ("/usr/bin/minisign", "minisign", "signs lists of checksums"),
    ("/usr/bin/sqfs2tar", "squashfs-tools-ng", "reads root file systems that come as squashfs"),
    ("/usr/sbin/ip", "iproute2", "makes interfaces"),
    ("/usr/sbin/nft", "nftables", "translates addresses of containers"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base", "gives containers addresses and names"),
    ("/usr/bin/pasta", "passt", "connects containers of ordinary users"),
    ("/usr/bin/unshare", "util-linux", "gives a test a mount namespace of its own"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs", "makes a file system that limits what containers take"),
    ("/usr/sbin/mkfs.xfs", "xfsprogs", "makes a file system that shares blocks"),
    ("/usr/sbin/mkfs.btrfs", "btrfs-progs", "makes a file system with subvolumes"),
    ("/usr/bin/qemu-aarch64-static", "qemu-user-static", "runs programs of other processors in a build"),
    ("/usr/bin/strace", "strace", "kills processes of a start in any system call"),
    ("/usr/bin/setpriv", "util-linux", "runs a test as an ordinary user"),
    ("/usr/bin/systemd-analyze", "systemd", "judges how hardened our units are"),
];

/// For the comparisons, besides what tests need.
pub const BENCHES: &[Need] = &[
    ("/usr/sbin/debootstrap", "debootstrap", "is what distrobuilder builds with"),
    ("/usr/bin/time", "time", "measures memory"),
    ("/usr/bin/wrk", "wrk", "asks servers many times"),
];

/// For the virtual machine, besides what tests need.
pub const VM: &[Need] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86", "runs the virtual machine"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs", "makes its disks"),
    ("/usr/bin/strip", "binutils", "makes the tests small"),
];

/// Installs what is missing, or tells an ordinary user the line to run.
pub fn install(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<_> = needs.iter().filter(|(file, ..)| !Path::new(file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (_, package, why) in &missing {
        eprintln!("missing: {package}, which {why}");
    }
    let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    let line = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!(
            "this machine has no apt; install these by its own means: {}",
            packages.join(" ")
        ));
    }
    if !is_root() {
        return Err(format!("run this first: sudo apt-get update && sudo {line}"));
    }
    eprintln!("running: {line}");
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .stdout(Stdio::null()))
}

/// The reference simplestreams tools in an environment of their own, `target/simplestreams`.
pub fn simplestreams() -> Result<(), String> {
    if Path::new("target/simplestreams/bin/sstream-mirror").exists() {
        return Ok(());
    }
    eprintln!("missing: python-simplestreams, which reads and mirrors our tree");
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "target/simplestreams"]))?;
    let mut pip = Command::new("target/simplestreams/bin/pip");
    run(pip.args(["install", "--quiet", "--disable-pip-version-check", "python-simplestreams"]))
}

/// Incus, which the release of the tests may have in its backports only, unpacked in `target/incus`; it
/// needs no more of the host than LXD does.
pub fn incus() -> Result<(), String> {
    const PACKAGES: [&str; 4] = ["incus-base", "incus-client", "libcowsql0", "libraft0"];
    if Path::new("target/incus/unpacked/usr/libexec/incus/incusd").exists() {
        return Ok(());
    }
    eprintln!("missing: incus, which launches containers from our tree");
    let suite = format!("{}-backports", code_name()?);
    let _ = std::fs::remove_dir_all("target/incus");
    run(Command::new("sh").args(["xtask/from-suite.sh", &suite, "target/incus"]).args(PACKAGES))
}

/// `bookworm`, say.
fn code_name() -> Result<String, String> {
    let text = std::fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| "/etc/os-release names no release; the tests run on Debian".into())
}

/// An S3 server for tests in an environment of its own, `target/s3`.
pub fn s3() -> Result<(), String> {
    if Path::new("target/s3/bin/moto_server").exists() {
        return Ok(());
    }
    eprintln!("missing: moto, which keeps buckets for the tests");
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "target/s3"]))?;
    let mut pip = Command::new("target/s3/bin/pip");
    pip.args(["install", "--quiet", "--disable-pip-version-check", "moto==5.2.5"]);
    run(pip.args(["flask", "flask-cors", "PyYAML", "py-partiql-parser"]))
}

/// The distributed store Garage, with as little of it as the test needs, in `target/garage`.
pub fn garage() -> Result<(), String> {
    if Path::new("target/garage/bin/garage").exists() {
        return Ok(());
    }
    eprintln!("missing: Garage, which is built now");
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "garage", "--version", "2.5.0", "--locked", "--debug", "--no-default-features"]);
    cargo.args(["--features", "bundled-libs,sqlite", "--root", "target/garage"]);
    // Optimised a little: it hashes all it keeps. What else is built for it is of no use later.
    cargo.envs([("CARGO_PROFILE_DEV_OPT_LEVEL", "1"), ("CARGO_PROFILE_DEV_DEBUG", "false")]);
    run(cargo.envs([("CARGO_INCREMENTAL", "0"), ("CARGO_TARGET_DIR", "target/garage/build")]))
}

/// Fails with the line to run when this is not root.
pub fn need_root(why: &str, command: &str) -> Result<(), String> {
    if is_root() {
        return Ok(());
    }
    Err(format!("{why}; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {command}"))
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}
