//! What stands before every request: how often its client may ask, and what it may see.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use millstream_image::Sha256Digest;

use super::access::{Caller, denied, keep_private};
use super::offer::Offer;
use super::path::{self, Target};
use super::push;
use super::rates::too_many;
use super::site::Served;
use crate::config::{Area, PerAddress};

/// Always answered, so that whatever watches the service needs no secret.
const OPEN: &str = "healthz";

/// Who may come in, and how often.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Private areas.
    pub areas: Vec<Area>,
    /// What one address may cost.
    pub limits: PerAddress,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Fingerprint of the certificate it showed.
    pub(super) certificate: Option<Sha256Digest>,
}

/// Lets a request through, or not.
pub(super) async fn guard(State(served): State<Arc<Served>>, request: Request, next: Next) -> Response {
    if let Some(peer) = request.extensions().get::<Peer>()
        && let Err(wait) = served.rates.request(peer.address.ip(), Instant::now())
    {
        return too_many(wait);
    }
    let path = match path::parse(request.uri().path()) {
        Target::File(path) => path,
        // Aliases in the API may hold encoded slashes; below a name nothing is spelled otherwise.
        _ => request.uri().path().trim_matches('/').to_owned(),
    };
    let areas = served.areas.now();
    let pushes = push::is_push(request.uri().path());
    if path == OPEN || pushes || !areas.private(&path) {
        // What these answer depends on who asks.
        let restricted = areas.restrict() && ["1.0", "direct"].iter().any(|at| path.starts_with(at));
        let mut response = next.run(request).await;
        if restricted {
            keep_private(&mut response);
        }
        return response;
    }
    if let Err(why) = areas.read(caller(&request), &path) {
        return denied(why);
    }
    let mut response = next.run(request).await;
    keep_private(&mut response);
    response
}

/// Who sent a request.
pub(super) fn caller(request: &Request) -> Caller {
    let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate);
    Caller::of(request.headers(), certificate)
}

/// Whether the caller may know of a product, as documents name it.
pub(super) fn may_see(served: &Served, caller: Caller, product: &str) -> bool {
    let path = format!("images/{}", product.replace(':', "/"));
    let areas = served.areas.now();
    !areas.private(&path) || areas.read(caller, &path).is_ok()
}

/// The images the caller may see. May block.
pub(super) fn visible(served: &Served, caller: Caller) -> io::Result<Arc<Offer>> {
    let offer = served.offers.now(&served.site)?;
    let areas = served.areas.now();
    if !areas.restrict() {
        return Ok(offer);
    }
    Ok(Arc::new(offer.only(|path| areas.read(caller, path).is_ok())))
}
