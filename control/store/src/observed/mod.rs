//! What is measured by the second, kept in memory, and may be lost: decisions that rest on it keep their evidence in
//! the status of the resource they decide about.

mod proxies;
mod telemetry;

pub use proxies::{ProxyTable, ProxyView, TypeState};
pub use telemetry::{CallerView, Telemetry, TimedWindow};

/// Everything observed, as everyone holds it.
#[derive(Debug, Default)]
pub struct Observed {
    /// Health windows per instance.
    pub telemetry: Telemetry,
    /// Connected proxies and what they have acknowledged.
    pub proxies: ProxyTable,
}
