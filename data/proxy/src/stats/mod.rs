//! What the proxy counts: per-worker counters with one writer each, summed when somebody asks.

mod counter;
mod health;
mod histogram;
mod links;
mod reasons;
mod render;
mod series;
mod worker;

pub(crate) use counter::{Counter, Held};
pub(crate) use health::HealthReader;
pub use health::{EndpointWindow, HealthWindow, Traffic};
pub use histogram::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};
pub(crate) use links::{Link, LinkKey, LinkTotal, link_totals};
pub use reasons::{Fault, Refusal};
pub(crate) use render::render;
pub(crate) use series::{ClusterStats, EndpointStats, RpcKey, Series, SeriesKey, direction_label};
pub(crate) use worker::WorkerStats;

use std::sync::Arc;

/// One finished request of a sampled trace, for export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// W3C trace id.
    pub trace_id: [u8; 16],
    /// This span's id, which the upstream sees as its parent.
    pub span_id: [u8; 8],
    /// The caller's span, if it sent one.
    pub parent_id: Option<[u8; 8]>,
    /// Method and route, e.g. `GET stock/0`.
    pub name: String,
    /// True on an inbound listener (span kind SERVER), false on an outbound one (CLIENT).
    pub inbound: bool,
    /// Cluster it went to, empty if none.
    pub cluster: Arc<str>,
    /// HTTP status.
    pub status: u16,
    /// When it began, in nanoseconds since 1970.
    pub start_unix_nanos: u64,
    /// How long it took, in nanoseconds.
    pub duration_nanos: u64,
}
