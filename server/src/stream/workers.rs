//! Work that is done some at a time.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

/// So many things are done at a time that wait for the disk.
const WORKERS: usize = 4;

/// What a thread of a scope came to; its panic is the caller's.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Does something to each, some at a time, as each waits for the disk; meanwhile `beside`.
///
/// # Errors
/// The first of either.
pub(super) fn each<T: Sync, E: Send>(
    all: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
    beside: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(one)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(all.len())).map(|_| scope.spawn(work)).collect();
        let done = beside();
        // Every thread is waited for.
        let ended: Vec<_> = workers.into_iter().map(joined).collect();
        ended.into_iter().chain([done]).collect()
    })
}
