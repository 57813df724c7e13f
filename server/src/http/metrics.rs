//! `/metrics`, in Prometheus' text format, and `/healthz`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use millstream_image::Product;

use super::log::Access;
use super::site::Served;

/// What is counted, since the server started.
#[derive(Default)]
pub(super) struct Metrics {
    /// Requests by the first digit of their status, 1 to 5.
    requests: [AtomicU64; 5],
    /// Bytes of bodies.
    bytes: AtomicU64,
    /// Milliseconds from head to last byte, all requests together.
    busy: AtomicU64,
    connections: AtomicU64,
    /// Whole root file systems sent, by product.
    downloads: Mutex<BTreeMap<Product, u64>>,
}

/// Counts a connection for as long as it lives.
pub(super) struct Connected(Arc<Served>);

impl Connected {
    pub(super) fn new(served: Arc<Served>) -> Self {
        served.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Self(served)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request that is over.
    pub(super) fn observe(&self, access: &Access) {
        if let Some(counter) =
            usize::from(access.status / 100).checked_sub(1).and_then(|at| self.requests.get(at))
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_add(access.bytes, Ordering::Relaxed);
        self.busy.fetch_add(access.duration.as_millis() as u64, Ordering::Relaxed);
        if access.status == 200
            && access.complete
            && let Some(product) = product(&access.request)
        {
            let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
            *downloads.entry(product).or_default() += 1;
        }
    }

    /// Root file systems sent whole since the server started, by product.
    pub(super) fn downloads(&self) -> BTreeMap<String, u64> {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.iter().map(|(product, count)| (product.to_string(), *count)).collect()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, String)]| {
            let _ = writeln!(text, "# HELP millstream_{name} {help}\n# TYPE millstream_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "millstream_{name}{labels} {value}");
            }
        };
        let one = |value: String| [(String::new(), value)];
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let by_class = (1..).zip(&self.requests);
        let by_class: Vec<_> = by_class
            .map(|(class, count)| (format!("{{status=\"{class}xx\"}}"), load(count).to_string()))
            .collect();
        metric("http_requests_total", "counter", "Requests answered, by class of status.", &by_class);
        metric(
            "http_sent_bytes_total",
            "counter",
            "Bytes of bodies sent.",
            &one(load(&self.bytes).to_string()),
        );
        let busy = format!("{:.3}", load(&self.busy) as f64 / 1000.0);
        metric("http_request_seconds_total", "counter", "Time spent on requests.", &one(busy));
        let connections = load(&self.connections).to_string();
        metric("http_connections", "gauge", "Connections open now.", &one(connections));
        let downloads: Vec<_> = self
            .downloads()
            .into_iter()
            .map(|(product, count)| (format!("{{product=\"{product}\"}}"), count.to_string()))
            .collect();
        metric("image_downloads_total", "counter", "Root file systems sent whole, by product.", &downloads);
        text
    }
}

/// The product whose root file system a request line asks for.
fn product(request: &str) -> Option<Product> {
    let path = request.strip_prefix("GET /")?.split(' ').next()?;
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["images", product @ .., _serial, file] if product.len() == 4 && file.starts_with("rootfs.") => {
            product.join(":").parse().ok()
        }
        _ => None,
    }
}

/// `/metrics`.
pub(super) async fn answer(State(served): State<Arc<Served>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], served.metrics.text()).into_response()
}

/// `/healthz`: whether the tree can be read.
pub(super) async fn health(State(served): State<Arc<Served>>) -> Response {
    let asked = tokio::task::spawn_blocking(move || served.offers.now(&served.site).is_ok());
    match asked.await {
        Ok(true) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the stream cannot be read\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_root_file_systems() {
        let rootfs = "GET //images/debian/bookworm/amd64/default/20260101_0000/rootfs.tar.xz HTTP/1.1";
        assert_eq!(product(rootfs).unwrap().to_string(), "debian:bookworm:amd64:default");
        for other in [
            "GET /images/debian/bookworm/amd64/default/20260101_0000/meta.tar.xz HTTP/1.1",
            "GET /images/debian/bookworm/amd64/default/rootfs.tar.xz HTTP/1.1",
            "GET /images/a/b/nope/d/20260101_0000/rootfs.tar.xz HTTP/1.1",
            "HEAD /images/debian/bookworm/amd64/default/20260101_0000/rootfs.tar.xz HTTP/1.1",
        ] {
            assert_eq!(product(other), None, "{other}");
        }
    }
}
