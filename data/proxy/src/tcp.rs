//! Plain TCP: one connection to the cluster for each of the caller's.

use std::time::Duration;

use tokio::time::Instant;

use crate::http1::tunnel;
use crate::io::Buf;
use crate::snapshot::Target;
use crate::stats::Refusal;
use crate::upstream::{ClusterState, InFlight, Lease, acquire};
use crate::worker::{Connection, ListenerView, Ticket, count_refusal};

/// Endpoints tried for one connection.
const ATTEMPTS: usize = 3;

/// Serves a connection: connects to an endpoint, then passes bytes both ways; `first` holds what was read already.
pub(crate) async fn serve(mut connection: Box<Connection>, first: Buf) {
    let view = connection.listener.view();
    let Target::Cluster(place) = view.compiled.target else { return };
    let cluster = view.view.clusters[place].clone();
    let ticket = Ticket::for_cluster(&connection.worker, &view, place);
    connection.control.set_busy(true);
    let Some(mut lease) = connect(&cluster).await else {
        ticket.set_error();
        count_refusal(&connection.worker, Refusal::Connect);
        return;
    };
    ticket.set_endpoint(lease.endpoint.address);
    let in_flight = InFlight::new(&lease.endpoint);
    pass(&mut connection, &view, &mut lease, first).await;
    in_flight.finish(false);
}

async fn pass(connection: &mut Connection, view: &ListenerView, lease: &mut Lease, mut from_caller: Buf) {
    let idle = Duration::from_millis(view.compiled.config.limits.idle_timeout_ms);
    let Connection { worker, stream, timer, .. } = connection;
    let mut from_upstream = Buf::default();
    tunnel(worker, timer, idle, (stream, &mut from_caller), (&mut lease.stream, &mut from_upstream)).await;
}

async fn connect(cluster: &std::rc::Rc<ClusterState>) -> Option<Lease> {
    let deadline = Instant::now() + Duration::from_millis(cluster.compiled.config.connect_timeout_ms) * ATTEMPTS as u32;
    let mut tried = Vec::new();
    for _ in 0..ATTEMPTS {
        let endpoint = cluster.choose(None, &tried)?;
        match tokio::time::timeout_at(deadline, acquire(cluster, &endpoint)).await {
            Ok(Ok(lease)) => return Some(lease),
            Ok(Err(_)) => tried.push(endpoint.address),
            Err(_) => return None,
        }
    }
    None
}
