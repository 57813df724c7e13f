//! What the commands around images share: the client of this user, and a place for it to run.

use anyhow::Context;
use millstream_client::{Client, ClientConfig};

use crate::paths::Paths;

/// The client with this user's paths.
pub fn open() -> Client {
    let paths = Paths::from_env();
    let mut config = ClientConfig::new(&paths.config, &paths.data, &paths.cache);
    config.store = paths.store();
    Client::new(config)
}

/// Runs a client's work to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    Ok(runtime.context("cannot start the network's threads")?.block_on(work))
}
