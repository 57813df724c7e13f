//! Root file systems to pack, and a listing that shows every difference.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Timespec, XattrFlags};

use crate::bench::{Bench, sha256};

/// Seconds since 1970 of the newest file in these trees: 2026-07-01.
pub const NEWEST: i64 = 1_782_864_000;

pub const OS_RELEASE: &str = "ID=tiny\nNAME=\"Tiny Linux\"\nVERSION_CODENAME=one\nPRETTY_NAME=\"Tiny One\"\n";

/// The smallest root file system that runs.
pub fn busybox(bench: &Bench) -> PathBuf {
    let root = bench.path("root");
    for directory in ["bin", "sbin", "etc", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("this test needs busybox-static");
    symlink("busybox", root.join("bin/sh")).unwrap();
    symlink("../bin/busybox", root.join("sbin/init")).unwrap();
    fs::write(root.join("etc/os-release"), OS_RELEASE).unwrap();
    fs::write(root.join("etc/greeting"), "hello\n").unwrap();
    // The newest of all files says when the image is from.
    let time = time(NEWEST, 0);
    let mut open = vec![root.clone()];
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.is_symlink() {
            open.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
        set_time(&path, time);
    }
    root
}

fn time(seconds: i64, nanos: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanos }
}

fn set_time(path: &Path, time: Timespec) {
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything a file system can hold.
pub fn odd(dir: &Path) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    fs::create_dir(dir).unwrap();
    let at = |name: &str| dir.join(name);
    fs::write(at("plain"), "some text").unwrap();
    fs::hard_link(at("plain"), at("second name")).unwrap();
    fs::write(at("setuid"), "x").unwrap();
    rustix::fs::chown(
        at("setuid"),
        Some(rustix::fs::Uid::from_raw(1234)),
        Some(rustix::fs::Gid::from_raw(70_000)),
    )
    .unwrap();
    fs::set_permissions(at("setuid"), Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("setuid"), at("zz setuid too")).unwrap();
    fs::write(at("capable"), "y").unwrap();
    // cap_net_raw+ep, as of struct vfs_cap_data version 2.
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&at("capable"), "security.capability", &capability);
    set_xattr(&at("plain"), "user.note", b"with \0 and \xff");
    fs::write(at("shared"), "z").unwrap();
    fs::set_permissions(at("shared"), Permissions::from_mode(0o640)).unwrap();
    set_xattr(&at("shared"), "system.posix_acl_access", &acl());
    for name in [&b"line\nbreak"[..], b"\xff\xfe", b"-rf", b" ", b"tab\t", b"\xc3\xa4", &[b'n'; 255]] {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let holes = File::create(at("holes")).unwrap();
    holes.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"middle", 1 << 20).unwrap();
    let device = |name: &str, kind, major, minor| {
        let id = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, Mode::from(0o620), id).unwrap();
    };
    device("null", FileType::CharacterDevice, 1, 3);
    device("disk", FileType::BlockDevice, 259, 300);
    device("pipe", FileType::Fifo, 0, 0);
    symlink("/nowhere/at all", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let mut deep = dir.to_path_buf();
    for _ in 0..12 {
        deep.push("a directory with a rather long name");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "").unwrap();
    fs::create_dir(at("sticky")).unwrap();
    fs::set_permissions(at("sticky"), Permissions::from_mode(0o3777)).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::set_permissions(at("closed"), Permissions::from_mode(0o0)).unwrap();
    set_time(&at("capable"), time(1_700_000_000, 123_456_789));
    set_time(&at("shared"), time(-2, 500_000_000));
    set_time(&at("dangling"), time(1, 0));
    // Everything else is clamped to the newest time outside.
    let late = time(NEWEST, 0);
    let mut open = vec![dir.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
        if meta.mtime() > NEWEST || meta.is_dir() {
            set_time(&path, late);
        }
    }
    set_time(dir.parent().unwrap(), late);
}

/// Read and write for the owner, read for user 1000, as the kernel keeps it (version 2).
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Everything about a file but its inode.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    mode: u32,
    owner: (u32, u32),
    pub seconds: i64,
    pub nanos: i64,
    device: u64,
    /// Contents' digest, or a link's target.
    contents: String,
    /// The first name of the same file.
    first: PathBuf,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// One difference at a time is told.
pub fn same(found: &BTreeMap<PathBuf, Entry>, expected: &BTreeMap<PathBuf, Entry>) {
    for (path, entry) in expected {
        assert_eq!(found.get(path), Some(entry), "{}", path.display());
    }
    assert_eq!(found.len(), expected.len());
}

pub fn listing(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            open.extend(fs::read_dir(&full).unwrap().map(|item| path.join(item.unwrap().file_name())));
        }
        let contents = if kind.is_symlink() {
            fs::read_link(&full).unwrap().display().to_string()
        } else if kind.is_file() {
            sha256(&full)
        } else {
            String::new()
        };
        let entry = Entry {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            seconds: meta.mtime(),
            nanos: meta.mtime_nsec(),
            device: meta.rdev(),
            contents,
            first: path.clone(),
            xattrs: xattrs(&full),
        };
        found.insert(path, (meta.ino(), kind.is_dir(), entry));
    }
    let mut firsts = BTreeMap::new();
    let entries = found.into_iter().map(|(path, (inode, directory, mut entry))| {
        if !directory {
            entry.first.clone_from(firsts.entry(inode).or_insert_with(|| path.clone()));
        }
        (path, entry)
    });
    entries.collect()
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let size = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = String::from_utf8(names[..size].to_vec()).unwrap();
    let wanted = names.split('\0').filter(|name| !name.is_empty() && !name.starts_with("security.selinux"));
    let value = |name: &str| {
        let mut value = vec![0; 4096];
        let size = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(size);
        value
    };
    wanted.map(|name| (name.to_owned(), value(name))).collect()
}
