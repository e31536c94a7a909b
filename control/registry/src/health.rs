//! Health reports: from the wire, bounded, into the observed state.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use jiff::Timestamp;
use weir_model::health::{EndpointTraffic, HealthWindow, LATENCY_BUCKETS, PeerConnections, Traffic};
use weir_proto::control as wire;
use weir_store::observed::{Telemetry, TimedWindow};

/// Most reasons of faults, and of refusals, taken from one report.
const MAX_REASONS: usize = 64;
/// Most endpoints taken from one report.
const MAX_ENDPOINTS: usize = 10_000;
/// Most rows of peers taken from one report.
const MAX_PEERS: usize = 256;
/// Longest identity, as SPIFFE has it.
const MAX_IDENTITY: usize = 2048;
/// Longest reason, cluster or address.
const MAX_TEXT: usize = 253;

/// Which instance is reached at which address.
#[derive(Debug, Default)]
pub struct Addresses(RwLock<HashMap<SocketAddr, String>>);

impl Addresses {
    /// The instance is reached there now.
    pub fn put(&self, address: SocketAddr, instance: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(address, instance.to_owned());
    }

    /// The instance is no longer reached there.
    pub fn remove(&self, address: SocketAddr, instance: &str) {
        let mut addresses = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if addresses.get(&address).is_some_and(|known| known == instance) {
            addresses.remove(&address);
        }
    }

    fn find(&self, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().ok()?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }
}

/// Takes a report: the proxy's own window, and what it saw of the instances it called.
pub fn record(
    telemetry: &Telemetry,
    addresses: &Addresses,
    instance: &str,
    proxy_version: &str,
    health: wire::Health,
    received: Timestamp,
) {
    let window = window(health);
    for seen in window.endpoints.iter().filter(|e| e.requests > 0) {
        if let Some(callee) = addresses.find(&seen.address) {
            telemetry.record_caller(&callee, received, seen);
        }
    }
    telemetry.record(instance, TimedWindow { received, proxy_version: proxy_version.to_owned(), window });
}

fn window(health: wire::Health) -> HealthWindow {
    let reasons = |counts: HashMap<String, u64>| {
        counts.into_iter().filter(|(reason, _)| reason.len() <= MAX_TEXT).take(MAX_REASONS).collect()
    };
    let short = |e: &wire::EndpointTraffic| e.cluster.len() <= MAX_TEXT && e.address.len() <= MAX_TEXT;
    let known = |p: &wire::PeerConnections| p.cluster.len() <= MAX_TEXT && p.identity.len() <= MAX_IDENTITY;
    let peers = health.peers.into_iter().filter(known).take(MAX_PEERS);
    let endpoints = health.endpoints.into_iter().filter(short).take(MAX_ENDPOINTS);
    HealthWindow {
        sequence: health.sequence,
        start_unix_ms: health.start_unix_ms,
        duration_ms: health.duration_ms,
        inbound: traffic(health.inbound),
        outbound: traffic(health.outbound),
        faults: reasons(health.faults),
        refused: reasons(health.refused),
        loop_delay_us: health.loop_delay_us,
        active_requests: health.active_requests,
        active_connections: health.active_connections,
        endpoints: endpoints.map(endpoint).collect(),
        rss_bytes: health.rss_bytes,
        cpu_us: health.cpu_us,
        peers: peers.map(peer).collect(),
    }
}

/// A histogram of another shape is of no use to anybody and left out.
fn traffic(traffic: Option<wire::Traffic>) -> Traffic {
    let traffic = traffic.unwrap_or_default();
    let latency = if traffic.latency.len() == LATENCY_BUCKETS { traffic.latency } else { Vec::new() };
    Traffic { requests: traffic.requests, errors: traffic.errors.min(traffic.requests), latency }
}

fn endpoint(seen: wire::EndpointTraffic) -> EndpointTraffic {
    EndpointTraffic {
        cluster: seen.cluster,
        address: seen.address,
        requests: seen.requests,
        errors: seen.errors.min(seen.requests),
    }
}

fn peer(seen: wire::PeerConnections) -> PeerConnections {
    PeerConnections {
        identity: seen.identity,
        inbound: seen.inbound,
        cluster: seen.cluster,
        tls: seen.tls,
        plain: seen.plain,
        handshakes: seen.handshakes,
        refused: seen.refused,
    }
}
