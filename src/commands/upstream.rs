//! What `millstream serve --upstream` adds to serving.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_client::HttpOptions;
use millstream_server::config;
use millstream_server::mirror::Filter;
use millstream_server::pull::{Options, Pull};

use crate::cli::client::Reach;
use crate::cli::server::Signing;
use crate::cli::upstream as cli;
use crate::commands::{mirror, stream};
use crate::output::say;
use crate::paths::Paths;

/// The upstream of the command line, else that of the configuration.
fn wanted(command: &cli::Pull, configured: Option<config::Upstream>) -> Option<config::Upstream> {
    let Some(url) = command.upstream.clone() else {
        let cache_size = command.cache_size;
        return configured.map(|c| config::Upstream { cache_size: cache_size.or(c.cache_size), ..c });
    };
    Some(config::Upstream {
        url,
        key: command.upstream_key.clone(),
        ca: command.upstream_ca.clone(),
        insecure_no_signature: command.upstream_insecure_no_signature,
        cache_size: command.cache_size,
    })
}

/// Makes ready to pull into `root`. Must not run inside a runtime: a key offered may be asked for.
pub fn open(
    command: &cli::Pull,
    configured: Option<config::Upstream>,
    root: &Path,
    quiet: bool,
) -> anyhow::Result<Option<Arc<Pull>>> {
    let Some(upstream) = wanted(command, configured) else { return Ok(None) };
    let reach = Reach::default();
    let server = mirror::server(
        &mirror::From {
            url: &upstream.url,
            key: upstream.key.as_deref(),
            ca: upstream.ca.as_deref(),
            insecure: upstream.insecure_no_signature,
            reach: &reach,
        },
        quiet,
    )?;
    let (stream, key) = stream::open_or_init(root, &Signing { key: None, valid: None }, quiet)?;
    let state: PathBuf = Paths::from_env().data.join("upstream");
    let options = Options {
        upstream: server,
        filter: Filter::default(),
        http: HttpOptions::default(),
        state,
        cache_size: upstream.cache_size,
        key,
        say: Arc::new(|text| say(false, text)),
    };
    Ok(Some(Pull::open(stream, options)?))
}

/// Reads upstream for the first time. Without it, what came before is served.
///
/// # Errors
/// When nothing did.
pub async fn begin(pull: &Arc<Pull>) -> anyhow::Result<()> {
    match pull.refresh().await {
        Err(error) if pull.is_filled() => say(false, &format!("upstream: {error}; serving what is here")),
        refreshed => refreshed?,
    }
    Ok(())
}
