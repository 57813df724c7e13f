//! What was built goes to another server as well.

use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_client::{Access, NoProgress};
use millstream_runtime::CancelToken;

use crate::config::PushTo;
use crate::push::client::{Pushed, Pusher, RETRY};
use crate::{Error, Result};

/// How often it is asked whether to stop.
const TICK: Duration = Duration::from_millis(200);

/// Pushes the image in `dir`. What the server has already costs it nothing, so this may be repeated until
/// it works.
pub(super) fn push(to: &PushTo, dir: &Path, cancel: &CancelToken) -> Result<Pushed> {
    let ca = to.ca.as_ref().map(|path| fs::read_to_string(path).map_err(Error::io(path))).transpose()?;
    let access = Access {
        proxy: to.proxy.clone(),
        client_certificate: to.client_certificate.clone(),
        token: to.token_file.clone(),
        ..Access::default()
    };
    let pusher = Pusher::new(&to.url, ca.as_ref(), &access, RETRY)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let cancelled = async {
        while !cancel.is_cancelled() {
            tokio::time::sleep(TICK).await;
        }
        Err(Error::Push { url: to.url.clone(), reason: "stopped; the next run goes on with it".into() })
    };
    runtime.map_err(Error::io(dir))?.block_on(async {
        tokio::select! {
            pushed = pusher.push(dir, &NoProgress) => pushed,
            stopped = cancelled => stopped,
        }
    })
}
