//! Envoy as a target: a static bootstrap, one worker thread, no admin listener, no request ids.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::cases::{PREFIX, decoy};
use crate::targets::Plan;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// Writes its configuration; gives its arguments.
pub fn prepare(plan: &Plan<'_>, folder: &Path) -> io::Result<Vec<String>> {
    let mut encrypted = listener("tls", plan.tls, plan.decoys);
    encrypted["filter_chains"][0]["transport_socket"] = tls(plan);
    let plain = [("h1", plan.h1), ("h2", plan.h2)].map(|(name, at)| listener(name, at, plan.decoys));
    let listeners: Vec<_> = plain.into_iter().chain([encrypted]).collect();
    let clusters = ["app", "decoy"].map(|name| cluster(name, plan.upstream(), plan.h2_upstream));
    let bootstrap = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
    write(&bootstrap, folder)
}

/// The same where everything comes from a control plane at `http://HOST:PORT`.
pub fn follow(control: &str, folder: &Path) -> io::Result<Vec<String>> {
    let at: SocketAddr = control.trim_start_matches("http://").parse().map_err(io::Error::other)?;
    let ads = json!({ "resource_api_version": "V3", "ads": {} });
    let bootstrap = json!({
        "node": { "id": "bench", "cluster": "bench" },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "control" } }]
            },
            "lds_config": ads,
            "cds_config": ads
        },
        "static_resources": { "clusters": [cluster("control", at, true)] }
    });
    write(&bootstrap, folder)
}

fn write(bootstrap: &Value, folder: &Path) -> io::Result<Vec<String>> {
    let file = folder.join("envoy.json");
    fs::write(&file, bootstrap.to_string())?;
    let file = file.to_string_lossy();
    let arguments = ["--concurrency", "1", "--log-level", "critical", "--disable-hot-restart", "-c", &file];
    Ok(arguments.map(str::to_owned).to_vec())
}

fn listener(name: &str, at: SocketAddr, decoys: usize) -> Value {
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "generate_request_id": false,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes(decoys) }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": ROUTER, "suppress_envoy_headers": true }
        }]
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    json!({ "name": name, "address": address(at), "filter_chains": [{ "filters": [filter] }] })
}

fn routes(decoys: usize) -> Vec<Value> {
    let route = |prefix: &str, cluster| json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } });
    (0..decoys).map(|number| route(&decoy(number), "decoy")).chain([route(PREFIX, "app")]).collect()
}

fn tls(plan: &Plan<'_>) -> Value {
    let file = |path: &Path| json!({ "filename": path });
    let certificate =
        json!({ "certificate_chain": file(&plan.certificate.chain), "private_key": file(&plan.certificate.key) });
    let only = json!({ "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" });
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": { "tls_certificates": [certificate], "tls_params": only },
        "disable_stateless_session_resumption": true
    });
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}

fn cluster(name: &str, at: SocketAddr, is_h2: bool) -> Value {
    let endpoint = json!({ "endpoint": { "address": address(at) } });
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] }
    });
    if is_h2 {
        cluster["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} }
        }});
    }
    cluster
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}
