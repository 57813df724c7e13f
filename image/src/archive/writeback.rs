//! Brings files to disk while more of them are unpacked, so that little is left at the end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::fs;

/// Bytes written before the disk is set to work.
const PORTION: u64 = 48 << 20;

/// Syncs a file system now and then, on a thread of its own.
pub(super) struct WriteBack<'scope> {
    root: OwnedFd,
    begin: SyncSender<()>,
    worker: ScopedJoinHandle<'scope, io::Result<()>>,
    written: u64,
}

impl<'scope> WriteBack<'scope> {
    /// Of the file system that holds `root`.
    pub(super) fn new<'env>(scope: &'scope Scope<'scope, 'env>, root: BorrowedFd<'_>) -> io::Result<Self> {
        let (begin, portions) = sync_channel(1);
        // One open file for both: an error of the disk is told to the first who syncs.
        let (root, shared) = (root.try_clone_to_owned()?, root.try_clone_to_owned()?);
        let worker = scope.spawn(move || portions.iter().try_for_each(|()| Ok(fs::syncfs(&shared)?)));
        Ok(Self { root, begin, worker, written: 0 })
    }

    /// Notes so many bytes. Never waits: a disk that is still busy is left alone.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        if self.written >= PORTION {
            self.written = 0;
            let _ = self.begin.try_send(());
        }
    }

    /// Waits until everything is on disk.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.begin);
        self.worker.join().map_err(|_| io::Error::other("the thread that syncs died"))??;
        Ok(fs::syncfs(self.root.as_fd())?)
    }
}
