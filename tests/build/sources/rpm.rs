//! Root file systems out of repositories of rpm packages, by the host's own dnf. The packages and
//! repositories are made and signed with the tools distributions use.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::Server;
use crate::bench::{Bench, fails, sha256, works};
use crate::host_files;
use crate::unprivileged::User;

/// When the packages say they were built.
const EPOCH: &str = "1700000000";

/// A key as distributions have theirs: by gpg. rpm 4.18 takes no key with a signature over itself alone.
struct Key {
    home: PathBuf,
    fingerprint: String,
    armored: String,
}

impl Key {
    fn new(bench: &Bench, name: &str) -> Self {
        let home = bench.path(name);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
        let gpg = |args: &[&str]| {
            works(Command::new("gpg").arg("--homedir").arg(&home).args(["--batch", "--quiet"]).args(args))
        };
        gpg(&["--passphrase", "", "--quick-gen-key", "d@example.org", "ed25519", "sign", "never"]);
        let listed = gpg(&["--list-keys", "--with-colons"]);
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        let fingerprint = line.split(':').nth(9).unwrap().to_owned();
        let armored = gpg(&["--armor", "--export"]);
        Self { home, fingerprint, armored }
    }

    fn sign(&self, package: &Path) {
        let name = format!("_gpg_name {}", self.fingerprint);
        let path = format!("_gpg_path {}", self.home.display());
        let defines = ["__gpg /usr/bin/gpg", &name, &path];
        let mut command = Command::new("rpmsign");
        works(
            command
                .args(defines.iter().flat_map(|define| ["--define", define]))
                .arg("--addsign")
                .arg(package),
        );
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.home).args(["--kill", "all"]).status();
    }
}

struct World {
    // Dropped first: its agent runs in the directory.
    key: Key,
    bench: Bench,
    server: Server,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        Self { key: Key::new(&bench, "gpg"), bench, server: Server::start() }
    }

    /// Builds a package of a tree of files, signed when `signer` is given.
    fn package(
        &self,
        to: &Path,
        name: &str,
        version: &str,
        more: &str,
        files: &[(&str, &str)],
        signer: Option<&Key>,
    ) {
        let mut spec = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\n{}\n%description\ntest\n%install\n",
            more.split("%post").next().unwrap()
        );
        for (path, text) in files {
            let parent = Path::new(path).parent().unwrap().display();
            let _ = writeln!(
                spec,
                "mkdir -p %{{buildroot}}{parent}\nprintf '%s' '{text}' > %{{buildroot}}{path}"
            );
        }
        if let Some((_, post)) = more.split_once("%post") {
            let _ = writeln!(spec, "%post{post}");
        }
        spec += "%files\n";
        for (path, _) in files {
            let _ = writeln!(spec, "{path}");
        }
        self.build(to, &spec, signer);
    }

    fn build(&self, to: &Path, spec: &str, signer: Option<&Key>) {
        let spec = self.bench.write("x.spec", spec);
        let top = format!("_topdir {}", self.bench.path("rpmbuild").display());
        let out = self.bench.path("built");
        let target = format!("_rpmdir {}", out.display());
        let defines = [
            "_binary_payload w1.gzdio",
            "_buildhost localhost",
            "use_source_date_epoch_as_buildtime 1",
            "_binaries_in_noarch_packages_terminate_build 0",
            "__os_install_post %{nil}",
        ];
        let mut command = Command::new("rpmbuild");
        command.env("SOURCE_DATE_EPOCH", EPOCH).args(["-bb", "--define", &top, "--define", &target]);
        command.args(defines.iter().flat_map(|define| ["--define", define])).arg(spec);
        works(&mut command);
        fs::create_dir_all(to).unwrap();
        for item in fs::read_dir(out.join("noarch")).unwrap().flatten() {
            if let Some(signer) = signer {
                signer.sign(&item.path());
            }
            fs::rename(item.path(), to.join(item.file_name())).unwrap();
        }
    }

    /// Serves a directory of packages as a repository at `place`.
    fn publish(&self, directory: &Path, place: &str) {
        works(Command::new("createrepo_c").args(["--quiet", "--revision=1"]).arg(directory));
        for path in [directory.to_path_buf(), directory.join("repodata")] {
            for item in fs::read_dir(path).unwrap().flatten().filter(|item| item.path().is_file()) {
                let name = item.path().strip_prefix(directory).unwrap().display().to_string();
                self.server.put(&format!("{place}/{name}"), fs::read(item.path()).unwrap());
            }
        }
    }

    /// AlmaLinux in small: what a root file system begins with, in two versions, and its repositories.
    fn almalinux(&self, signer: Option<&Key>) {
        let (base, apps) = (self.bench.path("baseos"), self.bench.path("appstream"));
        for version in ["1", "2"] {
            self.package(&base, "basesystem", version, "", &[("/usr/share/base/version", version)], signer);
        }
        let post = "%post -p <lua>\nf = io.open('/usr/share/ran', 'w')\nf:write('ran')\nf:close()";
        self.package(&base, "almalinux-release", "9", post, &[("/etc/os-release", "ID=almalinux")], signer);
        self.package(&apps, "yum", "4", "Requires: library", &[("/usr/share/yum", "4")], signer);
        self.package(&apps, "library", "1", "", &[("/usr/share/library", "1")], signer);
        self.publish(&base, "almalinux/9.4/BaseOS/x86_64/os");
        self.publish(&apps, "almalinux/9.4/AppStream/x86_64/os");
    }

    fn recipe(&self, downloader: &str, release: &str, url: &str, keys: bool) -> String {
        let mut text = format!(
            "image:\n  distribution: d\n  architecture: amd64\n  release: '{release}'\nsource:\n  downloader: {downloader}\n  url: {url}\n"
        );
        if keys {
            let armored = self.key.armored.replace('\n', "\n      ");
            let _ = write!(text, "  keys:\n  - |\n      {armored}\n");
        }
        text
    }

    fn almalinux_recipe(&self) -> String {
        self.recipe("almalinux-http", "9.4", &format!("{}/almalinux", self.server.url), true)
    }
}

