//! Configuration that changes under load: a control plane which gives a target everything by incremental xDS, and then
//! sends all its endpoints anew once a second.
//!
//! Envoy and Weir get the same resources. Ten endpoints take the traffic; the others stand by (priority 1), so that what
//! is measured is the update and not connecting to thousands of addresses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{ApiVersion, ConfigSource};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::Rds;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Named,
};
use envoy_types::pb::google::protobuf::{Any, BoolValue};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use weir_client::fixtures::{
    DeltaPeer, ENDPOINTS, FakeControlPlane, address, ads_source, eds_cluster, lb_endpoint, listener_with, manager,
    pack_any, route_to, table_of,
};

use super::Plan;
use crate::cases::{PREFIX, decoy};

/// Endpoints that take the traffic.
const ACTIVE: usize = 10;
/// Time between updates.
const PERIOD: Duration = Duration::from_secs(1);
/// The one cluster with many endpoints.
const CLUSTER: &str = "app";

/// The control plane; ends with the value.
pub struct Source {
    /// `http://HOST:PORT`.
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Starts it on a thread of its own, which stays on the core of whoever calls.
    pub fn start(plan: &Plan<'_>) -> Source {
        let mut world = World::new(plan);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = blocking::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let plane = FakeControlPlane::start().await;
                tell.send(plane.address.clone()).expect("whoever started this waits for it");
                tokio::select! {
                    () = world.serve(plane) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = told.recv().expect("a free port on loopback");
        Source { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// All resources, by type and name.
struct World {
    resources: HashMap<String, Vec<(String, Any)>>,
    endpoints: Vec<SocketAddr>,
    sent: u64,
}

impl World {
    fn new(plan: &Plan<'_>) -> World {
        let mut world = World { resources: HashMap::new(), endpoints: plan.endpoints.clone(), sent: 0 };
        world.add("h1", pack_any(listener(plan.h1)));
        world.add("bench", pack_any(routes(plan.decoys)));
        for name in [CLUSTER, "decoy"] {
            world.add(name, pack_any(cluster(name)));
            world.add(name, pack_any(assignment(name, &plan.endpoints)));
        }
        world
    }

    fn add(&mut self, name: &str, resource: Any) {
        self.resources.entry(resource.type_url.clone()).or_default().push((name.to_owned(), resource));
    }

    /// Answers subscriptions, and sends the endpoints anew each period; the last one comes and goes.
    async fn serve(&mut self, mut plane: FakeControlPlane) {
        let mut peer = plane.delta().await;
        let mut due = Instant::now() + PERIOD;
        loop {
            match timeout_at(due, peer.next()).await {
                Ok(request) => self.answer(&peer, &request).await,
                Err(_) => {
                    due += PERIOD;
                    let count = self.endpoints.len() - (self.sent % 2) as usize;
                    let update = (CLUSTER.to_owned(), pack_any(assignment(CLUSTER, &self.endpoints[..count])));
                    self.send(&peer, ENDPOINTS, vec![update]).await;
                }
            }
        }
    }

    async fn answer(&mut self, peer: &DeltaPeer, request: &DeltaDiscoveryRequest) {
        if let Some(error) = &request.error_detail {
            panic!("the target rejects what it is sent: {}", error.message);
        }
        let wanted = &request.resource_names_subscribe;
        if !request.response_nonce.is_empty() && wanted.is_empty() {
            return;
        }
        let all = self.resources.get(&request.type_url).cloned().unwrap_or_default();
        let is_wanted = |name: &String| wanted.is_empty() || wanted.iter().any(|want| want == "*" || want == name);
        let resources = all.into_iter().filter(|(name, _)| is_wanted(name)).collect();
        self.send(peer, &request.type_url, resources).await;
    }

    async fn send(&mut self, peer: &DeltaPeer, kind: &str, resources: Vec<(String, Any)>) {
        self.sent += 1;
        let version = self.sent.to_string();
        let named =
            |(name, resource)| Named { name, version: version.clone(), resource: Some(resource), ..Default::default() };
        let answer = DeltaDiscoveryResponse {
            type_url: kind.to_owned(),
            nonce: version.clone(),
            resources: resources.into_iter().map(named).collect(),
            ..Default::default()
        };
        peer.send(answer).await;
    }
}

fn ads() -> ConfigSource {
    ConfigSource { resource_api_version: ApiVersion::V3 as i32, ..ads_source() }
}

fn listener(at: SocketAddr) -> Listener {
    let rds = Rds { config_source: Some(ads()), route_config_name: "bench".to_owned() };
    let manager = HttpConnectionManager {
        stat_prefix: "h1".to_owned(),
        generate_request_id: Some(BoolValue { value: false }),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..manager("bench")
    };
    let here = Some(address(&at.ip().to_string(), at.port()));
    Listener { address: here, ..listener_with("h1", at.port(), pack_any(manager)) }
}

fn routes(decoys: usize) -> RouteConfiguration {
    use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
    let route = |prefix: String, cluster| {
        let mut route = route_to(cluster);
        let matches = route.r#match.get_or_insert_default();
        matches.path_specifier = Some(PathSpecifier::Prefix(prefix));
        route
    };
    let decoys = (0..decoys).map(|number| route(decoy(number), "decoy"));
    table_of("bench", decoys.chain([route(PREFIX.to_owned(), CLUSTER)]).collect())
}

fn cluster(name: &str) -> Cluster {
    let mut cluster = eds_cluster(name);
    if let Some(eds) = &mut cluster.eds_cluster_config {
        eds.eds_config = Some(ads());
    }
    cluster
}

fn assignment(name: &str, endpoints: &[SocketAddr]) -> ClusterLoadAssignment {
    let (active, standby) = endpoints.split_at(ACTIVE.min(endpoints.len()));
    let group = |priority, endpoints: &[SocketAddr]| LocalityLbEndpoints {
        priority,
        lb_endpoints: endpoints.iter().map(|at| lb_endpoint(&at.ip().to_string(), at.port())).collect(),
        ..Default::default()
    };
    let groups = vec![group(0, active), group(1, standby)];
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints: groups, ..Default::default() }
}
