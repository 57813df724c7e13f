//! LXD's and Incus' public image API: what `lxc remote add NAME https://HOST` talks to.
//!
//! Nothing there is signed. Who the server is, TLS proves; a fingerprint that the server lists is proved
//! by the image itself.
//!
//! Source of the format: the REST API documentation of both ("Main API specification").

pub(crate) mod export;
pub mod images;

use millstream_image::simplestreams::MAX_SIZE;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::catalogue::Catalogue;
use crate::tree::Tree;
use crate::{Error, Result};

/// The largest description of a server, in bytes.
const MAX_ABOUT: u64 = 1 << 20;

/// What the API puts around every answer.
#[derive(Deserialize)]
struct Answer<T> {
    metadata: T,
}

/// What a server says of itself, as far as it counts here.
#[derive(Deserialize)]
struct About {
    #[serde(rename = "api_status")]
    _status: String,
}

/// Whether the server behind a tree speaks the API.
pub(crate) async fn answers(tree: &Tree) -> bool {
    get::<About>(tree, "1.0", MAX_ABOUT).await.is_ok()
}

/// What a server lists: the public images, for a client it trusts all.
pub(crate) async fn catalogue(tree: &Tree) -> Result<Catalogue> {
    let listed = get(tree, "1.0/images?recursion=1", MAX_SIZE).await?;
    Ok(images::catalogue(listed))
}

async fn get<T: DeserializeOwned>(tree: &Tree, call: &str, cap: u64) -> Result<T> {
    let Tree::Http { client, base, .. } = tree else {
        return Err(Error::Url { url: tree.base(), reason: "a directory answers no calls".into() });
    };
    let url = format!("{base}{call}");
    let text = client.document(&url, cap).await?;
    let answer: Answer<T> = serde_json::from_slice(&text).map_err(|e| Error::document(&url, e))?;
    Ok(answer.metadata)
}
