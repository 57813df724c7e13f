//! What a server offers, found out by asking for what each kind has.

use millstream_image::lxc_index::COMPAT_LEVEL;
use millstream_image::simplestreams::{INDEX_PATH, MAX_SIZE, signed_path};

use crate::lxc::Mode;
use crate::remotes::Protocol;
use crate::tree::Tree;
use crate::{Error, Result, api, oci};

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
    if let Tree::Http { client, base, .. } = tree
        && let Ok(server) = base.parse()
        && oci::answers(client, &server).await
    {
        return Ok(Protocol::Oci);
    }
    Err(other(tree).unwrap_or(missing))
}

async fn has(tree: &Tree, path: &str, cap: u64) -> Result<()> {
    tree.document(&path.parse()?, cap).await.map(drop)
}

/// What else a directory is.
fn other(tree: &Tree) -> Option<Error> {
    let Tree::Directory(dir) = tree else { return None };
    let reason = if dir.join("lxd.tar.xz").is_file() || dir.join("incus.tar.xz").is_file() {
        "this is an image, not a tree of images; put it into one: millstream stream add ROOT DIR"
    } else {
        "neither streams/v1/index.json nor meta/1.0/index-system is in this directory"
    };
    Some(Error::Url { url: tree.base(), reason: reason.to_owned() })
}
