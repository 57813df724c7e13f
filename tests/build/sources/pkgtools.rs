//! Root file systems out of Slackware's and Plamo's packages, from mirrors in their layouts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use millstream_image::archive::{Compression, Member, PackOptions, pack_members};
use millstream_image::openpgp::SigningKey;

use super::distributions::key;
use super::server::Server;
use crate::bench::{Bench, fails, sha256, works};
use crate::unprivileged::User;

/// A package: files, of which those below `bin` and `sbin` are programs.
fn package(files: &[(&str, &str)], compression: Compression) -> Vec<u8> {
    let mut members = BTreeMap::new();
    for (path, text) in files {
        let data =
            if *text == "BUSYBOX" { fs::read("/bin/busybox").unwrap() } else { text.as_bytes().to_vec() };
        let program = path.starts_with("bin/") || path.starts_with("sbin/");
        members.insert(PathBuf::from(path), Member { mode: if program { 0o755 } else { 0o644 }, data });
    }
    let options = PackOptions { compression, epoch: 1_700_000_000, ..PackOptions::default() };
    pack_members(&members, Vec::new(), &options).unwrap().0
}

fn md5(data: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), data).unwrap();
    works(Command::new("md5sum").arg(dir.path().join("data"))).split(' ').next().unwrap().to_owned()
}

/// What a package's script must not be able to do is tried, and what it must be is done.
const CONFINED: &str = "( cd bin ; rm -rf sh )\n( cd bin ; ln -sf bash sh )\ntouch /usr/share/millstream-was-here && touch said-usr\n\
    mount -o remount,rw /usr && touch said-mount\n\
    (exec 3<>/dev/tcp/127.0.0.1/PORT) 2>/dev/null && touch said-network\n\
    chroot . /bin/busybox sh -c 'echo x > /dev/null' 2>/dev/null\n\
    chroot . /bin/busybox touch /said-chroot\nfalse\n";

const CONFIG: &str =
    "config() { NEW=$1; OLD=${NEW%.new}; if [ ! -r $OLD ]; then mv $NEW $OLD; fi; }\nconfig etc/x.conf.new\n";

struct World {
    bench: Bench,
    server: Server,
    key: SigningKey,
}

const TOP: &str = "slackware64-15.0";

impl World {
    fn new() -> Self {
        Self { bench: Bench::new(), server: Server::start(), key: key() }
    }

    /// A mirror; `shell` is what is in the package of the shell.
    fn slackware(&self, shell: &str) {
        let port = self.server.url.rsplit(':').next().unwrap();
        let gzip = |files: &[(&str, &str)]| package(files, Compression::Gzip);
        let xz = |files: &[(&str, &str)]| package(files, Compression::Xz);
        for (path, data) in [
            (
                "a/aaa_base-15.0-x86_64-3.txz",
                xz(&[
                    ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
                    ("install/doinst.sh", "[ -e etc/passwd ]\n"),
                    ("install/slack-desc", "# comment\naaa_base: aaa_base (Basic file system)\naaa_base:\n"),
                ]),
            ),
            (
                "a/bash-5.1.016-x86_64-1.tgz",
                gzip(&[("bin/busybox", shell), ("install/doinst.sh", &CONFINED.replace("PORT", port))]),
            ),
            ("a/kernel-huge-5.15.19-x86_64-2.txz", xz(&[("boot/vmlinuz", "x")])),
            (
                "a/sysvinit-3.01-x86_64-1.txz",
                xz(&[("sbin/telinit", "x"), ("install/doinst.sh", "/sbin/init u\n")]),
            ),
            ("a/sysvinit-scripts-15.0-noarch-9.txz", xz(&[("etc/rc.d/rc.M", "/bin/dmesg -n 1\n")])),
            (
                "l/glibc-zoneinfo-2022a-noarch-1.txz",
                xz(&[("etc/x.conf.new", "new"), ("install/doinst.sh", CONFIG)]),
            ),
            (
                "n/network-scripts-15.0-noarch-18.tgz",
                gzip(&[(
                    "etc/rc.d/rc.inet1.conf",
                    "USE_DHCP[0]=\"\"
",
                )]),
            ),
        ] {
            self.put(path, data);
        }
        self.sums();
    }

