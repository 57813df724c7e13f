//! Compares an image with one built again from what its manifest records.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use millstream_image::Sha256Digest;
use millstream_image::archive::{Entry, Limits, Reader, decoder};
use millstream_image::manifest::Manifest;
use serde::Serialize;

use super::inputs;
use crate::recipe::Resolved;
use crate::{Error, Result};

const ROOTFS: &str = "rootfs.tar.xz";

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// A file of the image, a path inside `rootfs.tar.xz`, or a package.
    pub what: String,
    /// How it differs.
    pub how: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    /// Packages in other versions than then, of which the sources have the old ones no more; and
    /// whatever else explains a difference.
    pub causes: Vec<Difference>,
    /// Files of the image, and files in its root file system where both archives are at hand.
    pub differences: Vec<Difference>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.how)
    }
}

/// The recipe a manifest records, bound to its image.
///
/// # Errors
/// When the manifest's recipe cannot be read, or was for a source that needs what is not recorded.
pub fn resolved(manifest: &Manifest) -> Result<Resolved> {
    let definition = serde_yaml_ng::from_str(&manifest.recipe)
        .map_err(|e| Error::Refused(format!("manifest.json: its recipe cannot be read: {e}")))?;
    let product = manifest.product.clone();
    let architecture = product.architecture();
    Ok(Resolved { definition, product, architecture, releases: Vec::new() })
}

/// Compares the image of `then` with the one in directory `now`. `archives` is the directory that
/// has the first one's files, if it is at hand.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(then: &Manifest, archives: Option<&Path>, rebuilt: &Manifest, now: &Path) -> Result<Verified> {
    let mut found = Verified { causes: causes(then, rebuilt), ..Verified::default() };
    let names: std::collections::BTreeSet<_> = then.files.keys().chain(rebuilt.files.keys()).collect();
    for name in names {
        let how = match (then.files.get(name), rebuilt.files.get(name)) {
            (Some(a), Some(b)) if a.sha256 == b.sha256 => continue,
            (Some(a), Some(b))
                if a.sha256_uncompressed.is_some() && a.sha256_uncompressed == b.sha256_uncompressed =>
            {
                "the same contents, compressed otherwise".to_owned()
            }
            (Some(a), Some(b)) => format!("was {}, is {}", inputs::short(a.sha256), inputs::short(b.sha256)),
            (Some(_), None) => "is not made now".to_owned(),
            (None, _) => "was not made then".to_owned(),
        };
        found.differences.push(Difference { what: name.clone(), how });
    }
    let differs = |a: &Manifest, b: &Manifest| {
        let contents = |m: &Manifest| m.files.get(ROOTFS).map(|file| file.sha256_uncompressed);
        contents(a) != contents(b)
    };
    if let Some(archives) = archives.filter(|dir| dir.join(ROOTFS).exists() && differs(then, rebuilt)) {
        let (then, now) = (entries(&archives.join(ROOTFS))?, entries(&now.join(ROOTFS))?);
        found.differences.extend(compare(&then, &now));
    }
    Ok(found)
}

/// What explains differences.
fn causes(then: &Manifest, now: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    let rules = |m: &Manifest| m.inputs.as_ref().and_then(|inputs| inputs.settings.get("builder").cloned());
    if rules(then) != rules(now) {
        let (then, now) = (rules(then).unwrap_or_default(), rules(now).unwrap_or_default());
        found.push(Difference { what: "builder".into(), how: format!("was {then}, is {now}") });
    }
    let packages = |m: &Manifest| -> BTreeMap<(String, String), (String, Option<Sha256Digest>)> {
        let key = |p: &millstream_image::manifest::Package| (p.name.clone(), p.architecture.clone());
        m.packages.iter().map(|p| (key(p), (p.version.clone(), p.sha256))).collect()
    };
    let (then, now) = (packages(then), packages(now));
    let mut differ = |name: &str, how: String| {
        found.push(Difference { what: format!("package {name}"), how });
    };
    for (key, (version, sha256)) in &then {
        match now.get(key) {
            None => differ(&key.0, format!("{version} is not installed now")),
            Some((other, _)) if other != version => {
                differ(
                    &key.0,
                    format!(
                        "{version} is neither at the mirror nor in the cache any more, {other} was taken"
                    ),
                );
            }
            Some((_, other)) if sha256.is_some() && other.is_some() && other != sha256 => {
                differ(&key.0, format!("{version} has another file now"));
            }
            Some(_) => {}
        }
    }
    for (key, (version, _)) in now.iter().filter(|(key, _)| !then.contains_key(*key)) {
        differ(&key.0, format!("{version} was not installed then"));
    }
    found
}

type Entries = BTreeMap<Vec<u8>, (Entry, Sha256Digest)>;

/// Every entry of an archive with the digest of its data.
fn entries(archive: &Path) -> Result<Entries> {
    let limits = Limits::default();
    let file = File::open(archive).map_err(Error::io(archive))?;
    let mut reader = Reader::new(decoder(file, &limits)?, &limits);
    let mut found = Entries::new();
    while let Some(entry) = reader.next_entry()? {
        let data = Data { reader: &mut reader };
        let (digest, _) = Sha256Digest::of_reader(data).map_err(Error::io(archive))?;
        found.insert(entry.path.clone(), (entry, digest));
    }
    Ok(found)
}

struct Data<'r, R> {
    reader: &'r mut Reader<R>,
}

impl<R: std::io::Read> std::io::Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.data(buffer).map_err(std::io::Error::other)
    }
}

fn compare(then: &Entries, now: &Entries) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |path: &[u8], how: &str| {
        let what = format!("rootfs/{}", String::from_utf8_lossy(path).escape_debug());
        found.push(Difference { what, how: how.to_owned() });
    };
    for (path, (entry, data)) in then {
        let Some((other, other_data)) = now.get(path) else {
            differ(path, "is not there now");
            continue;
        };
        let aspects = [
            ("kind or target", entry.kind == other.kind),
            ("contents", data == other_data),
            ("mode", entry.mode == other.mode),
            ("owner", (entry.uid, entry.gid) == (other.uid, other.gid)),
            ("time", (entry.mtime, entry.mtime_nanos) == (other.mtime, other.mtime_nanos)),
            ("attributes", entry.xattrs == other.xattrs),
        ];
        let differing: Vec<_> = aspects.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        if !differing.is_empty() {
            differ(path, &format!("other {}", differing.join(", ")));
        }
    }
    for path in now.keys().filter(|path| !then.contains_key(*path)) {
        differ(path, "was not there then");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_image::archive::Kind;

    #[test]
    fn differing_entries_are_named_with_what_differs() {
        let entry = |mode: u32| Entry {
            path: b"a".to_vec(),
            kind: Kind::File,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nanos: 0,
            size: 1,
            xattrs: Vec::new(),
        };
        let one =
            |mode: u32, data: &[u8]| Entries::from([(b"a".to_vec(), (entry(mode), Sha256Digest::of(data)))]);
        assert!(compare(&one(1, b"x"), &one(1, b"x")).is_empty());
        let found = compare(&one(1, b"x"), &one(2, b"y"));
        assert_eq!(found[0].to_string(), "rootfs/a: other contents, mode");
        assert_eq!(compare(&one(1, b"x"), &Entries::new())[0].how, "is not there now");
        assert_eq!(compare(&Entries::new(), &one(1, b"x"))[0].how, "was not there then");
    }
}
