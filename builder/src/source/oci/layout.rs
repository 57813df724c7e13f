//! Images in a directory: an OCI layout, or what `docker save` packs. Both may come from strangers,
//! so files are opened below the directory only, and hashed before they are believed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use millstream_client::oci;
use millstream_image::Sha256Digest;
use millstream_image::archive::{ExtractOptions, extract};
use millstream_image::oci::{Descriptor, Digest, Document, Index, MAX_SIZE, Manifest, Platform, layout};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::Deserialize;

use super::{Image, Wanted};
use crate::{Error, Result};

const DOCKER: &str = "manifest.json";

/// Whether a directory holds an image rather than a root file system.
pub(in crate::source) fn is_image(directory: &Path) -> bool {
    let plain = |name: &str| directory.join(name).symlink_metadata().is_ok_and(|meta| meta.is_file());
    let root = directory.join("usr").exists() || directory.join("etc").exists();
    plain(layout::MARKER) || (plain(DOCKER) && !root)
}

/// Unpacks the wanted image of a layout, or of a tar archive of one.
pub(super) fn unpack(path: &Path, root: &Path, wanted: &Wanted<'_>) -> Result<Digest> {
    let meta = fs::metadata(path).map_err(Error::io(path))?;
    if meta.is_dir() {
        if !is_image(path) {
            return Err(Error::Refused(format!(
                "{}: this is no OCI layout (it has no {})",
                path.display(),
                layout::MARKER
            )));
        }
        return from_directory(path, root, wanted);
    }
    let parent = root.parent().unwrap_or(Path::new("."));
    let staging = tempfile::Builder::new().prefix("unpack-").tempdir_in(parent).map_err(Error::io(parent))?;
    let archive = File::open(path).map_err(Error::io(path))?;
    extract(archive, staging.path(), &ExtractOptions::default())?;
    if !is_image(staging.path()) {
        return Err(Error::Refused(format!("{}: this is no archive of an OCI layout", path.display())));
    }
    from_directory(staging.path(), root, wanted)
}

/// Unpacks the wanted image of a directory.
pub(in crate::source) fn unpack_directory(directory: &Path, root: &Path, wanted: &Wanted<'_>) -> Result<()> {
    from_directory(directory, root, wanted).map(|_| ())
}

fn from_directory(directory: &Path, root: &Path, wanted: &Wanted<'_>) -> Result<Digest> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened =
        rustix::fs::open(directory, flags, Mode::empty()).map_err(|e| Error::io(directory)(e.into()))?;
    let files = Files { directory, opened };
    let image = if files.exists(layout::MARKER) { files.oci(wanted)? } else { files.docker(wanted)? };
    super::apply(&image, root, wanted.architecture, wanted.cancel)?;
    Ok(image.digest)
}

struct Files<'a> {
    directory: &'a Path,
    opened: OwnedFd,
}

