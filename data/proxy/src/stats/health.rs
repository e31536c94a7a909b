//! Health windows: what happened since the last look.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::histogram::LATENCY_BUCKETS;
use super::reasons::{Fault, Refusal};
use super::worker::{TrafficStats, WorkerStats};

/// Endpoints reported per window; the busiest come first.
pub(crate) const MAX_WINDOW_ENDPOINTS: usize = 200;

/// What a proxy saw since the previous window, over all its workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthWindow {
    /// Requests to the local application.
    pub inbound: Traffic,
    /// Requests from the local application.
    pub outbound: Traffic,
    /// Faults of the proxy's own by [`Fault::as_str`]; what did not occur is absent.
    pub faults: BTreeMap<&'static str, u64>,
    /// Requests and connections that were not served, by [`Refusal::as_str`]; what did not occur is absent.
    pub refused: BTreeMap<&'static str, u64>,
    /// Worst delay of a worker's loop in microseconds.
    pub loop_delay_us: u64,
    /// Requests in flight now.
    pub active_requests: u64,
    /// Callers' connections open now.
    pub active_connections: u64,
    /// What was seen of each upstream endpoint that had traffic; at most 200, the busiest first.
    pub endpoints: Vec<EndpointWindow>,
}

/// Requests in one direction during a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Finished requests.
    pub requests: u64,
    /// Of these, answered 5xx (or a gRPC status of that kind), or broken off by the upstream or by the proxy. That a caller
    /// left is no error.
    pub errors: u64,
    /// Counts per bucket of [`LATENCY_BOUNDS_US`](super::LATENCY_BOUNDS_US), not cumulative.
    pub latency: [u64; LATENCY_BUCKETS],
}

/// An upstream endpoint during a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointWindow {
    /// Name of its cluster.
    pub cluster: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// Attempts.
    pub requests: u64,
    /// Of these, answered 5xx, reset, timed out or not connected.
    pub errors: u64,
}

/// Running totals; the difference of two is a window.
#[derive(Debug, Clone, Default)]
struct Totals {
    inbound: Traffic,
    outbound: Traffic,
    faults: Vec<u64>,
    refused: Vec<u64>,
    endpoints: HashMap<(Arc<str>, SocketAddr), (u64, u64)>,
}

/// Turns totals into windows.
#[derive(Debug, Default)]
pub(crate) struct HealthReader {
    last: Totals,
}

impl HealthReader {
    /// The window since the previous call.
    pub(crate) fn next(&mut self, workers: &[Arc<WorkerStats>], proxy_faults: impl Fn(Fault) -> u64) -> HealthWindow {
        let now = totals(workers, proxy_faults);
        let window = HealthWindow {
            inbound: now.inbound.since(&self.last.inbound),
            outbound: now.outbound.since(&self.last.outbound),
            faults: since(Fault::ALL.iter().map(|fault| fault.as_str()), &now.faults, &self.last.faults),
            refused: since(Refusal::ALL.iter().map(|reason| reason.as_str()), &now.refused, &self.last.refused),
            loop_delay_us: workers.iter().map(|worker| worker.loop_delay_us.take()).max().unwrap_or(0),
            active_requests: workers.iter().map(|worker| worker.active_requests.get()).sum(),
            active_connections: workers.iter().map(|worker| worker.active_connections.get()).sum(),
            endpoints: endpoints_since(&now, &self.last),
        };
        self.last = now;
        window
    }
}

impl Traffic {
    fn since(&self, before: &Traffic) -> Traffic {
        Traffic {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            latency: std::array::from_fn(|index| self.latency[index] - before.latency[index]),
        }
    }

    fn add(&mut self, stats: &TrafficStats) {
        self.requests += stats.requests.get();
        self.errors += stats.errors.get();
        let counts = stats.latency.counts();
        for (total, count) in self.latency.iter_mut().zip(counts) {
            *total += count;
        }
    }
}

fn totals(workers: &[Arc<WorkerStats>], proxy_faults: impl Fn(Fault) -> u64) -> Totals {
    let mut totals =
        Totals { faults: Fault::ALL.iter().map(|&fault| proxy_faults(fault)).collect(), ..Default::default() };
    totals.refused = vec![0; Refusal::ALL.len()];
    for worker in workers {
        totals.inbound.add(&worker.inbound);
        totals.outbound.add(&worker.outbound);
        for (total, &fault) in totals.faults.iter_mut().zip(Fault::ALL) {
            *total += worker.faults(fault).get();
        }
        for (total, &reason) in totals.refused.iter_mut().zip(Refusal::ALL) {
            *total += worker.refused(reason);
        }
        for endpoint in worker.endpoints() {
            let entry = totals.endpoints.entry((endpoint.cluster.clone(), endpoint.address)).or_default();
            entry.0 += endpoint.requests.get();
            entry.1 += endpoint.errors.get();
        }
    }
    totals
}

fn since(names: impl Iterator<Item = &'static str>, now: &[u64], before: &[u64]) -> BTreeMap<&'static str, u64> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let deltas = now.iter().zip(before).map(|(now, before)| now - before);
    names.zip(deltas).filter(|(_, count)| *count > 0).collect()
}

/// An endpoint that was removed and came back counts anew, so a total may be below the one before.
fn endpoints_since(now: &Totals, before: &Totals) -> Vec<EndpointWindow> {
    let mut windows: Vec<_> = now
        .endpoints
        .iter()
        .map(|(key, &(requests, errors))| {
            let (requests_before, errors_before) = before.endpoints.get(key).copied().unwrap_or_default();
            let restarted = requests < requests_before;
            EndpointWindow {
                cluster: key.0.clone(),
                address: key.1,
                requests: if restarted { requests } else { requests - requests_before },
                errors: if restarted { errors } else { errors.saturating_sub(errors_before) },
            }
        })
        .filter(|window| window.requests > 0)
        .collect();
    windows.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.address.cmp(&b.address)));
    windows.truncate(MAX_WINDOW_ENDPOINTS);
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_only_what_is_new() {
        let worker = Arc::new(WorkerStats::default());
        let workers = [worker.clone()];
        let mut reader = HealthReader::default();
        worker.inbound.requests.add(3);
        worker.fault(Fault::Timeout);
        worker.refuse(Refusal::HeadBytes);
        let first = reader.next(&workers, |_| 0);
        assert_eq!((first.inbound.requests, first.faults["timeout"], first.refused["head_bytes"]), (3, 1, 1));
        worker.inbound.requests.add(2);
        let second = reader.next(&workers, |_| 0);
        assert_eq!((second.inbound.requests, second.faults.len(), second.refused.len()), (2, 0, 0));
    }
}
