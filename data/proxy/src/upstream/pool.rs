//! HTTP/1 connections: taken from the pool or opened, and given back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::{ClusterState, EndpointState, Idle, OpenConnection};
use super::connect::open_stream;
use crate::io::Stream;
use crate::stats::{ClusterStats, Held, Refusal};
use crate::tls::Alpn;

/// A connection to an endpoint, for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) stream: Stream,
    pub(crate) endpoint: Rc<EndpointState>,
    /// It carried a request before: its peer may have closed it meanwhile.
    pub(crate) reused: bool,
    cluster: Rc<ClusterState>,
    open: OpenConnection,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum AcquireError {
    /// A limit was reached.
    Refused(Refusal),
    /// The endpoint did not take the connection.
    Connect(std::io::Error),
}

impl Lease {
    /// Where bytes that pass over it are counted.
    pub(crate) fn stats(&self) -> Arc<ClusterStats> {
        self.cluster.stats.clone()
    }

    /// Puts the connection back for the next request, unless it is no longer as its endpoint wants it or enough are idle.
    pub(crate) fn give_back(self) {
        let Lease { stream, endpoint, cluster, open, .. } = self;
        let mut idle = endpoint.idle.borrow_mut();
        if endpoint.takes(open.security) && idle.len() < cluster.compiled.config.limits.max_idle_per_endpoint {
            idle.push(Idle { stream, open, since: Instant::now() });
            drop(idle);
            if cluster.stats.pending.get() > 0 {
                cluster.freed.notify_one();
            }
        }
    }
}

/// An idle connection to the endpoint, if there is a usable one; the last used comes first.
pub(crate) fn try_idle(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) -> Option<Lease> {
    loop {
        let mut idle = endpoint.idle.borrow_mut().pop()?;
        if endpoint.takes(idle.open.security) && idle.stream.is_quiet() {
            let Idle { stream, open, .. } = idle;
            return Some(Lease { stream, open, endpoint: endpoint.clone(), cluster: cluster.clone(), reused: true });
        }
    }
}

/// A connection to the endpoint: an idle one, a new one, or, at the cluster's limit, the next that becomes free.
pub(crate) async fn acquire(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) -> Result<Lease, AcquireError> {
    loop {
        if let Some(lease) = try_idle(cluster, endpoint) {
            return Ok(lease);
        }
        if has_room(cluster) {
            return open(cluster, endpoint).await;
        }
        wait(cluster).await?;
    }
}

/// A connection to the endpoint on which nothing was ever said.
pub(crate) async fn acquire_new(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
) -> Result<Lease, AcquireError> {
    while !has_room(cluster) {
        wait(cluster).await?;
    }
    open(cluster, endpoint).await
}

fn has_room(cluster: &ClusterState) -> bool {
    let limit = cluster.compiled.config.limits.max_connections as u64;
    cluster.stats.connections.get() < limit || evict_idle(cluster)
}

/// Closes an idle connection to some other endpoint, to make room.
fn evict_idle(cluster: &ClusterState) -> bool {
    let evict = |endpoint: &Rc<EndpointState>| endpoint.idle.borrow_mut().pop().is_some();
    let mut evicted = cluster.endpoints.iter().any(evict);
    cluster.originals.each(|endpoint| evicted = evicted || evict(endpoint));
    evicted
}

async fn wait(cluster: &ClusterState) -> Result<(), AcquireError> {
    if cluster.stats.pending.get() >= cluster.compiled.config.limits.max_pending as u64 {
        return Err(AcquireError::Refused(Refusal::Pending));
    }
    let _pending = Held::new(&cluster.stats.pending);
    cluster.freed.notified().await;
    Ok(())
}

async fn open(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) -> Result<Lease, AcquireError> {
    let (stream, open) = open_stream(cluster, endpoint, Alpn::Unnamed).await.map_err(AcquireError::Connect)?;
    Ok(Lease { stream, open, endpoint: endpoint.clone(), cluster: cluster.clone(), reused: false })
}

impl ClusterState {
    /// Closes idle connections that have been so for too long, that the peer has closed, or that are no longer as wanted.
    pub(crate) fn sweep(&self, now: Instant) {
        let timeout = Duration::from_millis(self.compiled.config.limits.idle_timeout_ms);
        self.endpoints.iter().for_each(|endpoint| endpoint.sweep(now, timeout));
        if self.compiled.config.original_destination {
            self.originals.each(|endpoint| endpoint.sweep(now, timeout));
            self.originals.forget_unused(now, timeout);
        }
    }
}

impl EndpointState {
    fn sweep(self: &Rc<Self>, now: Instant, timeout: Duration) {
        let keep = |idle: &mut Idle| {
            now.duration_since(idle.since) < timeout && self.takes(idle.open.security) && idle.stream.is_quiet()
        };
        self.idle.borrow_mut().retain_mut(keep);
        self.h2.sweep(self, now, timeout);
        self.rpc.sweep(self);
    }
}
