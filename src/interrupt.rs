//! Ctrl-C: the first asks what is under way to stop and clean up.

use millstream_runtime::CancelToken;

/// A token that SIGINT and SIGTERM cancel.
pub fn token() -> anyhow::Result<CancelToken> {
    let token = CancelToken::new();
    let cancelled = token.clone();
    ctrlc::set_handler(move || cancelled.cancel())?;
    Ok(token)
}
