//! A stream tree as a reader sees it: paths that cannot leave it, and the two ways to it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use millstream_image::digest::{CappedReader, HashingWriter};
use millstream_image::{Sha256Digest, atomic};
use tokio::task::spawn_blocking;

use crate::arriving::{Published, Publisher};
use crate::http::{self, HttpClient, Source, Wanted};
use crate::{Error, Progress, Result};

const MAX_PATH: usize = 1024;

/// A path inside a stream tree: relative, without `.`, `..` and empty parts, and of characters
/// that mean themselves in a URL. So joined to a root it stays below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TreePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"\\?#%".contains(&b);
        let part = |part: &str| !matches!(part, "" | "." | "..");
        // Servers of the field have colons in the names of builds; in the first part one would make
        // it a URL.
        let scheme = text.split('/').next().is_some_and(|first| first.contains(':'));
        if text.len() <= MAX_PATH && text.bytes().all(plain) && text.split('/').all(part) && !scheme {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(Error::name(&shown, "not a path inside the tree; refused"))
    }
}

/// Where a tree is.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// Behind a web server; the URL ends in `/`. Files may also come from mirrors.
    Http { client: HttpClient, base: String, mirrors: Vec<(HttpClient, String)> },
    /// A directory here.
    Directory(PathBuf),
}

impl Tree {
    /// How a file of the tree is named in messages.
    pub(crate) fn url(&self, path: &TreePath) -> String {
        match self {
            Self::Http { base, .. } => format!("{base}{path}"),
            Self::Directory(root) => root.join(path.as_str()).display().to_string(),
        }
    }

    /// How the tree itself is named in messages.
    pub(crate) fn base(&self) -> String {
        match self {
            Self::Http { base, .. } => base.clone(),
            Self::Directory(root) => root.display().to_string(),
        }
    }

    /// Reads a document of at most `cap` bytes.
    pub(crate) async fn document(&self, path: &TreePath, cap: u64) -> Result<Vec<u8>> {
        match self {
            Self::Http { client, .. } => client.document(&self.url(path), cap).await,
            Self::Directory(root) => {
                let file = root.join(path.as_str());
                let read = move || {
                    let mut bytes = Vec::new();
                    let result =
                        File::open(&file).and_then(|f| CappedReader::new(f, cap).read_to_end(&mut bytes));
                    result.map(|_| bytes).map_err(Error::io(&file))
                };
                spawn_blocking(read).await.map_err(|e| Error::Setup(e.to_string()))?
            }
        }
    }

    /// Brings a file of at most `cap` bytes to `dest`, of which nobody has stated size and hash. After
    /// an error there may be a part of it.
    pub(crate) async fn download_unstated(
        &self,
        path: &TreePath,
        dest: &Path,
        cap: u64,
        publisher: Option<&Publisher>,
        progress: &dyn Progress,
    ) -> Result<()> {
        match self {
            Self::Http { client, .. } => {
                client.fetch_for(&self.url(path), dest, cap, publisher, progress).await.map(drop)
            }
            Self::Directory(root) => {
                let (from, to) = (root.join(path.as_str()), dest.to_owned());
                let copied = spawn_blocking(move || copy_unstated(&from, &to, cap)).await;
                copied.map_err(|e| Error::Setup(e.to_string()))??;
                // It came in one go.
                if let Some(publisher) = publisher {
                    let file = File::open(dest).map_err(Error::io(dest))?;
                    let size = file.metadata().map_err(Error::io(dest))?.len();
                    publisher.begin(file);
                    publisher.have(size);
                }
                Ok(())
            }
        }
    }

