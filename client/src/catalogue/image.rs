//! One image of a remote.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_image::{Alias, Fingerprint, Product, Sha256Digest};

use crate::query::{Filter, Filtered};
use crate::tree::TreePath;

/// Kinds of root file system archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    /// `rootfs.tar.xz`.
    TarXz,
    /// `rootfs.squashfs`.
    Squashfs,
    /// Both files come in one answer of LXD's API, which says then what they are. The image's `metadata`
    /// and `rootfs` name that answer, with the size and digest of both together.
    Exported,
}

impl RootKind {
    /// The file's name in the store and when exported.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::TarXz => "rootfs.tar.xz",
            Self::Squashfs => "rootfs.squashfs",
            Self::Exported => "export",
        }
    }

    /// Its type in simplestreams.
    pub fn item_type(self) -> &'static str {
        match self {
            Self::TarXz => "root.tar.xz",
            Self::Squashfs => "squashfs",
            Self::Exported => "export",
        }
    }
}

/// A file of an image in the remote's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it is.
    pub path: TreePath,
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Sha256Digest,
}

/// What makes an image's root file system out of that of an earlier serial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The earlier serial.
    pub base: String,
    /// The delta.
    pub file: RemoteFile,
}

/// What a product says of itself beyond its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Names it answers to.
    pub aliases: Vec<Alias>,
    /// Distribution as shown: `Debian`.
    pub os: String,
    /// Release as shown: `12`.
    pub release_title: String,
    /// Day support ends, `YYYY-MM-DD`.
    pub support_eol: Option<String>,
    /// What the image asks of its host.
    pub requirements: BTreeMap<String, String>,
    /// Where a server states an image's properties themselves: these, and no others.
    pub own: Option<BTreeMap<String, String>>,
}

/// One image of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueImage {
    /// Identity: SHA-256 of metadata followed by root file system.
    pub fingerprint: Fingerprint,
    /// Distribution, release, architecture and variant.
    pub product: Product,
    /// Version name: `YYYYMMDD_HHMM`, elsewhere at least beginning with the date.
    pub serial: String,
    /// What all serials of the product share.
    pub details: Arc<Details>,
    /// The metadata archive.
    pub metadata: RemoteFile,
    /// Its name in a tree of ours.
    pub metadata_name: &'static str,
    /// The root file system's archive.
    pub rootfs: RemoteFile,
    /// Its kind.
    pub root_kind: RootKind,
    /// SHA-256 of the root file system's archive, uncompressed, on our own streams.
    pub uncompressed: Option<Sha256Digest>,
    /// Deltas to `rootfs.tar.xz`, on our own streams.
    pub deltas: Vec<Delta>,
    /// Metadata and root file system in one archive, where there is one, with the name a tree of ours has
    /// for it.
    pub unified: Option<Box<(&'static str, RemoteFile)>>,
    /// `manifest.json`, on our own streams.
    pub manifest: Option<RemoteFile>,
    /// Further files that a tree of ours has too, with their name there.
    pub others: Vec<(&'static str, RemoteFile)>,
    /// Whether it is the product's newest.
    pub newest: bool,
}

impl CatalogueImage {
    /// Bytes of both files.
    pub fn size(&self) -> u64 {
        let metadata = if self.root_kind == RootKind::Exported { 0 } else { self.metadata.size };
        self.rootfs.size.saturating_add(metadata)
    }

    /// All its files that a tree of ours has too, with their name there.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &RemoteFile)> {
        let chosen = [(self.metadata_name, &self.metadata), (self.root_kind.file_name(), &self.rootfs)];
        chosen.into_iter().chain(self.others.iter().map(|(name, file)| (*name, file)))
    }

    /// Names the product answers to.
    pub fn aliases(&self) -> &[Alias] {
        &self.details.aliases
    }

    /// `os`, `release`, `architecture`, `variant`, `serial`, `description`, `type`, … as the store
    /// keeps them.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let Details { os, release_title, support_eol, requirements, own, .. } = &*self.details;
        if let Some(own) = own {
            return own.clone();
        }
        let (arch, variant) = (self.product.architecture().debian(), self.product.variant());
        let description = format!("{os} {release_title} {arch} ({variant}) ({})", self.serial);
        let mut properties: BTreeMap<_, _> = [
            ("architecture", arch),
            ("description", &description),
            ("os", os),
            ("release", self.product.release()),
            ("release_title", release_title),
            ("serial", &self.serial),
            ("type", self.root_kind.item_type()),
            ("variant", variant),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        properties.extend(support_eol.iter().map(|eol| ("support_eol".to_owned(), eol.clone())));
        let requirement = |(key, value): (&String, &String)| (format!("requirements.{key}"), value.clone());
        properties.extend(requirements.iter().map(requirement));
        properties
    }

    /// Whether it passes all filters.
    pub fn matches(&self, filters: &[Filter]) -> bool {
        if filters.is_empty() {
            return true;
        }
        let properties = self.properties();
        let image =
            Filtered { fingerprint: self.fingerprint, aliases: self.aliases(), properties: &properties };
        filters.iter().all(|filter| filter.matches(image))
    }
}
