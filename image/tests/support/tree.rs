//! Trees made at random.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

const PAGE: u64 = 4096;

#[derive(Clone, Debug)]
pub enum Kind {
    Directory {
        default_acl: Option<u32>,
    },
    /// Pages that are data or a hole, then some bytes.
    File {
        pages: Vec<(bool, u64)>,
        tail: u64,
        capability: bool,
    },
    Symlink(Vec<u8>),
    Fifo,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    HardLink(Index),
}

/// Something in a directory made before it.
#[derive(Clone, Debug)]
pub struct Node {
    parent: Index,
    name: Vec<u8>,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    attributes: Vec<(String, Vec<u8>)>,
    acl: Option<u32>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = (1_u8..).prop_filter("separates", |byte| *byte != b'/');
    let bytes = prop_oneof![
        4 => prop::collection::vec(byte.clone(), 1..20),
        1 => prop::collection::vec(byte, 90..=255),
        4 => "[a-zé \n\\\\.-]{1,12}".prop_map(String::into_bytes),
    ];
    bytes.prop_filter("not a name of its own", |n| n != b"." && n != b".." && !n.starts_with(b".wh."))
}

fn kind() -> impl Strategy<Value = Kind> {
    let pages = prop::collection::vec((any::<bool>(), 1_u64..40), 0..6);
    prop_oneof![
        3 => prop::option::weighted(0.2, 1_u32..1000).prop_map(|default_acl| Kind::Directory { default_acl }),
        5 => (pages, 0..PAGE, prop::bool::weighted(0.2))
            .prop_map(|(pages, tail, capability)| Kind::File { pages, tail, capability }),
        2 => prop_oneof![
            name(),
            Just(b"../../etc/passwd".to_vec()),
            Just(b"/".to_vec()),
            prop::collection::vec(1_u8.., 90..1000),
        ].prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        1 => (any::<bool>(), 1_u32..500, 0_u32..70_000)
            .prop_map(|(block, major, minor)| Kind::Device { block, major, minor }),
        2 => any::<Index>().prop_map(Kind::HardLink),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let id = || prop_oneof![Just(0_u32), 0_u32..70_000, Just(2_097_152), Just(u32::MAX - 1)];
    let time = (
        prop_oneof![-2_000_000_000_i64..8_000_000_000, Just(-1), Just(0)],
        prop_oneof![Just(0_i64), 0_i64..1_000_000_000, Just(999_999_999)],
    );
    let attributes =
        prop::collection::btree_map("user\\.[a-z=%.]{1,20}", prop::collection::vec(0_u8.., 0..50), 0..3);
    (
        any::<Index>(),
        name(),
        kind(),
        0_u32..0o10000,
        (id(), id()),
        time,
        attributes,
        prop::option::weighted(0.2, 1_u32..1000),
    )
        .prop_map(|(parent, name, kind, mode, owner, time, attributes, acl)| Node {
            parent,
            name,
            kind,
            mode,
            owner,
            time,
            attributes: attributes.into_iter().collect(),
            acl,
        })
}

pub fn nodes() -> impl Strategy<Value = Vec<Node>> {
    prop::collection::vec(node(), 1..40)
}

/// Makes the tree below `root`, an empty directory. Nodes whose name is taken are left out.
pub fn make(nodes: &[Node], root: &Path) {
    let mut directories = vec![root.to_path_buf()];
    let mut files = Vec::new();
    let mut made = Vec::new();
    for node in nodes {
        let path = node.parent.get(&directories).join(OsStr::from_bytes(&node.name));
        if path.as_os_str().len() > 2500 || path.symlink_metadata().is_ok() {
            continue;
        }
        match &node.kind {
            Kind::Directory { .. } => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            Kind::HardLink(_) if files.is_empty() => continue,
            Kind::HardLink(to) => fs::hard_link(to.get(&files), &path).unwrap(),
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            other => {
                create(other, &path);
                // Of other things with several names GNU tar makes several things.
                if matches!(other, Kind::File { .. }) {
                    files.push(path.clone());
                }
            }
        }
        made.push((path, node));
    }
    for (path, node) in made.iter().rev() {
        // A hard link's metadata is that of its first name.
        if !matches!(node.kind, Kind::HardLink(_)) {
            finish(path, node);
        }
    }
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 5 };
    rustix::fs::utimensat(
        CWD,
        root,
        &Timestamps { last_access: time, last_modification: time },
        AtFlags::empty(),
    )
    .unwrap();
}

fn create(kind: &Kind, path: &Path) {
    let special = |kind, device| rustix::fs::mknodat(CWD, path, kind, Mode::empty(), device).unwrap();
    match kind {
        Kind::File { pages, tail, .. } => {
            let file = File::create(path).unwrap();
            let mut at = 0;
            for (data, count) in
                pages.iter().map(|(data, pages)| (*data, pages * PAGE)).chain([(true, *tail)])
            {
                if data {
                    let bytes: Vec<u8> = (at..at + count).map(|n| (n % 251) as u8 + 1).collect();
                    file.write_all_at(&bytes, at).unwrap();
                }
                at += count;
            }
            file.set_len(at).unwrap();
        }
        Kind::Fifo => special(FileType::Fifo, 0),
        Kind::Device { block: true, major, minor } => {
            special(FileType::BlockDevice, rustix::fs::makedev(*major, *minor));
        }
        Kind::Device { major, minor, .. } => {
            special(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor));
        }
        Kind::Directory { .. } | Kind::Symlink(_) | Kind::HardLink(_) => unreachable!("made elsewhere"),
    }
}

fn finish(path: &Path, node: &Node) {
    let link = AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = node.owner;
    rustix::fs::chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), link).unwrap();
    let set =
        |name: &str, value: &[u8]| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    if !matches!(node.kind, Kind::Symlink(_)) {
        rustix::fs::chmodat(CWD, path, Mode::from(node.mode), AtFlags::empty()).unwrap();
    }
    if matches!(node.kind, Kind::File { .. } | Kind::Directory { .. }) {
        node.attributes.iter().for_each(|(name, value)| set(name, value));
        if let Some(user) = node.acl {
            set("system.posix_acl_access", &access_list(user));
            // The list has set some bits of the mode; the others stay.
            let mode = node.mode & 0o7000 | 0o750;
            rustix::fs::chmodat(CWD, path, Mode::from(mode), AtFlags::empty()).unwrap();
        }
    }
    match &node.kind {
        Kind::Directory { default_acl: Some(user) } => set("system.posix_acl_default", &access_list(*user)),
        Kind::File { capability: true, .. } => {
            set("security.capability", &words(&[0x0200_0001, 1 << 13, 0, 0, 0]));
        }
        _ => {}
    }
    let time = Timespec { tv_sec: node.time.0, tv_nsec: node.time.1 };
    rustix::fs::utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, link)
        .unwrap();
}

/// Owner rwx, one user rx, group rx, mask rx, others nothing (`linux/posix_acl_xattr.h`).
fn access_list(user: u32) -> Vec<u8> {
    words(&[2, 0x7_0001, !0, 0x5_0002, user, 0x5_0004, !0, 0x5_0010, !0, 0x0_0020, !0])
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