    fn put(&self, path: &str, data: Vec<u8>) {
        let place = format!("{TOP}/slackware64/{path}");
        self.server
            .put(&format!("{place}.asc"), self.key.sign_detached(&data[..], SystemTime::now()).unwrap());
        self.server.put(&place, data);
    }

    /// Writes and signs the list of checksums.
    fn sums(&self) {
        let mut text = String::from("These are the MD5 message digests for the files in this directory.\n\n");
        for path in self.server.paths() {
            if let Some(below) =
                path.strip_prefix(&format!("/{TOP}/")).filter(|below| !below.starts_with("CHECK"))
            {
                let _ = writeln!(text, "{}  ./{below}", md5(&self.server.get(&path[1..])));
            }
        }
        let signature = self.key.sign_detached(text.as_bytes(), SystemTime::now()).unwrap();
        self.server.put(&format!("{TOP}/CHECKSUMS.md5.asc"), signature);
        self.server.put(&format!("{TOP}/CHECKSUMS.md5"), text);
    }

    fn recipe(&self, downloader: &str, release: &str, keys: bool) -> String {
        let mut text = format!(
            "image:\n  distribution: d\n  architecture: amd64\n  release: '{release}'\nsource:\n  downloader: {downloader}\n  url: {}/\n",
            self.server.url
        );
        if keys {
            let armored = self.key.to_armored_public().unwrap().replace('\n', "\n      ");
            let _ = write!(text, "  keys:\n  - |\n      {armored}\n");
        }
        text
    }

    fn refused(&self, keys: bool, word: &str) {
        let text = fails(&mut self.bench.build(
            &self.recipe("slackware-http", "15.0", keys),
            "out",
            &["--format=dir"],
        ));
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
        self.bench.assert_clean("out");
    }
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn slackware_is_put_together_from_its_packages() {
    let world = World::new();
    world.slackware("BUSYBOX");
    let (bench, recipe) = (&world.bench, world.recipe("slackware-http", "15.0", true));
    works(&mut bench.build(&recipe, "out", &["--format=image,dir"]));
    let root = bench.path("out/rootfs");
    assert_eq!(fs::read_link(root.join("bin/sh")).unwrap(), Path::new("bash"), "made by a script");
    assert_eq!(read(&root, "etc/x.conf"), "new");
    assert!(!root.join("boot").exists() && !root.join("install").exists());
    for (said, there) in [("usr", false), ("mount", false), ("network", false), ("chroot", true)] {
        assert_eq!(root.join(format!("said-{said}")).exists(), there, "{said}");
    }
    assert!(!Path::new("/usr/share/millstream-was-here").exists());
    let record = read(&root, "var/lib/pkgtools/packages/aaa_base-15.0-x86_64-3");
    assert!(record.starts_with("PACKAGE NAME:     aaa_base-15.0-x86_64-3\n"), "{record}");
    assert!(
        record.contains("\naaa_base: aaa_base (Basic file system)\n") && !record.contains("# comment"),
        "{record}"
    );
    assert!(record.contains("FILE LIST:\n") && record.contains("\netc/passwd\n"), "{record}");
    assert_eq!(read(&root, "var/lib/pkgtools/scripts/sysvinit-3.01-x86_64-1"), "/sbin/init u\n");
    assert_eq!(read(&root, "etc/rc.d/rc.M"), "#/bin/dmesg -n 1\n");
    assert_eq!(read(&root, "etc/rc.d/rc.inet1.conf"), "USE_DHCP[0]=\"yes\"\n");
    assert_eq!(read(&root, "etc/slackpkg/mirrors"), format!("{}/{TOP}/\n", world.server.url));
    let manifest = fs::read_to_string(bench.path("out/manifest.json")).unwrap();
    assert!(manifest.contains("\"network-scripts\"") && manifest.contains("15.0-18"), "{manifest}");
    // The same packages, the same bytes, whoever builds.
    let user = User::add("msslack");
    works(&mut user.run(&bench.build(&recipe, "home/out", &["--format=image"]), &bench.path("home")));
    assert_eq!(sha256(&bench.path("home/out/rootfs.tar.xz")), sha256(&bench.path("out/rootfs.tar.xz")));
}

#[test]
fn packages_and_lists_that_are_not_what_was_published_are_refused() {
    let world = World::new();
    let list = format!("{TOP}/CHECKSUMS.md5");
    let bash = format!("{TOP}/slackware64/a/bash-5.1.016-x86_64-1.tgz");
    world.slackware("#!");
    let (sums, good) = (world.server.get(&list), world.server.get(&bash));
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    world.server.put(&bash, bad);
    world.refused(true, "no good signature");
    world.refused(false, "published is");
    world.server.put(&bash, good);
    world.server.remove(&format!("{bash}.asc"));
    world.refused(true, "source.keys asks for a signature");
    world.slackware("#!");
    world.server.put(&list, [&sums[..], b"\n"].concat());
    world.refused(true, "no good signature");
    world.server.remove(&list);
    world.refused(false, "there is no such list of checksums");
    world.slackware("#!");
    let other = World { bench: Bench::new(), server: world.server.clone(), key: key() };
    other.refused(true, "no good signature");
    // A package that is signed and leaves the root all the same.
    let tree = world.bench.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("evil"), "x").unwrap();
    let archive = world.bench.path("evil.txz");
    let tar =
        ["-cJPf", archive.to_str().unwrap(), "-C", tree.to_str().unwrap(), "--transform=s,^,../,", "evil"];
    works(Command::new("tar").args(tar));
    world.put("a/etc-15.1-noarch-1.txz", fs::read(&archive).unwrap());
    world.sums();
    world.refused(true, "evil");
}

