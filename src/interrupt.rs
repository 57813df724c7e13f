//! Ctrl-C: the first asks what is under way to stop and clean up.

use millstream_runtime::CancelToken;
use nix::sys::signal::{SigSet, Signal};

/// A token that SIGINT and SIGTERM cancel.
pub fn token() -> anyhow::Result<CancelToken> {
    let token = CancelToken::new();
    let cancelled = token.clone();
    ctrlc::set_handler(move || cancelled.cancel())?;
    Ok(token)
}

/// Keeps the same signals from ending this process, for one that waits for another which they go to, too.
/// Without a thread, and what is started has none of it.
pub fn hold_back() -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    Ok(signals.thread_block()?)
}
