//! What is done when a server fails.

use std::time::{Duration, SystemTime};

/// How failures that may pass are met: each pause is three times the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries without progress before an error is final; at least one.
    pub tries: u32,
    /// The first pause.
    pub pause: Duration,
}

impl Default for Retry {
    /// Four tries, the first pause 0.3 seconds.
    fn default() -> Self {
        Self { tries: 4, pause: Duration::from_millis(300) }
    }
}

/// Waits longer after each failure, and gives up after some.
#[derive(Debug)]
pub struct BackOff {
    retry: Retry,
    failures: u32,
}

impl BackOff {
    /// Begins without a failure.
    pub fn new(retry: Retry) -> Self {
        Self { retry, failures: 0 }
    }

    /// Waits before the next try; after the last one returns `error`. Up to a quarter of jitter
    /// keeps clients that failed together from coming back together.
    pub async fn pause_or<E>(&mut self, error: E) -> Result<(), E> {
        self.failures += 1;
        if self.failures >= self.retry.tries {
            return Err(error);
        }
        let pause = self.retry.pause * 3_u32.saturating_pow(self.failures - 1);
        let noise = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        tokio::time::sleep(pause + pause / 4 * (noise.subsec_micros() % 100) / 100).await;
        Ok(())
    }
}
