//! Health windows in the terms of the control stream, with what the process itself used.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_client::registration::{EndpointTraffic, Health, PeerConnections, Traffic as TrafficReport};

use crate::stats::{LinkKey, LinkTotal};
use crate::{EndpointWindow, HealthWindow, Proxy, Traffic};

/// Most rows about peers in one report.
const MAX_PEERS: usize = 256;

/// Gives the window since the previous call.
pub(super) struct Windows {
    proxy: Proxy,
    sequence: u64,
    began: Instant,
    cpu: Duration,
    peers: Peers,
}

impl Windows {
    /// What happened before does not count.
    pub(super) fn begin(proxy: Proxy) -> Self {
        proxy.take_health_window();
        Windows { proxy, sequence: 0, began: Instant::now(), cpu: cpu_time(), peers: Peers::default() }
    }

    pub(super) fn next(&mut self) -> Health {
        let window = self.proxy.take_health_window();
        let length = std::mem::replace(&mut self.began, Instant::now()).elapsed();
        let cpu = cpu_time();
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        self.sequence += 1;
        Health {
            sequence: self.sequence,
            start_unix_ms: clamp(unix_time().saturating_sub(length).as_millis()),
            duration_ms: clamp(length.as_millis()),
            rss_bytes: resident_bytes(),
            cpu_us: clamp(used.as_micros()),
            peers: self.peers.next(self.proxy.links()),
            ..report(window)
        }
    }
}

fn report(window: HealthWindow) -> Health {
    Health {
        inbound: Some(traffic(window.inbound)),
        outbound: Some(traffic(window.outbound)),
        faults: window.faults.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        refused: window.refused.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        loop_delay_us: clamp(window.loop_delay_us.into()),
        active_requests: clamp(window.active_requests.into()),
        active_connections: clamp(window.active_connections.into()),
        endpoints: window.endpoints.into_iter().map(endpoint).collect(),
        ..Default::default()
    }
}

/// Who speaks TLS with whom: what is open, and what began or was refused since the last time.
#[derive(Default)]
struct Peers(BTreeMap<LinkKey, LinkTotal>);

impl Peers {
    fn next(&mut self, totals: BTreeMap<LinkKey, LinkTotal>) -> Vec<PeerConnections> {
        let before = std::mem::replace(&mut self.0, totals);
        let since = |(key, total): (&LinkKey, &LinkTotal)| {
            let begun = before.get(key).copied().unwrap_or_default();
            PeerConnections {
                identity: key.identity.to_string(),
                inbound: key.inbound,
                cluster: key.cluster.to_string(),
                tls: clamp(total.tls.into()),
                plain: clamp(total.plain.into()),
                handshakes: total.handshakes - begun.handshakes.min(total.handshakes),
                refused: total.refused - begun.refused.min(total.refused),
            }
        };
        bounded(self.0.iter().map(since).collect())
    }
}

/// What exceeds the bound becomes one row, for the peer `other`.
fn bounded(mut rows: Vec<PeerConnections>) -> Vec<PeerConnections> {
    if rows.len() > MAX_PEERS {
        let mut other = PeerConnections { identity: "other".into(), inbound: true, ..Default::default() };
        for row in rows.split_off(MAX_PEERS - 1) {
            other.tls = other.tls.saturating_add(row.tls);
            other.plain = other.plain.saturating_add(row.plain);
            other.handshakes += row.handshakes;
            other.refused += row.refused;
        }
        rows.push(other);
    }
    rows
}

fn traffic(traffic: Traffic) -> TrafficReport {
    TrafficReport { requests: traffic.requests, errors: traffic.errors, latency: traffic.latency.to_vec() }
}

fn endpoint(window: EndpointWindow) -> EndpointTraffic {
    EndpointTraffic {
        cluster: window.cluster.to_string(),
        address: window.address.to_string(),
        requests: window.requests,
        errors: window.errors,
    }
}

/// The number, or the largest that fits.
fn clamp<T: TryFrom<u128> + Bounded>(number: u128) -> T {
    T::try_from(number).unwrap_or(T::MAX)
}

trait Bounded {
    const MAX: Self;
}

impl Bounded for u32 {
    const MAX: u32 = u32::MAX;
}

impl Bounded for u64 {
    const MAX: u64 = u64::MAX;
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// User and system time of all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Second field of `/proc/self/statm`, in pages; 0 where that cannot be read.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}
