//! weir-proxy as a target: a static file, one worker, no access log, no trace context.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use weir_config::{
    Balance, Cluster, ClusterLimits, Direction, Endpoint, Forward, Limits, Listener, ListenerProtocol, PathMatch,
    ProxyConfig, Route, RouteAction, RouteMatch, RouteTable, UpstreamProtocol, VirtualHost, WeightedCluster,
};

use crate::cases::{DECOYS, PREFIX, decoy};
use crate::targets::Plan;

/// Writes its configuration; gives its arguments.
pub fn prepare(plan: &Plan, folder: &Path) -> io::Result<Vec<String>> {
    let config = ProxyConfig {
        listeners: vec![listener("h1", plan.h1), listener("h2", plan.h2)],
        route_tables: vec![routes()],
        clusters: vec![cluster("app", plan.upstream), cluster("decoy", plan.upstream)],
        secrets: Vec::new(),
    };
    let file = folder.join("weir.yaml");
    // JSON is YAML.
    fs::write(&file, serde_json::to_string_pretty(&config)?)?;
    let arguments = ["--config", &file.to_string_lossy(), "--workers", "1", "--admin", "127.0.0.1:0"];
    Ok(arguments.map(str::to_owned).to_vec())
}

fn listener(name: &str, bind: SocketAddr) -> Listener {
    Listener {
        name: name.to_owned(),
        bind,
        direction: Direction::Outbound,
        protocol: ListenerProtocol::Auto,
        routes: "bench".to_owned(),
        limits: Limits::default(),
        access_log: false,
        trace: false,
        tls: None,
    }
}

fn routes() -> RouteTable {
    let routes = (0..DECOYS).map(|number| route(&decoy(number), "decoy")).chain([route(PREFIX, "app")]).collect();
    let all = VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes };
    RouteTable { name: "bench".to_owned(), hosts: vec![all] }
}

fn route(prefix: &str, cluster: &str) -> Route {
    let forward =
        Forward { clusters: vec![WeightedCluster { cluster: cluster.to_owned(), weight: 1 }], ..Forward::default() };
    Route {
        name: String::new(),
        matches: RouteMatch { path: PathMatch::Prefix(prefix.to_owned()), ..RouteMatch::default() },
        action: RouteAction::Forward(forward),
        request_headers: Default::default(),
        response_headers: Default::default(),
    }
}

fn cluster(name: &str, upstream: SocketAddr) -> Cluster {
    let endpoint = Endpoint { address: upstream, weight: 1, priority: 0, labels: Default::default(), tls: false };
    Cluster {
        name: name.to_owned(),
        protocol: UpstreamProtocol::Http1,
        balance: Balance::RoundRobin,
        endpoints: vec![endpoint],
        connect_timeout_ms: 5_000,
        limits: ClusterLimits::default(),
        tls: None,
    }
}
