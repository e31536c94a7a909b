//! Requests for a cluster whose endpoints are away for a moment, as the only one is while it is upgraded.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::cluster::ClusterState;
use crate::worker::Worker;

/// No request waits longer than this for an endpoint.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster once it has an endpoint, or as it is when `limit` or a minute is over. How many may wait is bounded by the
/// requests that the cluster may have in flight.
pub(crate) async fn with_endpoint(
    worker: &Worker,
    mut cluster: Rc<ClusterState>,
    limit: Option<Instant>,
) -> Rc<ClusterState> {
    let patience = Instant::now() + PATIENCE;
    let until = limit.map_or(patience, |limit| limit.min(patience));
    loop {
        let reconfigured = worker.reconfigured();
        cluster = worker.cluster(&cluster.compiled.name).unwrap_or(cluster);
        if !cluster.is_awaited() || timeout_at(until, reconfigured).await.is_err() {
            return cluster;
        }
    }
}
