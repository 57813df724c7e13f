//! Work that is done some at a time.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

/// So many things are done at a time that wait for the disk.
const WORKERS: usize = 4;

/// What a thread of a scope came to; its panic is the caller's.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Does something to each that comes, some at a time, as each waits for the disk; meanwhile `beside`, whose
/// answer is returned.
///
/// # Errors
/// The first of either.
pub(super) fn each<T: Send, R, E: Send>(
    all: Receiver<T>,
    work: impl Fn(T) -> Result<(), E> + Sync,
    beside: impl FnOnce() -> Result<R, E>,
) -> Result<R, E> {
    let all = Mutex::new(all);
    // Who waits for the next holds the lock, so that the others wait as well.
    let next = || all.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let work = || {
        while let Ok(one) = next() {
            work(one)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let done = beside();
        // Every thread is waited for.
        let ended: Vec<_> = workers.into_iter().map(joined).collect();
        ended.into_iter().collect::<Result<(), E>>()?;
        done
    })
}

/// What is there already, for [`each`].
pub(super) fn queue<T>(all: impl IntoIterator<Item = T>) -> Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    // The receiver is here, so that none is refused.
    all.into_iter().for_each(|one| drop(sender.send(one)));
    receiver
}