#[test]
fn plamo_is_put_together_from_its_packages() {
    let world = World::new();
    let top = "Plamo-8.x/x86_64/plamo/00_base";
    let zst = |files: &[(&str, &str)]| package(files, Compression::Zstd);
    let script = "touch now\n#%% begin\ntouch later\n#%% end\n";
    for (path, data) in [
        ("bash-5.2-x86_64-B1.tzst", zst(&[("bin/bash", "#!"), ("install/doinst.sh", script)])),
        ("kernel-6.1-x86_64-B1.tzst", zst(&[("boot/vmlinuz", "x")])),
        ("more.txz/zstd-1.5-x86_64-B1.tzst", zst(&[("etc/more", "x")])),
    ] {
        world.server.put(&format!("{top}/{path}"), data);
    }
    works(&mut world.bench.build(
        &world.recipe("plamolinux-http", "8.x", false),
        "out",
        &["--format=image,dir"],
    ));
    let root = world.bench.path("out/rootfs");
    assert!(root.join("now").exists() && !root.join("later").exists() && !root.join("boot").exists());
    assert!(read(&root, "var/log/initpkg/bash").contains("touch later"));
    assert_eq!(read(&root, "var/log/scripts/bash"), "touch now\n");
    assert!(read(&root, "var/log/packages/bash").starts_with("PACKAGE NAME:     bash-5.2-x86_64-B1\n"));
    assert_eq!(read(&root, "etc/more"), "x", "from a directory that is called like a package");
    let manifest = fs::read_to_string(world.bench.path("out/manifest.json")).unwrap();
    assert!(manifest.contains("5.2-B1"), "{manifest}");
    let text = fails(&mut world.bench.build(&world.recipe("plamolinux-http", "7.x", false), "bad", &[]));
    assert!(text.contains("image.release"), "{text}");
    let plain = world.recipe("plamolinux-http", "8.x", false).replace("127.0.0.1", "m.example");
    assert!(fails(&mut world.bench.build(&plain, "bad", &[])).contains("plain http"));
    world.bench.assert_clean("bad");
}
