//! A file while it still comes: who unpacks it reads what is there already, and waits for the rest.
//!
//! The reader gets to the file's end only when its hash has proved right. When the download fails, is
//! given up, or begins again, reading fails, so that whatever was made of the bytes goes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use millstream_image::Fingerprint;
use tokio::sync::Notify;

/// Takes the root file system of an image while it comes, on a thread of its own. What it makes of
/// that must stay out of sight until the fetch has succeeded.
pub type Sink = Box<dyn FnOnce(Fingerprint, Arriving) + Send>;

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    have: u64,
    /// How often the file was begun anew.
    restarts: u32,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Right,
    Failed,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The same for readers that do not block.
    told: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file that still comes. Blocks.
#[derive(Debug)]
pub struct Arriving {
    shared: Arc<Shared>,
    at: u64,
    restarts: u32,
}

impl Arriving {
    /// Another reader of the same file, from its beginning.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), at: 0, restarts: 0 }
    }

    /// The next bytes of a file of `size`, at most `most`, without blocking; none at its end. The
    /// last byte comes only when the hash of all has proved right, so a wrong file never is complete.
    ///
    /// # Errors
    /// As reading does.
    pub async fn next(&mut self, most: usize, size: u64) -> io::Result<Vec<u8>> {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut told = std::pin::pin!(shared.told.notified());
            told.as_mut().enable();
            if let Some((file, count)) = self.ready(size)? {
                let (at, count) = (self.at, most.min(usize::try_from(count).unwrap_or(most)));
                let Some(file) = file else { return Ok(Vec::new()) };
                let read = move || {
                    let mut bytes = vec![0; count];
                    file.read_exact_at(&mut bytes, at).map(|()| bytes)
                };
                let bytes = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
                self.at += bytes.len() as u64;
                return Ok(bytes);
            }
            told.await;
        }
    }

    /// The file and how many more bytes of it may be read; no file at the end, nothing when more is to
    /// come.
    fn ready(&mut self, size: u64) -> io::Result<Option<(Option<Arc<File>>, u64)>> {
        let state = self.shared.state();
        if state.restarts != self.restarts {
            if self.at > 0 {
                return Err(io::Error::other("the download began anew"));
            }
            self.restarts = state.restarts;
        }
        let have = match state.end {
            Some(End::Failed) => return Err(io::Error::other("the download failed")),
            Some(End::Right) => state.have,
            None => state.have.min(size.saturating_sub(1)),
        };
        let ready = have.saturating_sub(self.at);
        Ok(match (&state.file, state.end) {
            (Some(file), _) if ready > 0 => Some((Some(Arc::clone(file)), ready)),
            (_, Some(_)) => Some((None, 0)),
            _ => None,
        })
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        loop {
            if state.restarts != self.restarts {
                if self.at > 0 {
                    return Err(io::Error::other("the download began anew"));
                }
                self.restarts = state.restarts;
            }
            if state.end == Some(End::Failed) {
                return Err(io::Error::other("the download failed"));
            }
            let ready = state.have.saturating_sub(self.at);
            if let Some(file) = state.file.clone().filter(|_| ready > 0) {
                drop(state);
                let count = buffer.len().min(usize::try_from(ready).unwrap_or(usize::MAX));
                let count = file.read_at(&mut buffer[..count], self.at)?;
                if count == 0 && !buffer.is_empty() {
                    return Err(io::Error::other("the download began anew"));
                }
                self.at += count as u64;
                return Ok(count);
            }
            if state.end.is_some() {
                return Ok(0);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells readers how far a file has come. Dropped before [`Publisher::right`], it ends their reading
/// with an error.
#[derive(Debug)]
pub struct Publisher(Arc<Shared>);

/// The two ends of a file that is about to come.
pub fn pair() -> (Publisher, Arriving) {
    let shared = Arc::<Shared>::default();
    (Publisher(shared.clone()), Arriving { shared, at: 0, restarts: 0 })
}

impl Publisher {
    /// Says in which file the bytes gather. Another one begins anew.
    pub(crate) fn begin(&self, file: File) {
        self.change(|state| {
            if state.file.replace(Arc::new(file)).is_some() {
                state.restarts += 1;
            }
            state.have = 0;
        });
    }

    /// So many bytes are in the file.
    pub(crate) fn have(&self, bytes: u64) {
        self.change(|state| state.have = bytes);
    }

    /// All of it was thrown away.
    pub(crate) fn restart(&self) {
        self.change(|state| {
            state.restarts += 1;
            state.have = 0;
        });
    }

    /// The file is complete, and what it should be.
    pub(crate) fn right(&self) {
        self.change(|state| state.end = state.end.or(Some(End::Right)));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state());
        self.0.changed.notify_all();
        self.0.told.notify_waiters();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.change(|state| state.end = state.end.or(Some(End::Failed)));
    }
}

/// Writes a file that others read meanwhile.
pub(crate) struct Published<'a> {
    file: File,
    have: u64,
    to: Option<&'a Publisher>,
}

impl<'a> Published<'a> {
    /// Writes from the beginning of a file.
    pub(crate) fn new(file: File, to: Option<&'a Publisher>) -> io::Result<Self> {
        if let Some(to) = to {
            to.begin(file.try_clone()?);
        }
        Ok(Self { file, have: 0, to })
    }
}

impl Write for Published<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.file.write(data)?;
        self.have += count as u64;
        if let Some(to) = self.to {
            to.have(self.have);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut arriving: Arriving) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            arriving.read_to_end(&mut bytes).map(|_| bytes)
        })
    }

    #[test]
    fn readers_see_all_of_what_proved_right_and_fail_otherwise() {
        let file = || tempfile::tempfile().unwrap();
        let (publisher, arriving) = pair();
        let reader = read(arriving);
        // Begun anew before anything was read: no harm.
        publisher.begin(file());
        publisher.restart();
        let mut out = Published::new(file(), Some(&publisher)).unwrap();
        out.write_all(b"one ").unwrap();
        out.write_all(b"two").unwrap();
        publisher.right();
        drop(publisher);
        assert_eq!(reader.join().unwrap().unwrap(), b"one two");

        // Given up.
        let (publisher, arriving) = pair();
        let reader = read(arriving);
        Published::new(file(), Some(&publisher)).unwrap().write_all(b"one").unwrap();
        drop(publisher);
        assert!(reader.join().unwrap().is_err());

        // Without blocking: all but the last byte, until the file has proved right.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (publisher, mut arriving) = pair();
            Published::new(file(), Some(&publisher)).unwrap().write_all(b"one").unwrap();
            assert_eq!(arriving.next(9, 3).await.unwrap(), b"on");
            let early = tokio::time::timeout(std::time::Duration::from_millis(50), arriving.next(9, 3));
            assert!(early.await.is_err());
            let mut other = arriving.again();
            publisher.right();
            assert_eq!(arriving.next(9, 3).await.unwrap(), b"e");
            assert_eq!(arriving.next(9, 3).await.unwrap(), b"");
            assert_eq!(other.next(9, 3).await.unwrap(), b"one");
        });

        // Begun anew after something was read.
        let (publisher, mut arriving) = pair();
        Published::new(file(), Some(&publisher)).unwrap().write_all(b"one").unwrap();
        assert_eq!(arriving.read(&mut [0; 2]).unwrap(), 2);
        publisher.restart();
        publisher.right();
        assert!(arriving.read(&mut [0; 2]).is_err());
    }
}
