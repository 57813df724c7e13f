//! A bound on bytes a second, shared by all downloads of a client.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(super) struct Rate {
    /// Bytes a second.
    limit: u64,
    /// Until when the bytes that came are paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: limit.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may have come.
    pub(super) async fn spend(&self, bytes: u64) {
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            // Time in which nothing was asked for is not saved up.
            *paid = (*paid).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.limit as f64);
            *paid
        };
        sleep_until(until).await;
    }
}
