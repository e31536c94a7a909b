//! Envoy as a target: a static bootstrap, one worker thread, no admin listener, no request ids.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::cases::{DECOYS, PREFIX, decoy};
use crate::targets::Plan;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// Writes its configuration; gives its arguments.
pub fn prepare(plan: &Plan, folder: &Path) -> io::Result<Vec<String>> {
    let listeners = [("h1", plan.h1), ("h2", plan.h2)].map(|(name, at)| listener(name, at));
    let clusters = ["app", "decoy"].map(|name| cluster(name, plan.upstream));
    let bootstrap = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
    let file = folder.join("envoy.json");
    fs::write(&file, bootstrap.to_string())?;
    let file = file.to_string_lossy();
    let arguments = ["--concurrency", "1", "--log-level", "critical", "--disable-hot-restart", "-c", &file];
    Ok(arguments.map(str::to_owned).to_vec())
}

fn listener(name: &str, at: SocketAddr) -> Value {
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "generate_request_id": false,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes() }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": ROUTER, "suppress_envoy_headers": true }
        }]
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    json!({ "name": name, "address": address(at), "filter_chains": [{ "filters": [filter] }] })
}

fn routes() -> Vec<Value> {
    let route = |prefix: &str, cluster| json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } });
    (0..DECOYS).map(|number| route(&decoy(number), "decoy")).chain([route(PREFIX, "app")]).collect()
}

fn cluster(name: &str, upstream: SocketAddr) -> Value {
    let endpoint = json!({ "endpoint": { "address": address(upstream) } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] }
    })
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}
