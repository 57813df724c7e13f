//! Opens files below a root, and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::access::CurrentAreas;
use super::conditional::Validators;
use super::metrics::Metrics;
use super::offer::Offers;
use super::rates::Rates;
use super::shared;
use super::zipped::Zipped;
use crate::daily::History;
use crate::pull::Pull;
use crate::push::Push;
use crate::shared::Reader;
use crate::{Error, Result};

/// A tree that is served. Its root is opened anew for each request, so that a tree put in its
/// place is the one that is served.
pub(super) struct Site {
    root: PathBuf,
    /// Instead of a tree on this machine.
    shared: Option<Arc<Reader>>,
}

/// What requests are answered from.
pub(super) struct Served {
    pub(super) site: Site,
    pub(super) offers: Offers,
    pub(super) zipped: Zipped,
    pub(super) metrics: Metrics,
    /// What was built, where this server builds.
    pub(super) history: Option<Arc<History>>,
    pub(super) areas: CurrentAreas,
    pub(super) rates: Arc<Rates>,
    /// Where files come from that are not here yet.
    pub(super) pull: Option<Arc<Pull>>,
    /// What takes pushes.
    pub(super) push: Option<Arc<Push>>,
}

/// A file of it.
pub(super) struct Opened {
    /// Open for reading.
    pub(super) file: File,
    /// Bytes.
    pub(super) size: u64,
    /// Which state of it this is.
    pub(super) validators: Validators,
}

/// Whether one may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Yes; the thread is there for that.
    Allowed,
    /// No: what the kernel does not hold in memory is [`io::ErrorKind::WouldBlock`].
    Never,
}

impl Site {
    /// # Errors
    /// When there is no such directory, or it holds no stream.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let site = Self { root: path.to_path_buf(), shared: None };
        site.root(ResolveFlags::empty()).map_err(Error::io(path))?;
        match site.open("streams/v1/index.json") {
            Ok(Some(_)) => Ok(site),
            Ok(None) => {
                let reason =
                    format!("not a stream; make it one with: millstream stream init {}", path.display());
                Err(Error::tree(path, reason))
            }
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// What a storage holds, of which [`Reader::check`] says that it is a stream.
    pub(super) fn shared(reader: Arc<Reader>) -> Self {
        Self { root: reader.name().into(), shared: Some(reader) }
    }

    /// Where the files of images come from, if not from a tree on this machine.
    pub(super) fn reader(&self) -> Option<&Arc<Reader>> {
        self.shared.as_ref()
    }

    /// The root, as it was given.
    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    fn root(&self, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(CWD, &self.root, flags, Mode::empty(), resolve)?)
    }

    /// Opens a plain file; `None` when there is none by that name below the root. Links are
    /// followed, but never out of the tree. May block.
    pub(super) fn open(&self, path: &str) -> io::Result<Option<Opened>> {
        self.open_within(path, Wait::Allowed)
    }

    /// As [`Site::open`]; may block only if so said.
    pub(super) fn open_within(&self, path: &str, wait: Wait) -> io::Result<Option<Opened>> {
        if let Some(reader) = &self.shared {
            return match wait {
                Wait::Allowed => shared::open(reader, path),
                Wait::Never => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let cached = if wait == Wait::Never { ResolveFlags::CACHED } else { ResolveFlags::empty() };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | cached;
        let root = self.root(cached).map_err(|error| self.named("", &error))?;
        let fd = loop {
            match openat2(&root, path, flags, Mode::empty(), resolve) {
                Ok(fd) => break fd,
                Err(Errno::AGAIN) if wait == Wait::Never => return Err(io::ErrorKind::WouldBlock.into()),
                // Something was renamed meanwhile, and the kernel could not tell where it is.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
                    return Ok(None);
                }
                Err(errno) => return Err(self.named(path, &errno.into())),
            }
        };
        let file = File::from(fd);
        let meta = file.metadata().map_err(|error| self.named(path, &error))?;
        if !meta.is_file() {
            return Ok(None);
        }
        // Files are replaced by renaming and never rewritten, so these three name one state.
        let etag =
            format!("\"{:x}-{:x}{:08x}-{:x}\"", meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Some(Opened { file, size: meta.len(), validators: Validators { etag, modified } }))
    }

    fn named(&self, path: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.root.join(path).display()))
    }
}
