//! The package managers: dnf, yum, zypper and pacman for real, from Debian's packages, each on a
//! repository made with its distribution's own tools; the others by what they are called with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_image::archive::Member;

use crate::bench::{Bench, sha256, works};
use crate::host_files::{self, Files};
use crate::mirror::{Mirror, apt, directories, package, system};

/// A mirror whose base system has these files as well.
fn mirror(files: &Files) -> Mirror {
    let (base, system) = (directories(), system());
    let mut tools = files.clone();
    tools.retain(|path, _| !base.contains_key(path) && !system.contains_key(path));
    Mirror::with(&[package("base-files", &base), package("dpkg", &system), package("tools", &tools), apt()])
}

fn text(text: &str) -> Member {
    Member::file(text)
}

// rpm

const SPEC: &str = "Name: NAME\nVersion: VERSION\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\n%description\ntest\n%install\nmkdir -p %{buildroot}/usr/share/NAME\necho VERSION > %{buildroot}/usr/share/NAME/version\n%files\n/usr/share/NAME\n";

/// A repository of rpm packages: name and version each.
fn rpm_repository(bench: &Bench, directory: &str, packages: &[(&str, &str)]) -> PathBuf {
    let repository = bench.path(directory);
    fs::create_dir_all(&repository).unwrap();
    for (name, version) in packages {
        let spec = bench.write("x.spec", &SPEC.replace("NAME", name).replace("VERSION", version));
        let top = format!("_topdir {}", bench.path("rpmbuild").display());
        let target = format!("_rpmdir {}", repository.display());
        works(Command::new("rpmbuild").args(["-bb", "--define", &top, "--define", &target]).arg(spec));
    }
    works(Command::new("createrepo_c").arg("--quiet").arg(&repository));
    repository
}

/// Serves every file below `directory` as `/PREFIX/…`.
fn serve(mirror: &Mirror, directory: &Path, prefix: &str) -> String {
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for item in fs::read_dir(&next).unwrap().flatten() {
            if item.path().is_dir() {
                open.push(item.path());
            } else {
                let name = item.path().strip_prefix(directory).unwrap().display().to_string();
                mirror.put(&format!("/{prefix}/{name}"), fs::read(item.path()).unwrap());
            }
        }
    }
    format!("{}/{prefix}", mirror.url)
}

