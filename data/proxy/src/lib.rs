//! The sidecar proxy.
//!
//! A request's path is the same for every protocol: *listen, sniff, route, filter, balance, pool, upstream*. Each
//! worker is one thread with its own runtime, sockets, pools and counters, so nothing on that path takes a lock or
//! shares a cache line. Configuration reaches workers only as an immutable [`Snapshot`].
//!
//! [`Proxy`] is the handle: start it, [apply](Proxy::apply) snapshots, read its [health](Proxy::take_health_window), [drain](Proxy::drain) it.

pub mod admin;
pub mod control;
pub mod intercept;
pub mod otlp;
pub mod selfcheck;

mod access_log;
mod bridge;
mod detect;
mod http1;
mod http2;
mod io;
mod options;
mod phases;
mod proxy;
mod readiness;
mod rpc;
mod serve;
mod snapshot;
mod stats;
mod tcp;
mod tls;
mod trace;
mod upstream;
mod worker;

pub use options::{AccessLog, DrainOptions, Drill, InheritedSockets, Options, OptionsError};
pub use proxy::{Applied, ApplyError, BindFailure, DrainReport, Proxy, StartError};
pub use readiness::Readiness;
pub use snapshot::{Snapshot, SnapshotError};
pub use stats::{EndpointWindow, Fault, HealthWindow, LATENCY_BOUNDS_US, LATENCY_BUCKETS, Refusal, Span, Traffic};
pub use tls::CertificateInfo;
