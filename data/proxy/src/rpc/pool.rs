//! Connections to an endpoint, shared by all callers of a worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::frame::{Head, Protocol};
use super::link::Link;
use crate::stats::{Held, Refusal};
use crate::tls::Alpn;
use crate::upstream::{AcquireError, ClusterState, EndpointState, open_stream};
use crate::worker::Worker;

/// Connections per endpoint and worker. Each carries as many requests as [`Link::has_room`] allows.
const MAX_LINKS: usize = 16;

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct RpcPool {
    links: RefCell<Vec<Rc<Link>>>,
    /// Held while one is opened, so that a burst of requests opens one and not as many as it has requests.
    opening: tokio::sync::Mutex<()>,
    /// Connections that could not be opened so far.
    failures: Cell<u64>,
}

impl RpcPool {
    /// The connection with the fewest requests, if it has room.
    pub(super) fn best(&self, endpoint: &EndpointState, protocol: Protocol) -> Option<Rc<Link>> {
        self.sweep(endpoint);
        let links = self.links.borrow();
        let usable = links.iter().filter(|link| link.protocol == protocol && link.has_room());
        usable.min_by_key(|link| link.in_flight()).cloned()
    }

    /// Lets go of connections that are no longer as the endpoint wants them: they finish what they carry. Those that take
    /// no more requests for other reasons are forgotten.
    pub(crate) fn sweep(&self, endpoint: &EndpointState) {
        self.links.borrow_mut().retain(|link| {
            let as_wanted = endpoint.takes(link.security);
            if !as_wanted {
                link.retire();
            }
            as_wanted && link.takes_requests()
        });
    }

    /// Takes no more requests; what is in flight finishes, then the connections close.
    pub(crate) fn retire(&self) {
        self.links.take().iter().for_each(|link| link.retire());
    }
}

/// A connection to the endpoint that has room for a request: one that is there, or a new one.
///
/// # Errors
/// If a limit was reached or the endpoint did not take the connection.
pub(super) async fn acquire(
    worker: &Rc<Worker>,
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    protocol: Protocol,
    like: Head,
) -> Result<Rc<Link>, AcquireError> {
    let pool = &endpoint.rpc;
    if cluster.stats.pending.get() >= cluster.compiled.config.limits.max_pending as u64 {
        return Err(AcquireError::Refused(Refusal::Pending));
    }
    let _pending = Held::new(&cluster.stats.pending);
    let failures = pool.failures.get();
    let _opening = pool.opening.lock().await;
    if let Some(link) = pool.best(endpoint, protocol) {
        return Ok(link);
    }
    // Whoever waited for somebody else's attempt shares its outcome.
    if pool.failures.get() != failures {
        return Err(AcquireError::Connect(std::io::ErrorKind::ConnectionRefused.into()));
    }
    open(worker, cluster, endpoint, protocol, like).await
}

async fn open(
    worker: &Rc<Worker>,
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    protocol: Protocol,
    like: Head,
) -> Result<Rc<Link>, AcquireError> {
    let pool = &endpoint.rpc;
    let at_limit = cluster.stats.connections.get() >= cluster.compiled.config.limits.max_connections as u64;
    if at_limit || pool.links.borrow().len() >= MAX_LINKS {
        return Err(AcquireError::Refused(Refusal::Pending));
    }
    let (stream, open) = open_stream(cluster, endpoint, Alpn::Unnamed).await.map_err(|error| {
        pool.failures.set(pool.failures.get() + 1);
        AcquireError::Connect(error)
    })?;
    let link = Link::start(worker, cluster, stream, open, protocol, like);
    // One that is no longer wanted so carries this request, and is let go with the next look at the pool.
    pool.links.borrow_mut().push(link.clone());
    if endpoint.retired.get() {
        pool.retire();
    }
    Ok(link)
}
