//! `/status.json`: what the pages show that only a running server knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::site::Served;

#[derive(Serialize)]
struct Status {
    /// Whether there is a page of daily builds.
    daily: bool,
    /// Root file systems sent whole since the server started, by product.
    downloads: BTreeMap<String, u64>,
}

pub(super) async fn answer(State(served): State<Arc<Served>>) -> Response {
    let status = Status { daily: served.history.is_some(), downloads: served.metrics.downloads() };
    ([(CACHE_CONTROL, "no-cache")], Json(status)).into_response()
}
