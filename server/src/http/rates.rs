//! What one client address may cost: requests by a token bucket, connections by a count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::answer::plain;
use crate::config::PerAddress;

/// Buckets of one generation; two are kept, so that memory is bounded whoever asks.
const MOST: usize = 1 << 15;

/// The limits, and what each address has used of them.
pub(super) struct Rates {
    limits: RwLock<PerAddress>,
    buckets: Mutex<Buckets>,
    connections: Mutex<HashMap<IpAddr, u32>>,
}

/// Those seen lately, and those before; an address in neither has a full bucket.
#[derive(Default)]
struct Buckets {
    recent: HashMap<IpAddr, Bucket>,
    before: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(super) fn new(limits: PerAddress) -> Self {
        Self { limits: RwLock::new(limits), buckets: Mutex::default(), connections: Mutex::default() }
    }

    /// Other limits, from the next request on; what was used of the old ones counts.
    pub(super) fn set_limits(&self, limits: PerAddress) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits(&self) -> PerAddress {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; when there are too many, how long to wait.
    pub(super) fn request(&self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let limits = self.limits();
        let Some(rate) = limits.requests_per_second.map(|rate| f64::from(rate.max(1))) else {
            return Ok(());
        };
        let burst = limits.burst.map_or(rate * 10.0, |burst| f64::from(burst.max(1)));
        let peer = network(peer);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = buckets.recent.get(&peer).or_else(|| buckets.before.get(&peer)).copied();
        let known = known.unwrap_or(Bucket { left: burst, at: now });
        let since = now.saturating_duration_since(known.at).as_secs_f64();
        let left = (known.left + since * rate).min(burst);
        let answer = if left >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) / rate)) };
        if buckets.recent.len() >= MOST {
            buckets.before = std::mem::take(&mut buckets.recent);
        }
        let left = if answer.is_ok() { left - 1.0 } else { left };
        buckets.recent.insert(peer, Bucket { left, at: now });
        answer
    }

    /// Counts a connection until the guard goes; `None` when the address has too many.
    pub(super) fn connection(self: &Arc<Self>, peer: IpAddr) -> Option<Connection> {
        let peer = network(peer);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(peer).or_default();
        if self.limits().connections_per_address.is_some_and(|most| *count >= most.max(1)) {
            return None;
        }
        *count += 1;
        Some(Connection { rates: Arc::clone(self), peer })
    }
}

/// A connection that counts.
pub(super) struct Connection {
    rates: Arc<Rates>,
    peer: IpAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut connections = self.rates.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.peer);
            }
        }
    }
}

/// The answer to one request too many.
pub(super) fn too_many(wait: Duration) -> Response {
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
    response
}

/// What counts as one address: an IPv6 client has 64 bits to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bucket_empties_and_fills_again() {
        let rates =
            Rates::new(PerAddress { requests_per_second: Some(2), burst: Some(3), ..Default::default() });
        let now = Instant::now();
        let ask = |peer: &str, at| rates.request(address(peer), at);
        assert!((0..3).all(|_| ask("192.0.2.1", now).is_ok()));
        assert_eq!(ask("192.0.2.1", now), Err(Duration::from_millis(500)));
        assert_eq!(ask("::ffff:192.0.2.1", now), Err(Duration::from_millis(500)), "the same address");
        assert!(ask("192.0.2.2", now).is_ok(), "others are not concerned");
        assert!(ask("192.0.2.1", now + Duration::from_millis(500)).is_ok());
        assert!((0..3).all(|n| ask(&format!("2001:db8::{n}"), now).is_ok()));
        assert!(ask("2001:db8::ffff:0:0:9", now).is_err(), "one network");
        assert!(ask("2001:db8:0:1::9", now).is_ok());
    }

    #[test]
    fn memory_is_bounded_whoever_asks() {
        let rates = Rates::new(PerAddress { requests_per_second: Some(1), ..Default::default() });
        let now = Instant::now();
        for n in 0..200_000_u32 {
            let _ = rates.request(IpAddr::V4(n.into()), now);
        }
        let buckets = rates.buckets.lock().unwrap();
        assert!(buckets.recent.len() + buckets.before.len() <= 2 * MOST);
    }

    #[test]
    fn connections_are_given_back() {
        let limits = PerAddress { connections_per_address: Some(1), ..Default::default() };
        let rates = Arc::new(Rates::new(limits));
        let first = rates.connection(address("192.0.2.1")).unwrap();
        assert!(rates.connection(address("192.0.2.1")).is_none());
        assert!(rates.connection(address("192.0.2.2")).is_some());
        drop(first);
        assert!(rates.connection(address("192.0.2.1")).is_some());
        assert!(rates.connections.lock().unwrap().is_empty());
    }
}
