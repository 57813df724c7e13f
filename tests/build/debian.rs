//! Against the real Debian mirror and the real mmdebstrap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, works};

const RECIPE: &str = "image:\n  distribution: debian\n  release: bookworm\nsource:\n  downloader: debootstrap\n  variant: minbase\npackages:\n  manager: apt\n  sets:\n    - packages: [usrmerge]\n      action: install\n      early: true\n";

/// What a machine leaves of itself: mmdebstrap's host names and logs, locks, backups, device nodes.
const MACHINE: &[&str] = &[
    "etc/apt/sources.list",
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "run/lock",
    "var/lib/apt/extended_states",
    "var/log/faillog",
    "var/log/lastlog",
    "var/cache/apt/archives/lock",
    "var/lib/apt/lists/lock",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    // apt gives these to its user when it first runs.
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
];

/// Type, mode, owner and contents of everything below `root`, as text.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(root.join(&directory)).unwrap().flatten() {
            let path = directory.join(item.file_name());
            let meta = item.path().symlink_metadata().unwrap();
            let kind = meta.file_type();
            let contents = if kind.is_symlink() {
                fs::read_link(item.path()).unwrap().display().to_string()
            } else if kind.is_file() {
                contents(&path, &fs::read(item.path()).unwrap())
            } else {
                String::new()
            };
            let name = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
            let skipped = MACHINE.contains(&name.as_str())
                || name.starts_with("dev/")
                || name.starts_with("var/lib/dpkg/") && name.ends_with("-old")
                || name.starts_with("var/cache/debconf/") && name.ends_with("-old")
                || kind.is_char_device();
            if kind.is_dir() {
                open.push(path);
            }
            if !skipped {
                found.insert(name, format!("{:o} {}:{} {contents}", meta.mode(), meta.uid(), meta.gid()));
            }
        }
    }
    found
}

/// Files whose lines or paragraphs come in the order things happened are compared without it.
fn contents(path: &Path, data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match path.to_str() {
        Some("var/lib/dpkg/status" | "var/cache/debconf/config.dat") => {
            text.split("\n\n").map(str::trim).collect::<BTreeSet<_>>().into_iter().collect()
        }
        Some("etc/shells") => text.lines().collect::<BTreeSet<_>>().into_iter().collect(),
        // The day passwords were last changed is the packages' day here, the building day there.
        Some("etc/shadow") => {
            let line = |line: &str| {
                let mut fields: Vec<_> = line.split(':').collect();
                if fields.len() > 2 {
                    fields[2] = "";
                }
                fields.join(":")
            };
            text.lines().map(line).collect()
        }
        _ => millstream_image::Sha256Digest::of(data).to_string(),
    }
}

#[test]
fn the_base_is_mmdebstraps_but_for_what_is_the_machines() {
    let bench = Bench::new();
    works(&mut bench.build(RECIPE, "ours", &["--format=dir"]));
    let ours = bench.path("ours/rootfs");
    let sources = fs::read_to_string(ours.join("etc/apt/sources.list")).unwrap();
    let theirs = bench.path("theirs");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=minbase", "bookworm"]).arg(&theirs).args(sources.lines());
    works(&mut mmdebstrap);
    let audit = works(Command::new("chroot").arg(&ours).args(["dpkg", "--audit"]));
    assert_eq!(audit, "");
    let (ours, theirs) = (tree(&ours), tree(&theirs));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<_> = names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{name}\n  ours:   {:?}\n  theirs: {:?}", ours.get(name), theirs.get(name)))
        .collect();
    assert!(ours.len() > 5000, "only {} files", ours.len());
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn bookworm_and_trixie_build_without_leftovers() {
    let bench = Bench::new();
    let recipe =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/debian.yaml")).unwrap();
    for (release, variant) in [("bookworm", "default"), ("trixie", "minimal")] {
        let out = format!("{release}-{variant}");
        let (release_option, variant_option) =
            (format!("image.release={release}"), format!("image.variant={variant}"));
        let options = ["--format=dir", "-o", &release_option, "-o", &variant_option];
        works(&mut bench.build(&recipe, &out, &options));
        let root = bench.path(&out).join("rootfs");
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        assert_eq!(works(Command::new("chroot").arg(&root).args(["dpkg", "--audit"])), "");
        assert_eq!(read("etc/machine-id"), "", "{out}");
        assert_eq!(read("etc/hostname"), "LXC_NAME\n");
        assert!(read("etc/apt/sources.list").contains(&format!("{release}-security")), "{out}");
        let resolv = fs::read_link(root.join("etc/resolv.conf")).unwrap();
        assert!(resolv.ends_with("run/systemd/resolve/stub-resolv.conf"), "{}", resolv.display());
        for gone in ["usr/sbin/policy-rc.d", "var/cache/apt/pkgcache.bin", "etc/motd"] {
            assert!(!root.join(gone).exists(), "{out}: {gone}");
        }
        for empty in [
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "var/cache/apt/archives/partial",
            "var/lib/apt/lists/partial",
        ] {
            assert_eq!(fs::read_dir(root.join(empty)).unwrap().count(), 0, "{out}: {empty}");
        }
    }
}
