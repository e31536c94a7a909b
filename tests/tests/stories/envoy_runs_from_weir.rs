//! Real Envoy runs from Weir's control plane: it takes listeners, routes, clusters and endpoints from it, state of the
//! world or delta, proxies requests to instances that joined, and follows when they change, without a failed request.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, TempDir, Weir, eventually, net, peers};

use crate::joined::{Caller, join};

#[test]
fn by_state_of_the_world() {
    follows_endpoints("GRPC");
}

#[test]
fn by_delta() {
    follows_endpoints("DELTA_GRPC");
}

fn follows_endpoints(api_type: &str) {
    let weir = Weir::start();
    let first = join(&weir, "stock", "stock-a", "http_server.py");
    let envoy = Envoy::start(&weir, api_type);
    let mut caller = Caller::new("stock", envoy.stock);
    caller.until_answered_by("stock-a");

    let _second = join(&weir, "stock", "stock-b", "http_server.py");
    caller.until_answered_by("stock-b");

    first.terminate();
    caller.until_only("stock-b");
    is_shown_as_acknowledging(&weir);
}

/// A running Envoy which offers `stock` locally, as the sidecar of an app `front` would.
pub struct Envoy {
    _process: Process,
    _folder: TempDir,
    /// Where it offers `stock`.
    pub stock: SocketAddr,
}

impl Envoy {
    /// Starts it; `api_type` is `GRPC` or `DELTA_GRPC`.
    pub fn start(weir: &Weir, api_type: &str) -> Envoy {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let (stock, inbound) = (net::free_address(), net::free_address());
        let file = folder.path().join("envoy.json");
        let token = weir.ok(&["token", "create", "envoy", "--role", "proxy", "--quiet"]);
        let mut bootstrap = bootstrap(weir.xds(), token.trim(), api_type, stock, inbound);
        if weir.control().starts_with("https") {
            bootstrap["static_resources"]["clusters"][0]["transport_socket"] = verifying(&weir.ca_file());
        }
        fs::write(&file, bootstrap.to_string()).expect("a temporary file can be written");
        let file = file.to_string_lossy();
        let flags = ["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart", "-c", &file];
        let process = Process::start("envoy", peers::envoy(), &flags);
        Envoy { _process: process, _folder: folder, stock }
    }
}

/// Envoy is shown with what it was sent and acknowledged: the same, of every type, and nothing rejected.
fn is_shown_as_acknowledging(weir: &Weir) {
    eventually("Envoy has acknowledged everything", LONG, || {
        let shown: Value = serde_json::from_str(&weir.ok(&["proxies", "-o", "json"])).map_err(|e| e.to_string())?;
        let items = shown["items"].as_array().ok_or("no items")?;
        let envoy = items.iter().find(|item| item["node"] == NODE).ok_or("no Envoy")?;
        let types = envoy["types"].as_object().ok_or("no types")?;
        let settled = |state: &Value| state["sent"] == state["acknowledged"] && state.get("rejected").is_none();
        if types.len() == 4 && types.values().all(settled) { Ok(()) } else { Err(envoy.to_string()) }
    });
}

/// Envoy's name in the mesh.
pub const NODE: &str = "envoy-front";

/// What an Envoy of the app `front` starts with: its place in the mesh, and where xDS is. It sends the token with each
/// stream, as `weir-proxy` does.
pub fn bootstrap(xds: SocketAddr, token: &str, api_type: &str, stock: SocketAddr, inbound: SocketAddr) -> Value {
    let upstreams = json!([{ "app": "stock", "listen": stock.to_string() }]);
    let metadata = json!({ "weir": {
        "app": "front", "unit": "", "address": inbound.ip().to_string(), "port": inbound.port(), "appPort": 0,
        "upstreams": upstreams
    }});
    let bearer = json!([{ "key": "authorization", "value": format!("Bearer {token}") }]);
    let ads = json!({ "resource_api_version": "V3", "ads": {} });
    json!({
        "node": { "id": NODE, "cluster": "front", "metadata": metadata },
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "weir" }, "initial_metadata": bearer }]
            },
            "lds_config": ads,
            "cds_config": ads
        },
        "static_resources": { "clusters": [control_plane(xds)] }
    })
}

/// TLS for that cluster, with the control plane verified.
fn verifying(ca: &Path) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "validation_context": { "trusted_ca": { "filename": ca } }
        }
    }})
}

/// The cluster by which Envoy reaches xDS: HTTP/2 in clear text.
fn control_plane(xds: SocketAddr) -> Value {
    let address = json!({ "socket_address": { "address": xds.ip().to_string(), "port_value": xds.port() } });
    let endpoint = json!({ "endpoint": { "address": address } });
    json!({
        "name": "weir",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} }
            }
        },
        "load_assignment": { "cluster_name": "weir", "endpoints": [{ "lb_endpoints": [endpoint] }] }
    })
}
