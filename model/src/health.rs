//! What a proxy observes of itself and others, window by window, and what its start-up self-check found.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Upper bounds of the latency buckets in microseconds; one more bucket takes the rest.
pub const LATENCY_BOUNDS_US: [u64; 20] = [
    100, 250, 500, 1_000, 2_000, 3_500, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000, 75_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Number of latency buckets.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// The bucket of a duration.
pub fn latency_bucket(micros: u64) -> usize {
    LATENCY_BOUNDS_US.partition_point(|bound| *bound < micros)
}

/// Counts of one direction in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// Finished requests.
    pub requests: u64,
    /// Of those, failed: 5xx, reset, gRPC server error.
    pub errors: u64,
    /// Finished requests per latency bucket; empty or [`LATENCY_BUCKETS`] long.
    pub latency: Vec<u64>,
}

/// What one proxy saw of one endpoint it calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointTraffic {
    /// The app called.
    pub cluster: String,
    /// `ip:port`.
    pub address: String,
    /// Finished requests.
    pub requests: u64,
    /// Of those, failed.
    pub errors: u64,
}

/// Connections with one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerConnections {
    /// The peer's identity; empty: it showed none.
    pub identity: String,
    /// The peer called.
    pub inbound: bool,
    /// Outbound: the app called.
    pub cluster: String,
    /// TLS connections open at the end.
    pub tls: u32,
    /// Plaintext connections open at the end.
    pub plain: u32,
    /// Handshakes finished in the window.
    pub handshakes: u64,
    /// Connections refused in the window: plaintext where it is, or a certificate that was not accepted.
    pub refused: u64,
}

/// One window (about a second) of one proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthWindow {
    /// Grows by one per window of a proxy process.
    pub sequence: u64,
    /// Start, milliseconds since the epoch, by the reporter's clock.
    pub start_unix_ms: u64,
    /// Length in milliseconds.
    pub duration_ms: u32,
    /// Requests to the local application.
    pub inbound: Traffic,
    /// Requests of the local application.
    pub outbound: Traffic,
    /// The proxy's own faults by reason, apart from application errors.
    pub faults: BTreeMap<String, u64>,
    /// Requests and connections that it did not serve, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Worst delay of a worker's loop in microseconds.
    pub loop_delay_us: u32,
    /// Requests in flight at the end.
    pub active_requests: u32,
    /// Connections open at the end.
    pub active_connections: u32,
    /// What it saw of others.
    pub endpoints: Vec<EndpointTraffic>,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// CPU time used in the window, microseconds.
    pub cpu_us: u64,
    /// Who spoke TLS, and who plaintext, with whom.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerConnections>,
}

/// Result of the start-up self-check: static health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SelfCheck {
    /// All checks passed.
    pub passed: bool,
    /// Each check.
    #[serde(default)]
    pub checks: Vec<CheckResult>,
}

/// One check of the self-check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckResult {
    /// config, listeners, upstreams, clock, descriptors, memory, self-request.
    pub name: String,
    /// It passed.
    pub passed: bool,
    /// What was found, in words.
    #[serde(default)]
    pub detail: String,
    /// How long it took, microseconds.
    #[serde(default)]
    pub micros: u64,
}
