use serde::Deserialize;

/// `[serve.limits]`: what one client address may cost. An IPv6 network of 64 bits counts as one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerAddress {
    /// Requests a second in the long run; without it, any number.
    pub requests_per_second: Option<u32>,
    /// Requests at once before that counts; ten seconds' worth without it.
    pub burst: Option<u32>,
    /// Connections at once; without it, any number.
    pub connections_per_address: Option<u32>,
}
