//! What the commands around images share: the client of this user, and a place for it to run.

use anyhow::Context;
use millstream_client::{Client, ClientConfig};
use millstream_runtime::Runtime;
use millstream_runtime::container::become_root;

use crate::paths::Paths;

/// The client with this user's paths.
pub fn open() -> Client {
    let paths = Paths::from_env();
    let mut config = ClientConfig::new(&paths.config, &paths.data, &paths.cache);
    config.store = paths.store();
    config.shared = Paths::shared_store();
    Client::new(config)
}

/// The containers, as whoever may change their images; none: there are none.
pub fn containers() -> anyhow::Result<Option<Runtime>> {
    let directory = Paths::from_env().containers();
    if !directory.exists() {
        return Ok(None);
    }
    become_root(&directory)?;
    Ok(Some(Runtime::open(&directory)?))
}

/// Runs a client's work to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    Ok(runtime.context("cannot start the network's threads")?.block_on(work))
}
