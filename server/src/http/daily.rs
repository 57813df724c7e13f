//! `/daily`, the state of daily builds, and `/daily.json`, the same for scripts.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use millstream_image::Product;

use super::access::Caller;
use super::answer::{POLICY, plain};
use super::gate::{caller, may_see};
use super::site::Served;
use crate::Result;
use crate::daily::{History, Outcome, Run};
use crate::stream::daily_page::{self, Build};

/// The page.
pub(super) async fn page(State(served): State<Arc<Served>>, request: Request) -> Response {
    answer(served, caller(&request), |builds| {
        let html = daily_page::render(&builds)?;
        let headers =
            [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY), NEVER_KEPT];
        Ok((headers, html).into_response())
    })
    .await
}

/// The same as JSON.
pub(super) async fn json(State(served): State<Arc<Served>>, request: Request) -> Response {
    answer(served, caller(&request), |builds| Ok(([NEVER_KEPT], Json(builds)).into_response())).await
}

const NEVER_KEPT: (axum::http::HeaderName, &str) = (CACHE_CONTROL, "no-store");

async fn answer(
    served: Arc<Served>,
    caller: Caller,
    present: impl FnOnce(Vec<Build>) -> Result<Response> + Send + 'static,
) -> Response {
    let Some(history) = served.history.clone() else { return plain(StatusCode::NOT_FOUND) };
    let asked = tokio::task::spawn_blocking(move || present(builds(&history, &served, caller)?));
    match asked.await {
        Ok(Ok(response)) => response,
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The newest build of each product of this tree that the caller may see: those under way first, then what failed.
fn builds(history: &History, served: &Served, caller: Caller) -> Result<Vec<Build>> {
    history.heal()?;
    let root = served.site.path();
    let here =
        |run: &Run| (run.stream == root || same(&run.stream, root)) && may_see(served, caller, &run.product);
    let mut runs: Vec<_> = history.latest()?.into_iter().filter(here).collect();
    let rank = |run: &Run| match run.outcome {
        None => 0,
        Some(Outcome::Failed | Outcome::Interrupted) => 1,
        Some(_) => 2,
    };
    runs.sort_by_key(|run| (rank(run), run.product.clone()));
    Ok(runs.iter().map(|run| shown(run, root)).collect())
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn shown(run: &Run, root: &Path) -> Build {
    let product: Option<Product> = run.product.parse().ok();
    let page = product.zip(run.serial).map(|(product, serial)| product.image_path(serial).join("index.html"));
    let page = page.filter(|page| root.join(page).exists());
    Build {
        id: run.id,
        job: run.job.clone(),
        product: run.product.clone(),
        state: run.outcome.map_or("running", Outcome::name),
        stage: run.stage.clone(),
        started: run.started.format("%Y-%m-%d %H:%M").to_string(),
        seconds: (run.ended.unwrap_or_else(Utc::now) - run.started).num_seconds(),
        serial: run.serial.map(|serial| serial.to_string()),
        page: page.map(|page| page.display().to_string()),
        log: run.log.as_ref().map(|log| log.display().to_string()),
        boot_test: run.boot_test,
        packages: run.packages.len(),
        reason: run.reason.clone(),
    }
}
