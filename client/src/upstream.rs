//! What another server offers, for whoever keeps a copy of it: verified as a client verifies it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_image::manifest::{File, Manifest};
use millstream_image::openpgp::Keyring;
use millstream_image::{Product, Sha256Digest, lxc_index};

use crate::arriving::Publisher;
use crate::cache::DocumentCache;
use crate::catalogue::{Catalogue, CatalogueImage, RemoteFile};
use crate::documents::Reader;
use crate::http::HttpOptions;
use crate::lxc::{self, Mode};
use crate::remotes::{Protocol, Remote, RemoteName};
use crate::tree::Tree;
use crate::trust::TrustFile;
use crate::{Error, NoProgress, Progress, Result, detect};

/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 64 << 20;
/// Names that are written anew for the copy, and so are no files of an image.
const OURS: [&str; 3] = ["manifest.json", "SHA256SUMS", "build.log"];

/// A server that is copied from.
#[derive(Debug)]
pub struct Upstream {
    remote: Remote,
    tree: Tree,
    keyring: Option<Keyring>,
    trust: TrustFile,
    documents: PathBuf,
}

/// One image of it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Distribution, release, architecture and variant.
    pub product: Product,
    /// Version or build, as upstream names it.
    pub serial: String,
    /// Its files.
    pub lot: Lot,
}

/// What is known of an image's files before they are fetched.
#[derive(Clone, Debug)]
pub enum Lot {
    /// Documents state sizes and digests.
    Stated(Box<CatalogueImage>),
    /// LXC's index names a directory, and nothing more.
    Unstated(lxc_index::Entry),
}

impl Upstream {
    /// Finds out how the server is read. `state` keeps what was seen of it, and documents that never
    /// change.
    pub async fn open(mut remote: Remote, state: &Path, http: &HttpOptions) -> Result<Self> {
        let tree = remote.trees(http)?.swap_remove(0);
        remote.protocol = detect::protocol(&tree, remote.is_signed()).await?;
        if !remote.protocol.has_signatures() {
            let reason = "only trees are mirrored: simplestreams, or LXC's index";
            return Err(Error::Url { url: remote.url.into(), reason: reason.into() });
        }
        let digest = Sha256Digest::of(remote.url.as_str().as_bytes()).to_string();
        let name: RemoteName = format!("upstream-{}", &digest[..32]).parse()?;
        let keyring = remote.trust.keyring()?;
        let trust = TrustFile::new(&state.join("trust"), &name);
        Ok(Self { remote, tree, keyring, trust, documents: state.join("documents") })
    }

    /// All images it offers, and products that were refused, with the reason.
    pub async fn offers(&self) -> Result<(Vec<Offer>, Vec<String>)> {
        let reader = self.reader();
        if self.remote.protocol == Protocol::Lxc {
            let entries = lxc::index(&reader, Mode::System).await?;
            let offer = |entry: lxc_index::Entry| Offer {
                product: entry.product.clone(),
                serial: entry.build.clone(),
                lot: Lot::Unstated(entry),
            };
            return Ok((entries.into_iter().map(offer).collect(), Vec::new()));
        }
        let catalogue = Catalogue::of_parts(reader.read().await?.parts);
        let offer = |image: CatalogueImage| Offer {
            product: image.product.clone(),
            serial: image.serial.clone(),
            lot: Lot::Stated(Box::new(image)),
        };
        let refused = catalogue.refused.iter().map(|r| format!("{}: {}", r.product, r.reason)).collect();
        Ok((catalogue.images.into_iter().map(offer).collect(), refused))
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            remote: &self.remote,
            tree: &self.tree,
            trust: &self.trust,
            cache: DocumentCache(&self.documents),
            now: SystemTime::now(),
        }
    }

    /// The images that LXC's index lists; none where there is no such index.
    pub async fn lxc_entries(&self) -> Result<Vec<lxc_index::Entry>> {
        match lxc::index(&self.reader(), Mode::System).await {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            entries => entries,
        }
    }

    /// The manifest of an image, where upstream is a stream of ours; bound to what was asked for.
    pub async fn manifest(&self, image: &CatalogueImage) -> Result<Option<Manifest>> {
        let Some(stated) = &image.manifest else { return Ok(None) };
        let url = self.tree.url(&stated.path);
        if stated.size > MAX_MANIFEST {
            return Err(Error::document(url, "it is larger than any manifest"));
        }
        let text = self.tree.document(&stated.path, stated.size).await?;
        if text.len() as u64 != stated.size || Sha256Digest::of(&text) != stated.sha256 {
            return Err(Error::mismatch(url, "its size or SHA-256 is not what documents state"));
        }
        let manifest = Manifest::parse(&text).map_err(|e| Error::document(&url, e))?;
        if (&manifest.product, manifest.serial.to_string()) != (&image.product, image.serial.clone()) {
            return Err(Error::mismatch(url, "it is the manifest of another image"));
        }
        Ok(Some(manifest))
    }

    /// Where the files of an image are, by name: those its manifest lists, else those of documents, and
    /// the unified archive that upstream made of them.
    pub fn files(image: &CatalogueImage, manifest: Option<&Manifest>) -> Result<Vec<(String, RemoteFile)>> {
        let stated = image.files().map(|(name, file)| (name.to_owned(), file.clone()));
        let mut files = match (manifest, &image.manifest) {
            (Some(manifest), Some(stated)) => manifest_files(manifest, stated)?,
            _ => stated.collect(),
        };
        if let Some((name, file)) = image.unified.as_deref()
            && !files.iter().any(|(other, same)| other == name || same.sha256 == file.sha256)
        {
            files.push(((*name).to_owned(), file.clone()));
        }
        Ok(files)
    }

    /// Brings one file to `dest`: resumed, and there only when size and digest are right.
    pub async fn fetch(&self, file: &RemoteFile, dest: &Path, progress: &dyn Progress) -> Result<()> {
        self.tree.download(&file.path, dest, (file.size, file.sha256), None, progress).await
    }

    /// The same, for who reads the file meanwhile from the publisher's other end.
    pub async fn fetch_for(&self, file: &RemoteFile, dest: &Path, publisher: Publisher) -> Result<()> {
        let stated = (file.size, file.sha256);
        self.tree.download(&file.path, dest, stated, Some(publisher), &NoProgress).await
    }

    /// Brings the files of an LXC build into `dir`, each with its signature where there is a key.
    pub async fn fetch_build(
        &self,
        entry: &lxc_index::Entry,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let from = (&self.tree, self.keyring.as_ref());
        lxc::fetch_files(from, entry, dir, (SystemTime::now(), progress), None).await
    }

    /// How it is named in messages.
    pub fn url(&self) -> String {
        self.tree.base()
    }
}

/// The files that a manifest lists, which lies at `stated`, beside them.
pub fn manifest_files(manifest: &Manifest, stated: &RemoteFile) -> Result<Vec<(String, RemoteFile)>> {
    let dir = stated.path.as_str().rsplit_once('/').map_or("", |(dir, _)| dir);
    let file = |(name, file): (&String, &File)| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        if name.starts_with('.') || !name.bytes().all(plain) || OURS.contains(&name.as_str()) {
            return Err(Error::name(name, "not a file of an image; refused"));
        }
        let path = format!("{dir}/{name}").parse()?;
        Ok((name.clone(), RemoteFile { path, size: file.size, sha256: file.sha256 }))
    };
    manifest.files.iter().map(file).collect()
}
