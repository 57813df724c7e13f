//! How far long work has come, for whoever shows it.

/// Told of every download; called from several threads.
pub trait Progress: Send + Sync {
    /// Bytes are about to come, `total` of them when that is known.
    fn begin(&self, name: &str, total: Option<u64>);
    /// So many more bytes have come.
    fn advance(&self, name: &str, bytes: u64);
    /// That was all.
    fn end(&self, name: &str);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn end(&self, _: &str) {}
}
