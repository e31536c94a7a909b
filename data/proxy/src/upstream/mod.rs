//! Towards endpoints: choosing one, connections to it, further attempts.
//!
//! All of it belongs to one worker; nothing is shared with others but counters that are read elsewhere.

mod cluster;
mod connect;
mod deadlines;
mod h2;
mod health;
mod originals;
mod own;
mod pool;
mod retry;
mod waiting;

pub(crate) use self::h2::{CONNECTION_WINDOW, H2Lease, STREAM_WINDOW, acquire_h2};
pub(crate) use cluster::{Choice, ClusterState, EndpointState, InFlight, OpenConnection, Shared, build_clusters};
pub(crate) use connect::open_stream;
pub(crate) use deadlines::{Deadlines, Progress};
pub(crate) use own::OwnConnections;
pub(crate) use pool::{AcquireError, Lease, acquire, acquire_new, try_idle};
pub(crate) use retry::{Again, Attempts, Failure};
pub(crate) use waiting::with_endpoint;