/// One image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Files<'_> {
    fn exists(&self, path: &str) -> bool {
        self.open(path).is_ok()
    }

    fn open(&self, path: &str) -> Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.opened, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
        opened.map(File::from).map_err(|e| Error::io(self.directory.join(path))(e.into()))
    }

    fn document(&self, path: &str) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let place = self.directory.join(path);
        self.open(path)?.take(MAX_SIZE as u64 + 1).read_to_end(&mut text).map_err(Error::io(place))?;
        Ok(text)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let text = self.document(&descriptor.digest.blob_path().to_string_lossy())?;
        descriptor.verify(&text)?;
        Ok(text)
    }

    fn oci(&self, wanted: &Wanted<'_>) -> Result<Image> {
        layout::check_marker(&self.document(layout::MARKER)?)?;
        let index = Index::parse(&self.document(layout::INDEX)?)?;
        let what = self.directory.display().to_string();
        let platform = Platform::linux(wanted.architecture);
        let mut next = pick(&index, wanted, &platform, &what)?.clone();
        for _ in 0..4 {
            let text = self.blob(&next)?;
            match oci::parse(Some(&next.media_type), &text, &what)? {
                Document::Index(index) => next = oci::select(&index, &platform, &what)?.clone(),
                Document::Manifest(manifest) => return self.image(next.digest, &manifest),
            }
        }
        Err(Error::Refused(format!("{what}: too many indices lead to the image")))
    }

    fn image(&self, digest: Digest, manifest: &Manifest) -> Result<Image> {
        oci::check(manifest, &self.directory.display().to_string())?;
        let config = self.blob(&manifest.config)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let path = layer.digest.blob_path();
            let name = path.to_string_lossy();
            let mut file = self.open(&name)?;
            let place = self.directory.join(&path);
            let (sha256, size) = Sha256Digest::of_reader(&mut file).map_err(Error::io(&place))?;
            if sha256 != layer.digest.0 || size != layer.size {
                let reason =
                    format!("it is {sha256} and {size} bytes, its manifest says {} bytes", layer.size);
                return Err(Error::Untrusted { what: place.display().to_string(), reason });
            }
            layers.push(self.real_path(&name, &mut file)?);
        }
        Ok(Image { digest, config, layers })
    }

    /// What `docker save` wrote: layers are named by path; the configuration says what they unpack
    /// to, so that is what binds them.
    fn docker(&self, wanted: &Wanted<'_>) -> Result<Image> {
        let text = self.document(DOCKER)?;
        let bad = |reason: String| Error::Refused(format!("{}/{DOCKER}: {reason}", self.directory.display()));
        let all: Vec<Saved> = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        let named = |saved: &&Saved| match wanted.tag {
            None => true,
            Some(tag) => {
                saved.repo_tags.iter().flatten().any(|t| t == tag || t.ends_with(&format!(":{tag}")))
            }
        };
        let saved = all.iter().find(named).ok_or_else(|| bad("it has no such image".into()))?;
        let config = self.document(&saved.config)?;
        let mut layers = Vec::new();
        for layer in &saved.layers {
            let mut file = self.open(layer)?;
            layers.push(self.real_path(layer, &mut file)?);
        }
        Ok(Image { digest: Digest::of(&config), config, layers })
    }

    /// A path of an opened file that no link leads away from.
    fn real_path(&self, name: &str, file: &mut File) -> Result<PathBuf> {
        let place = self.directory.join(name);
        file.seek(SeekFrom::Start(0)).map_err(Error::io(&place))?;
        let base = fs::canonicalize(self.directory).map_err(Error::io(self.directory))?;
        let real = fs::canonicalize(&place).map_err(Error::io(&place))?;
        if real.starts_with(&base) {
            return Ok(real);
        }
        Err(Error::Refused(format!("{}: it leads out of the image", place.display())))
    }
}

/// The image with the wanted name; without one, the only image or the one for the platform.
fn pick<'i>(
    index: &'i Index,
    wanted: &Wanted<'_>,
    platform: &Platform,
    what: &str,
) -> Result<&'i Descriptor> {
    let name = |d: &Descriptor| d.annotations.get(layout::REF_NAME).cloned().unwrap_or_default();
    match (wanted.tag, &index.manifests[..]) {
        (None, [only]) => Ok(only),
        (None, _) => Ok(oci::select(index, platform, what)?),
        (Some(tag), all) => {
            let of_tag: Vec<_> = all.iter().filter(|d| name(d) == tag).cloned().collect();
            let fits = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.serves(platform));
            all.iter().filter(|d| name(d) == tag).find(fits).ok_or_else(|| {
                let names: Vec<_> = all.iter().map(name).collect();
                let reason =
                    if of_tag.is_empty() { "no image of this name" } else { "none for this architecture" };
                Error::Refused(format!("{what}: {tag}: {reason} (there: {})", names.join(", ")))
            })
        }
    }
}
