//! Proxies that run from a file, with one route to one upstream: what stands between two peers when only the passage
//! matters.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use weir_testkit::{Process, TempDir, binary, net};

/// A proxy from a static file: everything goes to one upstream.
pub struct Proxy {
    _process: Process,
    _folder: TempDir,
    /// Where callers connect.
    pub address: SocketAddr,
}

impl Proxy {
    /// Listens for HTTP, told apart by the first bytes.
    pub fn start(upstream_protocol: &str, upstream: SocketAddr) -> Proxy {
        Self::configured(&json!({}), &json!({ "protocol": upstream_protocol }), &json!({}), upstream)
    }

    /// Two in a row, as between the sidecars of a caller and a server; returns the first, and keeps the second beside.
    pub fn pair(between: &str, upstream_protocol: &str, upstream: SocketAddr) -> (Proxy, Proxy) {
        let second = Self::start(upstream_protocol, upstream);
        (Self::start(between, second.address), second)
    }

    /// With more fields for the listener, the cluster and the route.
    pub fn configured(listener: &Value, cluster: &Value, route: &Value, upstream: SocketAddr) -> Proxy {
        Self::secured(listener, cluster, route, &json!([]), upstream)
    }

    /// Also with secrets for them.
    pub fn secured(listener: &Value, cluster: &Value, route: &Value, secrets: &Value, upstream: SocketAddr) -> Proxy {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let (address, admin) = (net::free_address(), net::free_address());
        let file = folder.path().join("weir.yaml");
        let mut config = config(address, listener, cluster, route, upstream);
        config["secrets"] = secrets.clone();
        fs::write(&file, config.to_string()).expect("a temporary file can be written");
        let flags = ["--config", &file.display().to_string(), "--admin", &admin.to_string()];
        let mut process = Process::start("weir-proxy", binary("weir-proxy"), &flags);
        process.wait_http(admin, "/ready");
        Proxy { _process: process, _folder: folder, address }
    }
}

fn config(address: SocketAddr, listener: &Value, cluster: &Value, route: &Value, upstream: SocketAddr) -> Value {
    let forward = json!({ "clusters": [{ "cluster": "upstream" }], "timeoutMs": 0 });
    let listener = with(json!({ "name": "all", "bind": address.to_string(), "routes": "all" }), listener);
    let route = with(json!({ "action": { "forward": forward } }), route);
    let endpoints = json!([{ "address": upstream.to_string() }]);
    json!({
        "listeners": [listener],
        "routeTables": [{ "name": "all", "hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] }],
        "clusters": [with(json!({ "name": "upstream", "endpoints": endpoints }), cluster)]
    })
}

fn with(mut object: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}
