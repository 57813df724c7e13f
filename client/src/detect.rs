//! What a server offers, found out by asking for what each kind has.

use millstream_image::lxc_index::COMPAT_LEVEL;
use millstream_image::simplestreams::{INDEX_PATH, MAX_SIZE, signed_path};

use crate::lxc::Mode;
use crate::remotes::Protocol;
use crate::tree::{Tree, TreePath};
use crate::{Error, Result, api};

/// The largest answer of an API that is looked at, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// How a tree is read. Says what it is when it cannot be read, and what to do.
pub(crate) async fn protocol(tree: &Tree, signed: bool) -> Result<Protocol> {
    let index = if signed { signed_path(INDEX_PATH) } else { INDEX_PATH.to_owned() };
    let missing = match has(tree, &index, MAX_SIZE).await {
        Ok(()) => return Ok(Protocol::Simplestreams),
        Err(error) if error.is_missing() => error,
        Err(error) => return Err(error),
    };
    let plain = format!("meta/1.0/index-{}", Mode::here().name());
    for path in [format!("{plain}.{COMPAT_LEVEL}"), plain] {
        if has(tree, &path, MAX_SIZE).await.is_ok() {
            return Ok(Protocol::Lxc);
        }
    }
    // A tree that should be signed and is not: the reader says so in its own words.
    if signed && has(tree, INDEX_PATH, MAX_SIZE).await.is_ok() {
        return Ok(Protocol::Simplestreams);
    }
    if api::answers(tree).await {
        return Ok(Protocol::Lxd);
    }
    Err(other(tree).await.unwrap_or(missing))
}

async fn has(tree: &Tree, path: &str, cap: u64) -> Result<()> {
    tree.document(&path.parse()?, cap).await.map(drop)
}

/// What else answers here.
async fn other(tree: &Tree) -> Option<Error> {
    let base = tree.base();
    let unusable = |reason: &str| Some(Error::Url { url: base.clone(), reason: reason.to_owned() });
    if let Tree::Directory(dir) = tree {
        if dir.join("lxd.tar.xz").is_file() || dir.join("incus.tar.xz").is_file() {
            return unusable(
                "this is an image, not a tree of images; put it into one: millstream stream add ROOT DIR",
            );
        }
        return unusable("neither streams/v1/index.json nor meta/1.0/index-system is in this directory");
    }
    // A registry answers below v2 to anybody, if only with "who are you".
    let path: TreePath = "v2/_catalog".parse().ok()?;
    match tree.document(&path, MAX_ANSWER).await {
        Ok(answer) if answer.starts_with(b"{\"repositories\"") => unusable(REGISTRY),
        Err(Error::Status { status: 401, .. }) => unusable(REGISTRY),
        _ => None,
    }
}

const REGISTRY: &str = "this is a registry of application images, which are not fetched as a remote";