/// rpm with a database where every other distribution has it.
fn rpm() -> Files {
    let mut files = Files::new();
    host_files::programs(&mut files, &["rpm", "rpmdb", "rpmkeys", "sed", "grep"]);
    host_files::directory(&mut files, "/usr/lib/rpm", &["__pycache__"]);
    for (path, contents) in [
        ("etc/rpm/macros", "%_dbpath /var/lib/rpm\n"),
        ("etc/nsswitch.conf", "passwd: files\nhosts: files dns\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
    ] {
        files.insert(path.into(), text(contents));
    }
    files
}

fn dnf() -> Files {
    let mut files = rpm();
    host_files::programs(&mut files, &["python3", "dnf"]);
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    let python = python.file_name().unwrap().to_str().unwrap().to_owned();
    let left_out = [
        "test",
        "__pycache__",
        "idlelib",
        "lib2to3",
        "ensurepip",
        "distutils",
        "pydoc_data",
        "turtledemo",
        "tkinter",
        "config-",
        "asyncio",
        "unittest",
        "multiprocessing",
    ];
    host_files::directory(&mut files, &format!("/usr/lib/{python}"), &left_out);
    for module in ["dnf", "hawkey", "libdnf", "libcomps", "rpm", "gpg"] {
        host_files::directory(
            &mut files,
            &format!("/usr/lib/python3/dist-packages/{module}"),
            &["__pycache__"],
        );
    }
    let yum = files[Path::new("usr/bin/dnf")].clone();
    files.insert("usr/bin/yum".into(), yum);
    files.insert("etc/dnf/dnf.conf".into(), text("[main]\nplugins=0\ncachedir=/var/cache/dnf\n"));
    files
}

/// Builds with this manager and repository; the newest `tiny` is then there, and what was installed
/// and removed again is not, nor what the manager fetched.
fn builds(bench: &Bench, mirror: &Mirror, manager: &str, repository: &str) {
    let recipe = mirror.recipe(&format!(
        "packages:\n  manager: {manager}\n  update: true\n  cleanup: true\n  repositories:\n{repository}  sets:\n  - packages: [tiny, second]\n    action: install\n  - packages: [second]\n    action: remove\nactions:\n- trigger: post-update\n  action: |-\n    #!/bin/sh\n    echo ran > /updated\n"
    ));
    works(&mut bench.build(&recipe, manager, &["--format=dir"]));
    let root = bench.path(manager).join("rootfs");
    assert_eq!(fs::read_to_string(root.join("usr/share/tiny/version")).unwrap().trim(), "2");
    assert!(!root.join("usr/share/second").exists(), "{manager}: second was removed");
    assert!(root.join("updated").exists(), "{manager}: post-update");
    for cache in
        ["var/cache/dnf", "var/cache/yum", "var/cache/zypp", "var/cache/pacman/pkg", "var/lib/pacman/sync"]
    {
        let left = fs::read_dir(root.join(cache)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{manager}: {cache}");
    }
}

#[test]
fn dnf_and_yum_install_update_and_remove() {
    let bench = Bench::new();
    let mirror = mirror(&dnf());
    let packages = [("tiny", "1"), ("tiny", "2"), ("second", "1")];
    let url = serve(&mirror, &rpm_repository(&bench, "rpms", &packages), "rpm");
    let sections = format!(
        "  - name: mini\n    url: |-\n      [mini]\n      name=mini\n      baseurl={url}\n      gpgcheck=0\n"
    );
    for (manager, repository) in [("dnf", sections), ("yum", format!("  - {{name: mini, url: \"{url}\"}}\n"))]
    {
        builds(&bench, &mirror, manager, &repository);
    }
}

#[test]
fn zypper_installs_updates_and_removes() {
    let bench = Bench::new();
    let mut files = rpm();
    host_files::programs(&mut files, &["zypper", "rpmdb2solv", "repo2solv"]);
    // Debian's libsolv lacks the name by which its libzypp calls the program.
    let wrapper = Member { mode: 0o755, data: "#!/bin/sh\nexec repo2solv \"$@\"\n".into() };
    files.insert("usr/bin/repo2solv.sh".into(), wrapper);
    for (path, contents) in [
        ("etc/zypp/zypp.conf", "[main]\ngpgcheck = off\nrepo_gpgcheck = off\npkg_gpgcheck = off\n"),
        ("etc/zypp/zypper.conf", "[main]\n"),
        ("etc/products.d/.keep", ""),
    ] {
        files.insert(path.into(), text(contents));
    }
    let mirror = mirror(&files);
    let packages = [("tiny", "1"), ("tiny", "2"), ("second", "1")];
    let url = serve(&mirror, &rpm_repository(&bench, "rpms", &packages), "rpm");
    builds(&bench, &mirror, "zypper", &format!("  - {{name: mini, url: \"{url}\"}}\n"));
}

// pacman

/// A repository of pacman packages: each an archive with a `.PKGINFO`, and an archive that
/// describes them. (repo-add would need more of Debian than the test is worth.)
fn pacman_repository(bench: &Bench, packages: &[(&str, &str)]) -> PathBuf {
    let (repository, database) = (bench.path("repository"), bench.path("database"));
    fs::create_dir_all(&repository).unwrap();
    fs::create_dir_all(&database).unwrap();
    let pack = |from: &Path, to: &Path| {
        works(
            Command::new("sh")
                .arg("-c")
                .arg("cd \"$1\" && tar --owner=0 --group=0 -czf \"$2\" $(ls -A)")
                .args([Path::new("sh"), from, to]),
        );
    };
    for (name, version) in packages {
        let tree = bench.path(&format!("{name}-tree"));
        fs::create_dir_all(tree.join(format!("usr/share/{name}"))).unwrap();
        fs::write(tree.join(format!("usr/share/{name}/version")), version).unwrap();
        let info = format!(
            "pkgname = {name}\npkgbase = {name}\npkgver = {version}-1\npkgdesc = test\nurl = x\nbuilddate = 1700000000\npackager = x\nsize = 10\narch = any\nlicense = none\n"
        );
        fs::write(tree.join(".PKGINFO"), info).unwrap();
        let file = format!("{name}-{version}-1-any.pkg.tar.gz");
        pack(&tree, &repository.join(&file));
        let entry = database.join(format!("{name}-{version}-1"));
        fs::create_dir_all(&entry).unwrap();
        let size = fs::metadata(repository.join(&file)).unwrap().len();
        let sum = sha256(&repository.join(&file));
        let fields = [
            ("FILENAME", file.as_str()),
            ("NAME", name),
            ("VERSION", &format!("{version}-1")),
            ("CSIZE", &size.to_string()),
            ("ISIZE", "10"),
            ("SHA256SUM", &sum),
            ("ARCH", "any"),
        ];
        let desc: String = fields.map(|(key, value)| format!("%{key}%\n{value}\n\n")).concat();
        fs::write(entry.join("desc"), desc).unwrap();
    }
    pack(&database, &repository.join("mini.db"));
    repository
}

#[test]
fn pacman_installs_updates_and_removes() {
    let bench = Bench::new();
    let mut files = Files::new();
    host_files::programs(&mut files, &["pacman", "sed", "grep"]);
    for (path, contents) in [
        ("etc/pacman.conf", "[options]\nArchitecture = auto\nSigLevel = Never\nCheckSpace\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/nsswitch.conf", "passwd: files\nhosts: files dns\n"),
        ("var/lib/pacman/sync/.keep", ""),
        ("var/cache/pacman/pkg/.keep", ""),
    ] {
        files.insert(path.into(), text(contents));
    }
    let mirror = mirror(&files);
    let url = serve(&mirror, &pacman_repository(&bench, &[("tiny", "2"), ("second", "1")]), "pacman");
    builds(&bench, &mirror, "pacman", &format!("  - {{name: mini, url: \"{url}\"}}\n"));
}

// the others

/// A program that writes down what it was called with, and the environment a test asks for.
const RECORDER: &str = "#!/bin/sh\necho \"${0##*/} $*\" >> /calls\n";

#[test]
fn others_are_called_as_their_distributions_expect() {
    let programs = [
        "anise",
        "apk",
        "ego",
        "emerge",
        "enman",
        "equo",
        "luet",
        "opkg",
        "slackpkg",
        "xbps-install",
        "xbps-remove",
    ];
    let mut files: BTreeMap<_, _> = programs
        .iter()
        .map(|name| (Path::new("usr/bin").join(name), Member { mode: 0o755, data: RECORDER.into() }))
        .collect();
    host_files::programs(&mut files, &["readlink"]);
    let mirror = mirror(&files);
    let bench = Bench::new();
    for (manager, expected) in [
        (
            "anise",
            "anise repo update --force|anise upgrade --sync-repos --skip-config-protect|anise install --skip-config-protect --x a b|anise uninstall --skip-config-protect c|anise cleanup --purge-repos",
        ),
        (
            "apk",
            "apk --no-cache update|apk --no-cache upgrade|apk --no-cache add --x a b|apk --no-cache del --rdepends c",
        ),
        (
            "egoportage",
            "ego sync|emerge --update @world|emerge --autounmask-continue --quiet-build=y --x a b|emerge --unmerge c",
        ),
        (
            "equo",
            "equo repo add --repo u --pkg u r|equo update|equo upgrade|equo install --x a b|equo remove c|equo cleanup",
        ),
        (
            "luet",
            "luet repo update --force|luet upgrade --sync-repos --skip-config-protect|luet install --skip-config-protect --x a b|luet uninstall --skip-config-protect c|luet cleanup --purge-repos",
        ),
        ("opkg", "opkg update|opkg install --x a b|opkg remove c"),
        ("portage", "emerge --update @world|emerge --autounmask-continue --x a b|emerge --unmerge c"),
        (
            "slackpkg",
            "slackpkg -batch=on -default_answer=y update|slackpkg -batch=on -default_answer=y install --x a b|slackpkg -batch=on -default_answer=y remove c",
        ),
        (
            "xbps",
            "xbps-install --sync|xbps-install --yes --update|xbps-install --yes --update|xbps-install --yes --x a b|xbps-remove --yes --recursive --remove-orphans c|xbps-remove --yes --clean-cache",
        ),
    ] {
        let recipe = mirror.recipe(&format!(
            "packages:\n  manager: {manager}\n  update: true\n  cleanup: true\n  repositories:\n  - {{name: r, url: u}}\n  sets:\n  - {{packages: [a], action: install, flags: [--x]}}\n  - {{packages: [b], action: install, flags: [--x]}}\n  - {{packages: [c], action: remove}}\n"
        ));
        works(&mut bench.build(&recipe, manager, &["--format=dir"]));
        let calls = fs::read_to_string(bench.path(manager).join("rootfs/calls")).unwrap();
        assert_eq!(calls.lines().collect::<Vec<_>>(), expected.split('|').collect::<Vec<_>>(), "{manager}");
    }
}