fn installed(root: &Path, place: &str) -> Vec<String> {
    let text = works(Command::new("rpm").arg("--root").arg(root).args(["--dbpath", place, "-qa"]));
    let mut names: Vec<_> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn almalinux_is_put_together_from_its_repositories() {
    let world = World::new();
    world.almalinux(Some(&world.key));
    let (bench, recipe) = (&world.bench, world.almalinux_recipe());
    works(&mut bench.build(&recipe, "out", &["--format=image,dir"]));
    let root = bench.path("out/rootfs");
    assert_eq!(fs::read_to_string(root.join("usr/share/base/version")).unwrap(), "2");
    assert_eq!(fs::read_to_string(root.join("usr/share/library")).unwrap(), "1");
    assert_eq!(fs::read_to_string(root.join("usr/share/ran")).unwrap(), "ran", "the script of a package ran");
    let names = installed(&root, "/var/lib/rpm");
    let expected =
        ["almalinux-release-9-1.noarch", "basesystem-2-1.noarch", "library-1-1.noarch", "yum-4-1.noarch"];
    assert!(expected.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    for gone in ["var/cache/dnf", "proc", "dev", "sys"] {
        assert_eq!(fs::read_dir(root.join(gone)).map_or(0, Iterator::count), 0, "{gone}");
    }
    let manifest = fs::read_to_string(bench.path("out/manifest.json")).unwrap();
    assert!(
        manifest.contains("appstream/repodata/repomd.xml") && manifest.contains("\"library\""),
        "{manifest}"
    );
    // The same packages, the same bytes, whoever builds.
    let user = User::add("msrpm");
    works(&mut user.run(&bench.build(&recipe, "home/out", &["--format=image"]), &bench.path("home")));
    assert_eq!(sha256(&bench.path("home/out/rootfs.tar.xz")), sha256(&bench.path("out/rootfs.tar.xz")));
}

#[test]
fn packages_that_are_unsigned_of_others_or_altered_are_refused() {
    for (signed, word) in [(false, "not signed"), (true, "GPG")] {
        let world = World::new();
        let stranger = Key::new(&world.bench, "stranger");
        world.almalinux(signed.then_some(&stranger));
        let text = fails(&mut world.bench.build(&world.almalinux_recipe(), "out", &["--format=dir"]));
        assert!(text.contains(word), "{text}");
        world.bench.assert_clean("out");
    }
    let world = World::new();
    world.almalinux(Some(&world.key));
    let place = "almalinux/9.4/AppStream/x86_64/os/library-1-1.noarch.rpm";
    let mut data = world.server.get(place);
    let last = data.len() - 1;
    data[last] ^= 1;
    world.server.put(place, data);
    let text = fails(&mut world.bench.build(&world.almalinux_recipe(), "out", &["--format=dir"]));
    assert!(text.contains("library"), "{text}");
    world.bench.assert_clean("out");
}

/// A shell for scripts of packages, and for whoever looks in.
fn shell() -> String {
    "Name: busybox\nVersion: 1\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\nProvides: /bin/sh\n%description\ntest\n%install\nmkdir -p %{buildroot}/bin\ncp /bin/busybox %{buildroot}/bin/busybox\nln -s busybox %{buildroot}/bin/sh\n%files\n/bin/busybox\n/bin/sh\n".to_owned()
}

#[test]
fn rpmbootstrap_installs_what_the_recipe_says_and_confines_its_scripts() {
    let world = World::new();
    let (bench, server) = (&world.bench, &world.server);
    let packages = bench.path("packages");
    world.build(&packages, &shell(), None);
    let script = format!(
        "Requires: busybox\n%post\nb=/bin/busybox\n$b mkdir -p /said\n$b mount -t tmpfs none /mnt && $b touch /said/mounted\n$b mount -o remount,rw / && $b touch /said/remounted\n$b wget -T 2 -O /said/fetched {}/secret\n$b echo x > /dev/null && $b touch /said/null\n$b true",
        server.url
    );
    server.put("secret", "secret");
    world.package(&packages, "dnf", "4", &script, &[("/usr/share/dnf", "4")], None);
    world.package(&packages, "yum", "4", "Recommends: unwanted", &[("/usr/share/yum", "4")], None);
    for name in ["extra", "early", "unwanted"] {
        world.package(&packages, name, "1", "", &[(&format!("/usr/share/{name}"), "1")], None);
    }
    world.publish(&packages, "r/9");
    let text = |url: &str| {
        format!(
            "|-\n    [mini]\n    name=mini\n    baseurl={url}/r/$releasever\n    gpgcheck=0\n  components: [extra]"
        )
    };
    let sets = "packages:\n  manager: dnf\n  sets:\n  - {action: install, early: true, packages: [early]}\n  - {action: remove, early: true, packages: [unwanted]}\n";
    let recipe = world.recipe("rpmbootstrap", "9", &text(&server.url), false) + sets;
    works(&mut bench.build(&recipe, "out", &["--format=dir"]));
    let root = bench.path("out/rootfs");
    for (name, there) in [("dnf", true), ("yum", true), ("extra", true), ("early", true), ("unwanted", false)]
    {
        assert_eq!(root.join("usr/share").join(name).exists(), there, "{name}");
    }
    let said: Vec<_> =
        fs::read_dir(root.join("said")).unwrap().flatten().map(|item| item.file_name()).collect();
    let fetched = fs::read(root.join("said/fetched")).unwrap_or_default();
    assert!(fetched.is_empty(), "there is no network");
    assert!(!said.iter().any(|name| name == "mounted" || name == "remounted"), "{said:?}");
    assert!(said.iter().any(|name| name == "null"), "{said:?}");
    // What cannot be right is told before anything is fetched.
    let asked = server.asked().len();
    for (url, word) in [
        (text("http://m.example"), "plain http"),
        (text("file://"), "is not fetched"),
        ("https://m.example/x".to_owned(), "text of a .repo file"),
    ] {
        let said = fails(&mut bench.build(&world.recipe("rpmbootstrap", "9", &url, false), "bad", &[]));
        assert!(said.contains(word), "{said}");
        bench.assert_clean("bad");
    }
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn rpms_database_is_where_and_how_the_images_own_rpm_wants_it() {
    let world = World::new();
    let packages = world.bench.path("packages");
    let mut files = host_files::Files::new();
    host_files::programs(&mut files, &["rpm", "rpmdb"]);
    host_files::directory(&mut files, "/usr/lib/rpm", &["__pycache__"]);
    let tree = world.bench.path("tree");
    for (path, member) in &files {
        let place = tree.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, &member.data).unwrap();
        fs::set_permissions(&place, PermissionsExt::from_mode(member.mode)).unwrap();
    }
    let spec = format!(
        "Name: yum\nVersion: 1\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\n%description\ntest\n%install\nmkdir -p %{{buildroot}}/etc/rpm %{{buildroot}}/lib\ncp -a {}/usr %{{buildroot}}/usr\nln -s usr/lib64 %{{buildroot}}/lib64\nprintf '%%s\\n' '%%_dbpath /usr/lib/sysimage/rpm' > %{{buildroot}}/etc/rpm/macros\n%files\n/usr\n/lib64\n/etc/rpm\n",
        tree.display()
    );
    world.build(&packages, &spec, None);
    for name in ["basesystem", "oraclelinux-release"] {
        world.package(&packages, name, "9", "", &[(&format!("/usr/share/{name}"), "9")], None);
    }
    world.publish(&packages, "repo/OracleLinux/OL9/baseos/latest/x86_64");
    let url = format!("{}/ISOS/OracleLinux", world.server.url);
    works(&mut world.bench.build(
        &world.recipe("oraclelinux-http", "9", &url, false),
        "out",
        &["--format=dir"],
    ));
    let root = world.bench.path("out/rootfs");
    assert!(root.join("usr/lib/sysimage/rpm/rpmdb.sqlite").exists());
    assert!(installed(&root, "/usr/lib/sysimage/rpm").contains(&"basesystem-9-1.noarch".to_owned()));
    let repository = fs::read_to_string(root.join("etc/yum.repos.d/base.repo")).unwrap();
    assert!(repository.contains("OL9/baseos/latest") && repository.contains("gpgcheck=1"), "{repository}");
}
