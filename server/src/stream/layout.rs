//! Where things stand in a tree.
//!
//! ```text
//! streams    -> .documents/current/streams     what readers see; none of these links ever changes
//! meta       -> .documents/current/meta
//! index.html -> .documents/current/index.html
//! pages      -> .documents/current/pages        a page a distribution
//! images/DIST/RELEASE/ARCH/VARIANT/SERIAL/     whole images, renamed into place
//! logs/JOB/ID.log                              of daily builds
//! key.asc                                      the public key
//! .documents/N/                                one directory a publication
//! .documents/current -> N                      renamed over: the moment of publication
//! .staging/                                    images on their way, and `pending`
//! .unsigned/                                   images that wait for whoever has the key
//! .retired                                     images whose files are about to go
//! .push/PUSHER/UPLOAD/                         images on their way from builders elsewhere
//! .mirror/                                     downloads of `millstream mirror` on their way
//! .lock                                        held by whoever writes
//! ```

/// Publications.
pub(super) const DOCUMENTS: &str = ".documents";
/// The link that says which publication readers see.
pub(super) const CURRENT: &str = ".documents/current";
/// Images on their way into the tree, and what is on its way out.
pub(super) const STAGING: &str = ".staging";
/// Names the image that is being placed, until documents list it.
pub(super) const PENDING: &str = ".staging/pending";
/// Images that wait to be signed.
pub(super) const UNSIGNED: &str = ".unsigned";
/// Images that documents list no more, with the time from which their files may go.
pub(super) const RETIRED: &str = ".retired";
/// What a mirror is fetching; survives it, to be resumed.
pub(crate) const MIRROR: &str = ".mirror";
/// Of images that come from upstream as they are asked for, those that LXC can use: a directory a line.
pub(super) const PROMISED: &str = ".mirror/lxc";
/// What builders elsewhere are sending; survives the server, to be resumed.
pub(crate) const PUSH: &str = ".push";
/// Locked by whoever writes.
pub(super) const LOCK: &str = ".lock";
/// The public key.
pub(super) const KEY: &str = "key.asc";
/// Images.
pub(crate) const IMAGES: &str = "images";
/// Logs of daily builds.
pub(crate) const LOGS: &str = "logs";
/// What readers see of a publication, and where it leads.
pub(super) const LINKS: [(&str, &str); 4] = [
    ("streams", ".documents/current/streams"),
    ("meta", ".documents/current/meta"),
    ("index.html", ".documents/current/index.html"),
    ("pages", ".documents/current/pages"),
];
/// Product documents by hash, within a publication.
pub(super) const BY_HASH: &str = "streams/v1/by-hash";

/// The metadata archives, with the names of their items.
pub(super) const METADATA: [&str; 2] = ["lxd.tar.xz", "incus.tar.xz"];
/// The root file system.
pub(super) const ROOTFS: &str = "rootfs.tar.xz";
/// The root file system as squashfs, when there is one.
pub(super) const SQUASHFS: &str = "rootfs.squashfs";
/// Item type of a delta from an earlier [`ROOTFS`]; of our own, so passed over by other clients.
pub(super) const DELTA: &str = "root.tar.xz.delta";
/// Item type of a delta from an earlier [`SQUASHFS`].
pub(super) const VCDIFF: &str = "squashfs.vcdiff";
/// Metadata and root file system in one archive, when there is one; how it is compressed does not matter to
/// its readers.
pub(crate) const UNIFIED: [&str; 4] = ["unified.tar.xz", "unified.tar.zst", "unified.tar.gz", "unified.tar"];
/// Item types of it, for LXD and for Incus; clients tell the compression by the contents.
pub(crate) const COMBINED: [&str; 2] = ["lxd_combined.tar.gz", "incus_combined.tar.gz"];
/// LXC's metadata.
pub(crate) const META: &str = "meta.tar.xz";
/// Digests of an image's files.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// How an image came to be.
pub(crate) const MANIFEST: &str = "manifest.json";
/// What the build said.
pub(super) const LOG: &str = "build.log";
/// Files that have a signature beside them.
pub(crate) const SIGNED: [&str; 3] = [ROOTFS, META, SUMS];