    /// Brings a file to `dest`, complete and checked, or not at all. `publisher` lets somebody read it
    /// while it comes.
    pub(crate) async fn download(
        &self,
        path: &TreePath,
        dest: &Path,
        (size, sha256): (u64, Sha256Digest),
        publisher: Option<Publisher>,
        progress: &dyn Progress,
    ) -> Result<()> {
        match self {
            Self::Http { client, base, mirrors } => {
                let source = |(http, base): (&HttpClient, &String)| Source {
                    http: http.clone(),
                    url: format!("{base}{path}"),
                };
                let mirrors = mirrors.iter().map(|(client, base)| (client, base));
                let sources: Vec<_> = std::iter::once((client, base)).chain(mirrors).map(source).collect();
                http::download(&sources, &Wanted { dest, size, sha256 }, publisher, progress).await
            }
            Self::Directory(root) => {
                let name = path.file_name();
                progress.begin(name, Some(size));
                let (from, to) = (root.join(path.as_str()), dest.to_owned());
                let result = spawn_blocking(move || copy(&from, &to, size, sha256, publisher.as_ref())).await;
                let result = result.map_err(|e| Error::Setup(e.to_string())).and_then(|result| result);
                if result.is_ok() {
                    progress.advance(name, size);
                }
                progress.end(name);
                result
            }
        }
    }
}

/// Copies a file of at most `cap` bytes.
fn copy_unstated(from: &Path, to: &Path, cap: u64) -> Result<()> {
    let source = File::open(from).map_err(Error::io(from))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::NamedTempFile::new_in(dir).map_err(Error::io(dir))?;
    io::copy(&mut CappedReader::new(source, cap), &mut temp).map_err(Error::io(from))?;
    temp.as_file().sync_all().map_err(Error::io(to))?;
    temp.persist(to).map_err(|e| Error::io(to)(e.error))?;
    Ok(())
}

/// Copies a file of this size and hash.
fn copy(
    from: &Path,
    to: &Path,
    size: u64,
    sha256: Sha256Digest,
    publisher: Option<&Publisher>,
) -> Result<()> {
    let source = File::open(from).map_err(Error::io(from))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    let temp = tempfile::NamedTempFile::new_in(dir).map_err(Error::io(dir))?;
    let file = temp.reopen().map_err(Error::io(dir))?;
    let mut out = HashingWriter::new(Published::new(file, publisher).map_err(Error::io(dir))?);
    let copied = io::copy(&mut CappedReader::new(source, size), &mut out);
    let wrong = |reason: String| Error::mismatch(from.display().to_string(), reason);
    match copied {
        Ok(found) if found == size => {}
        Ok(found) => return Err(wrong(format!("it is {found} bytes, stated are {size}"))),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(wrong(e.to_string())),
        Err(e) => return Err(Error::io(to)(e)),
    }
    out.flush().map_err(Error::io(to))?;
    let (_, found, _) = out.finish();
    if found != sha256 {
        return Err(wrong(format!("SHA-256 is {found}, expected {sha256}")));
    }
    if let Some(publisher) = publisher {
        publisher.right();
    }
    temp.as_file().sync_all().map_err(Error::io(to))?;
    temp.persist(to).map_err(|e| Error::io(to)(e.error))?;
    Ok(atomic::sync_dir(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_tree() {
        assert!(
            "images/debian/bookworm/amd64/default/20260101_0000/rootfs.tar.xz".parse::<TreePath>().is_ok()
        );
        assert!("images/a/20260101_05:12/rootfs.tar.xz".parse::<TreePath>().is_ok());
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "http://example.org/x",
            "file:///etc/passwd",
            "a\\..\\b",
            "a/%2e%2e/b",
            "a:b/c",
            "a?b",
            "a#b",
            "a b",
            "a\n",
            "ä",
            &"a/".repeat(600),
        ] {
            assert!(bad.parse::<TreePath>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_parses_stays_below_its_root(text in "[a./%\\\\:~]{0,12}") {
            if let Ok(path) = text.parse::<TreePath>() {
                let url = url::Url::parse("http://h/root/").unwrap().join(path.as_str()).unwrap();
                proptest::prop_assert!(url.as_str().starts_with("http://h/root/"), "{url}");
                proptest::prop_assert!(Path::new("/root").join(path.as_str()).components()
                    .all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
