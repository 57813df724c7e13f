use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{PerAddress, Push, Upstream};
use crate::shared::Delivery;
use crate::storage::Address;

/// `[serve]`: what `millstream serve` takes from the command line as well, which comes first. Relative
/// paths begin at the configuration's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// The stream's root: a directory, or the address of a bucket.
    pub root: Option<PathBuf>,
    /// How files of images reach clients where the root is a bucket: `proxy` or `redirect`.
    pub delivery: Delivery,
    /// Address and port, `127.0.0.1:8443` without it.
    pub listen: Option<String>,
    /// Further names for the local authority's certificate.
    pub names: Vec<String>,
    /// Certificate chain, PEM, instead of the local authority's.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Whether to sign the stream's documents anew before they expire, and images that wait for it,
    /// with keys of the configuration directory.
    pub resign: bool,
    /// `[serve.limits]`: what one client address may cost.
    pub limits: PerAddress,
    /// `[serve.push]`: bounds on images that come from elsewhere.
    pub push: Push,
    /// `[serve.upstream]`.
    pub upstream: Option<Upstream>,
}

impl Service {
    /// Paths begin at `dir`.
    pub(super) fn below(&mut self, dir: &Path) {
        let is_path = |root: &PathBuf| matches!(Address::parse(root), Ok(None));
        self.root = self.root.take().map(|root| if is_path(&root) { dir.join(root) } else { root });
        for path in [&mut self.tls_cert, &mut self.tls_key] {
            *path = path.take().map(|path| dir.join(path));
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.below(dir);
        }
    }
}
