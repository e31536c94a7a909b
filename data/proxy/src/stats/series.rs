//! Labelled time series and the counters of clusters and endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_config::Direction;

use super::counter::Counter;
use super::histogram::Histogram;

/// Labels of a request series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeriesKey {
    pub(crate) listener: Arc<str>,
    pub(crate) direction: &'static str,
    pub(crate) route: Arc<str>,
    pub(crate) cluster: Arc<str>,
}

/// Labels of a series of RPCs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RpcKey {
    pub(crate) listener: Arc<str>,
    pub(crate) direction: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) service: Arc<str>,
    pub(crate) method: Arc<str>,
}

/// Requests with the same labels.
#[derive(Debug)]
pub(crate) struct Series<K = SeriesKey> {
    pub(crate) key: K,
    by_class: [Counter; CLASSES.len()],
    pub(crate) latency: Histogram,
}

/// Values of the `code_class` label; what is no status at all is the first.
pub(crate) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl<K> Series<K> {
    pub(crate) fn new(key: K) -> Self {
        Series { key, by_class: Default::default(), latency: Histogram::default() }
    }

    /// Counts one finished request; status 0 is one that ended without an answer.
    #[inline]
    pub(crate) fn record(&self, status: u16, micros: u64) {
        let class = usize::from(status / 100);
        self.by_class[if class < CLASSES.len() { class } else { 0 }].inc();
        self.latency.record(micros);
    }

    pub(crate) fn class(&self, index: usize) -> u64 {
        self.by_class[index].get()
    }
}

/// The label value of a direction.
pub(crate) fn direction_label(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// What one worker did towards a cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterStats {
    pub(crate) name: Arc<str>,
    /// Connections opened.
    pub(crate) connects: Counter,
    /// Attempts to connect that failed.
    pub(crate) connect_failures: Counter,
    /// Connections open now.
    pub(crate) connections: Counter,
    /// Requests in flight now.
    pub(crate) requests: Counter,
    /// Requests waiting for a connection now.
    pub(crate) pending: Counter,
    /// Bytes passed on as they are, to endpoints and from them.
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    /// Endpoints that were found not well.
    pub(crate) unhealthy: Counter,
    /// Further attempts made.
    pub(crate) retries: Counter,
    /// Retries in flight now.
    pub(crate) active_retries: Counter,
}

impl ClusterStats {
    pub(crate) fn new(name: Arc<str>) -> Self {
        ClusterStats { name, ..Default::default() }
    }
}

/// What one worker saw of an endpoint.
#[derive(Debug)]
pub(crate) struct EndpointStats {
    pub(crate) cluster: Arc<str>,
    pub(crate) address: SocketAddr,
    /// Attempts answered or failed.
    pub(crate) requests: Counter,
    /// Of these, answered 5xx, reset, timed out or not connected.
    pub(crate) errors: Counter,
    /// In flight now.
    pub(crate) active: Counter,
}

impl EndpointStats {
    pub(crate) fn new(cluster: Arc<str>, address: SocketAddr) -> Self {
        EndpointStats {
            cluster,
            address,
            requests: Counter::default(),
            errors: Counter::default(),
            active: Counter::default(),
        }
    }
}
