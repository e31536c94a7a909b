//! weir-proxy as a target: a static file, one worker, no access log, no trace context.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use weir_config::{
    Balance, Cluster, ClusterLimits, Direction, Endpoint, Forward, KeyPair, Limits, Listener, ListenerProtocol,
    ListenerTls, PathMatch, Pem, ProxyConfig, Route, RouteAction, RouteMatch, RouteTable, Secret, TlsMode,
    UpstreamProtocol, VirtualHost, WeightedCluster,
};

use crate::cases::{PREFIX, decoy};
use crate::rpc::Protocol;
use crate::targets::Plan;

/// Writes its configuration; gives its arguments.
pub fn prepare(plan: &Plan<'_>, folder: &Path) -> io::Result<Vec<String>> {
    let tls = ListenerTls {
        mode: TlsMode::Strict,
        certificate: SECRET.to_owned(),
        trust: None,
        handshake_timeout_ms: 10_000,
        max_handshakes: 1_000,
    };
    let config = ProxyConfig {
        listeners: vec![
            listener("h1", plan.h1, None),
            listener("h2", plan.h2, None),
            listener("tls", plan.tls, Some(tls)),
        ],
        route_tables: vec![routes(plan.decoys)],
        clusters: vec![cluster("app", plan), cluster("decoy", plan)],
        secrets: vec![secret(plan)],
    };
    let file = folder.join("weir.yaml");
    // JSON is YAML.
    fs::write(&file, serde_json::to_string_pretty(&config)?)?;
    let arguments = ["--config", &file.to_string_lossy(), "--workers", "1", "--admin", "127.0.0.1:0"];
    Ok(arguments.map(str::to_owned).to_vec())
}

/// Its arguments where everything comes from a control plane.
pub fn follow(control: &str) -> Vec<String> {
    let arguments = ["--control", control, "--instance", "bench", "--app", "bench", "--workers", "1"];
    arguments.map(str::to_owned).to_vec()
}

/// Name of the secret with the certificate.
const SECRET: &str = "server";

fn secret(plan: &Plan<'_>) -> Secret {
    let certificate =
        KeyPair { chain: Pem::File(plan.certificate.chain.clone()), key: Pem::File(plan.certificate.key.clone()) };
    Secret { name: SECRET.to_owned(), certificate: Some(certificate), trust: None }
}

fn listener(name: &str, bind: SocketAddr, tls: Option<ListenerTls>) -> Listener {
    Listener {
        name: name.to_owned(),
        bind,
        direction: Direction::Outbound,
        protocol: ListenerProtocol::Auto,
        routes: "bench".to_owned(),
        bind_to_port: true,
        original_destination: false,
        server_names: Vec::new(),
        tcp_cluster: None,
        limits: Limits::default(),
        access_log: false,
        trace: false,
        tls,
        drain_ms: None,
    }
}

fn routes(decoys: usize) -> RouteTable {
    let routes = (0..decoys).map(|number| route(&decoy(number), "decoy")).chain([route(PREFIX, "app")]).collect();
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

fn cluster(name: &str, plan: &Plan<'_>) -> Cluster {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: *address,
        weight: 1,
        priority: 0,
        labels: Default::default(),
        tls: false,
    };
    // A connection to each endpoint is to stay, or what is measured is connecting.
    let max_connections = plan.endpoints.len() + ClusterLimits::default().max_connections;
    Cluster {
        name: name.to_owned(),
        protocol: match plan.rpc {
            Some(Protocol::Bolt) => UpstreamProtocol::Bolt,
            Some(Protocol::Dubbo) => UpstreamProtocol::Dubbo,
            None if plan.h2_upstream => UpstreamProtocol::Http2,
            None => UpstreamProtocol::Http1,
        },
        balance: Balance::RoundRobin,
        endpoints: plan.endpoints.iter().map(endpoint).collect(),
        original_destination: false,
        returning: false,
        connect_timeout_ms: 5_000,
        limits: ClusterLimits { max_connections, ..ClusterLimits::default() },
        health_check: None,
        tls: None,
    }
}
