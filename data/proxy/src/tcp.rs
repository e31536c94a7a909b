//! Plain TCP: one connection to an endpoint for each of the caller's.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::http1::{Moved, tunnel};
use crate::io::Buf;
use crate::phases::cluster_over_limit;
use crate::snapshot::Passage;
use crate::stats::Refusal;
use crate::upstream::{AcquireError, Choice, ClusterState, InFlight, Lease, acquire_new, with_endpoint};
use crate::worker::{Connection, Details, ListenerView, Ticket};

/// What the access log calls it.
pub(crate) const PROTOCOL: &str = "tcp";
/// Endpoints tried for one connection.
const ATTEMPTS: usize = 3;

/// Where a connection is to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `None`: there is no way for it.
    pub(crate) passage: Option<Passage>,
    /// The server that its TLS asks for.
    pub(crate) server_name: Option<String>,
}

/// Serves a connection: connects to an endpoint, then passes bytes both ways; `first` holds what was read already.
pub(crate) async fn serve(mut connection: Box<Connection>, mut first: Buf, wanted: Wanted) {
    let view = connection.listener.view();
    let mut ticket = Ticket::for_bytes(&connection.worker, &view, wanted.passage);
    ticket.keep_details(None, || details(&connection, wanted.server_name));
    match connect(&mut connection, &view, wanted.passage).await {
        Ok(lease) => pass(&mut connection, &view, &ticket, lease, first).await,
        Err(refusal) => {
            ticket.set_error();
            ticket.refused(refusal);
            connection.worker.buffers.discard(&mut first);
        }
    }
}

fn details(connection: &Connection, server_name: Option<String>) -> Details {
    Details {
        peer: connection.peer.to_string(),
        identity: connection.link.as_ref().map(|link| link.identity.clone()),
        protocol: Some(PROTOCOL),
        method: String::new(),
        host: server_name.unwrap_or_default(),
        path: String::new(),
        trace: None,
    }
}

async fn connect(connection: &mut Connection, view: &ListenerView, passage: Option<Passage>) -> Result<Lease, Refusal> {
    let place = passage.ok_or(Refusal::NoRoute)?.cluster;
    let by = Choice { hash: None, destination: connection.ends().destination };
    if let Some(refused) = cluster_over_limit(view, place, by) {
        return Err(refused.refusal.unwrap_or(Refusal::NoEndpoint));
    }
    let mut cluster = view.view.clusters[place].clone();
    if cluster.is_awaited() {
        cluster = Box::pin(with_endpoint(&connection.worker, cluster, None)).await;
    }
    let time = Duration::from_millis(cluster.compiled.config.connect_timeout_ms) * ATTEMPTS as u32;
    let deadline = Instant::now() + time;
    let connected = Box::pin(try_endpoints(&cluster, by));
    connection.timer.limit(Some(deadline), connected).await.unwrap_or(Err(Refusal::Connect))
}

async fn try_endpoints(cluster: &Rc<ClusterState>, by: Choice) -> Result<Lease, Refusal> {
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        let endpoint = cluster.choose(by, &tried).ok_or(Refusal::NoEndpoint)?;
        if tried.contains(&endpoint.address) {
            break;
        }
        match acquire_new(cluster, &endpoint).await {
            Ok(lease) => return Ok(lease),
            Err(AcquireError::Refused(refusal)) => return Err(refusal),
            Err(AcquireError::Connect(error)) => {
                tracing::debug!(endpoint = %endpoint.address, %error, "cannot connect");
                InFlight::new(&endpoint).finish(true);
                tried.push(endpoint.address);
            }
        }
    }
    Err(Refusal::Connect)
}

async fn pass(
    connection: &mut Connection,
    view: &ListenerView,
    ticket: &Ticket,
    mut lease: Lease,
    mut from_caller: Buf,
) {
    ticket.set_endpoint(lease.endpoint.address);
    let in_flight = InFlight::new(&lease.endpoint);
    let idle = Duration::from_millis(view.compiled.config.limits.idle_timeout_ms);
    let Connection { worker, stream, timer, .. } = connection;
    let mut from_upstream = Buf::default();
    let stats = lease.stats();
    let moved = Moved { total: &stats, up: &ticket.bytes_up, down: &ticket.bytes_down };
    tunnel(worker, timer, Some(idle), (stream, &mut from_caller), (&mut lease.stream, &mut from_upstream), moved).await;
    worker.buffers.discard(&mut from_caller);
    worker.buffers.discard(&mut from_upstream);
    in_flight.finish(false);
}
