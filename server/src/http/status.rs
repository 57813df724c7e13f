//! `/status.json`: what the pages show that only a running server knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::gate::{caller, may_see};
use super::site::Served;

#[derive(Serialize)]
struct Status {
    /// Whether there is a page of daily builds.
    daily: bool,
    /// Root file systems sent whole since the server started, by product.
    downloads: BTreeMap<String, u64>,
}

pub(super) async fn answer(State(served): State<Arc<Served>>, request: Request) -> Response {
    let caller = caller(&request);
    let mut downloads = served.metrics.downloads();
    downloads.retain(|product, _| may_see(&served, caller, product));
    let status = Status { daily: served.history.is_some(), downloads };
    ([(CACHE_CONTROL, "no-cache")], Json(status)).into_response()
}
