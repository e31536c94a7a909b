//! The counters of one worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use weir_config::Direction;

use super::counter::Counter;
use super::histogram::Histogram;
use super::links::Links;
use super::reasons::{ByReason, FAULTS, Fault, REFUSALS, Refusal};
use super::series::{ClusterStats, EndpointStats, RpcKey, Series, SeriesKey};
use crate::tls::HandshakeFailure;

/// Series per worker; further routes are counted together under the route `other`.
const MAX_SERIES: usize = 2_000;

/// Handshakes that failed, by reason.
#[derive(Debug, Default)]
pub(crate) struct HandshakeFailures(ByReason<{ HandshakeFailure::ALL.len() }>);

impl HandshakeFailures {
    pub(crate) fn count(&self, failure: HandshakeFailure) {
        self.0.at(failure as usize).inc();
    }

    pub(crate) fn get(&self, failure: HandshakeFailure) -> u64 {
        self.0.at(failure as usize).get()
    }
}
/// The same for services and methods.
const MAX_RPC_SERIES: usize = 1_000;

/// Requests in one direction.
#[derive(Debug, Default)]
pub(crate) struct TrafficStats {
    pub(crate) requests: Counter,
    pub(crate) errors: Counter,
    pub(crate) latency: Histogram,
}

/// Everything one worker counts. Written by that worker alone; the lists behind locks change only with the configuration.
#[derive(Debug, Default)]
pub(crate) struct WorkerStats {
    refused: ByReason<REFUSALS>,
    faults: ByReason<FAULTS>,
    pub(crate) inbound: TrafficStats,
    pub(crate) outbound: TrafficStats,
    pub(crate) active_requests: Counter,
    pub(crate) active_connections: Counter,
    pub(crate) connections: Counter,
    /// Worst delay of the worker's loop since it was last asked for.
    pub(crate) loop_delay_us: Counter,
    pub(crate) links: Links,
    /// Handshakes that failed, with callers and with endpoints.
    pub(crate) inbound_handshakes: HandshakeFailures,
    pub(crate) outbound_handshakes: HandshakeFailures,
    /// Answers that nobody waited for any more.
    pub(crate) late_answers: Counter,
    series: Mutex<HashMap<SeriesKey, Arc<Series>>>,
    rpc_series: Mutex<HashMap<RpcKey, Arc<Series<RpcKey>>>>,
    clusters: Mutex<Vec<Arc<ClusterStats>>>,
    endpoints: Mutex<Vec<Arc<EndpointStats>>>,
}

impl WorkerStats {
    /// Counts something not served.
    #[inline]
    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused.at(reason as usize).inc();
    }

    /// Counts a fault of the proxy's own.
    #[inline]
    pub(crate) fn fault(&self, reason: Fault) {
        self.faults.at(reason as usize).inc();
    }

    pub(crate) fn faults(&self, reason: Fault) -> &Counter {
        self.faults.at(reason as usize)
    }

    pub(crate) fn refused(&self, reason: Refusal) -> u64 {
        self.refused.at(reason as usize).get()
    }

    pub(crate) fn traffic(&self, direction: Direction) -> &TrafficStats {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// The series with these labels, made on first use.
    pub(crate) fn series(&self, mut key: SeriesKey) -> Arc<Series> {
        let mut series = lock(&self.series);
        if series.len() >= MAX_SERIES && !series.contains_key(&key) {
            key.route = "other".into();
            key.cluster = "other".into();
        }
        series.entry(key.clone()).or_insert_with(|| Arc::new(Series::new(key))).clone()
    }

    /// As [`series`](Self::series), by service and method. Callers name them, so what comes after the first are `other`.
    pub(crate) fn rpc_series(&self, mut key: RpcKey) -> Arc<Series<RpcKey>> {
        let mut series = lock(&self.rpc_series);
        if series.len() >= MAX_RPC_SERIES && !series.contains_key(&key) {
            key.service = "other".into();
            key.method = "other".into();
        }
        series.entry(key.clone()).or_insert_with(|| Arc::new(Series::new(key))).clone()
    }

    pub(crate) fn all_rpc_series(&self) -> Vec<Arc<Series<RpcKey>>> {
        lock(&self.rpc_series).values().cloned().collect()
    }

    pub(crate) fn all_series(&self) -> Vec<Arc<Series>> {
        lock(&self.series).values().cloned().collect()
    }

    /// Replaces the lists of what is counted per cluster and endpoint.
    pub(crate) fn set_upstreams(&self, clusters: Vec<Arc<ClusterStats>>, endpoints: Vec<Arc<EndpointStats>>) {
        *lock(&self.clusters) = clusters;
        *lock(&self.endpoints) = endpoints;
    }

    pub(crate) fn clusters(&self) -> Vec<Arc<ClusterStats>> {
        lock(&self.clusters).clone()
    }

    pub(crate) fn endpoints(&self) -> Vec<Arc<EndpointStats>> {
        lock(&self.endpoints).clone()
    }
}

/// A panic while one of these locks was held leaves a whole list all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
