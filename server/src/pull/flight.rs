//! Downloads under way: one a file, for all who wait for it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use millstream_client::{Arriving, Publisher, arriving};
use millstream_image::atomic;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::Pull;
use super::table::Expected;
use crate::{Error, Result};

/// A file that comes.
pub(crate) struct Following {
    /// Reads it from its beginning.
    pub(crate) arriving: Arriving,
    /// Bytes.
    pub(crate) size: u64,
    /// Closed when it is in the tree, or the download has failed.
    over: watch::Receiver<()>,
}

impl Following {
    /// Waits until the file is in the tree, or will not come.
    pub(crate) async fn over(mut self) {
        while self.over.changed().await.is_ok() {}
    }
}

struct Flight {
    file: Expected,
    arriving: Arriving,
    over: watch::Receiver<()>,
}

/// By path in the tree.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<String, Flight>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all files on their way, and the files' digests.
    pub(super) fn coming(&self) -> (u64, Vec<String>) {
        let flights = self.lock();
        let sizes = flights.values().map(|flight| flight.file.size);
        (sizes.sum(), flights.values().map(|flight| flight.file.sha256.to_string()).collect())
    }
}

impl Pull {
    /// How large a file of upstream's is.
    pub(crate) fn size(&self, path: &str) -> Option<u64> {
        self.expected(path).map(|file| file.size)
    }

    /// Joins the download of a file, which begins with the first who asks and goes on without them.
    /// `None` when upstream has no such file, or it is in the tree by now.
    pub(crate) fn follow(self: &Arc<Self>, path: &str) -> Option<Following> {
        let file = self.expected(path)?;
        let mut flights = self.flights.lock();
        if let Some(Flight { file, arriving, over }) = flights.get(path) {
            return Some(Following { arriving: arriving.again(), size: file.size, over: over.clone() });
        }
        // Flights leave the list after their file has come to its place.
        if self.root().join(path).exists() {
            return None;
        }
        let (publisher, arriving) = arriving();
        let (ended, over) = watch::channel(());
        let following = Following { arriving: arriving.again(), size: file.size, over: over.clone() };
        flights.insert(path.to_owned(), Flight { file: file.clone(), arriving, over });
        drop(flights);
        let (this, path) = (Arc::clone(self), path.to_owned());
        tokio::spawn(async move {
            let landing = Landing { pull: &this, path: &path, _ended: ended };
            if let Err(error) = this.bring(&path, &file, publisher).await {
                this.say(&format!("{path}: {error}"));
            }
            drop(landing);
        });
        Some(following)
    }

    async fn bring(self: &Arc<Self>, path: &str, file: &Expected, publisher: Publisher) -> Result<()> {
        let joined = |e: tokio::task::JoinError| Error::tree(self.root(), e.to_string());
        let this = Arc::clone(self);
        spawn_blocking(move || this.make_room()).await.map_err(joined)??;
        let gathered = self.gathering(file.sha256);
        self.upstream().await?.fetch_for(&file.remote()?, &gathered, publisher).await?;
        let place = self.root().join(path);
        spawn_blocking(move || settle(&gathered, &place)).await.map_err(joined)?
    }
}

/// Takes a flight off the list however it ends.
struct Landing<'a> {
    pull: &'a Pull,
    path: &'a str,
    _ended: watch::Sender<()>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.pull.flights.lock().remove(self.path);
    }
}

/// Brings a complete file to its place in the tree; it was asked for now.
fn settle(gathered: &Path, place: &Path) -> Result<()> {
    let dir = place.parent().unwrap_or(place);
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(Error::io(dir))?;
    fs::set_permissions(gathered, Permissions::from_mode(0o644)).map_err(Error::io(gathered))?;
    let now = FileTimes::new().set_accessed(SystemTime::now());
    File::open(gathered).and_then(|file| file.set_times(now)).map_err(Error::io(gathered))?;
    atomic::rename(gathered, place).map_err(Error::image(place))
}
