//! What the admin endpoint shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{HealthWindow, LATENCY_BOUNDS_US, Proxy, Readiness, Traffic};

/// An answer.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Page {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Page { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    fn json(status: u16, value: &Value) -> Self {
        Page { status, content_type: "application/json", body: format!("{value:#}\n") }
    }
}

const HELP: &str = "GET  /ready             whether the proxy should get traffic (200 or 503)
GET  /stats/prometheus  metrics
GET  /config_dump       the configuration in force
GET  /clusters          endpoints and what was seen of them
GET  /health            the last health window
POST /drain             finish what is in flight and take no more
";

/// The page for a method and path.
pub(super) fn find(proxy: &Proxy, method: &str, path: &str) -> Page {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    match (method, path) {
        ("GET", "/") => Page::text(200, HELP),
        ("GET", "/ready") => ready(proxy),
        ("GET", "/stats/prometheus") => {
            Page { content_type: "text/plain; version=0.0.4; charset=utf-8", ..Page::text(200, proxy.metrics()) }
        }
        ("GET", "/config_dump") => config_dump(proxy),
        ("GET", "/clusters") => Page::json(200, &clusters(proxy)),
        ("GET", "/health") => Page::json(200, &health(&proxy.last_health_window())),
        ("POST", "/drain") => drain(proxy),
        (_, "/" | "/ready" | "/stats/prometheus" | "/config_dump" | "/clusters" | "/health" | "/drain") => {
            Page::text(405, format!("{method} is not allowed here\n{HELP}"))
        }
        _ => Page::text(404, format!("there is no {path}\n{HELP}")),
    }
}

fn ready(proxy: &Proxy) -> Page {
    let readiness = proxy.readiness();
    let (state, detail) = match &readiness {
        Readiness::Starting(what) => ("starting", what.as_str()),
        Readiness::Ready => ("ready", ""),
        Readiness::Failed(how) => ("failed", how.as_str()),
        Readiness::Draining => ("draining", "it finishes what it has and takes no more"),
    };
    let page = json!({
        "ready": readiness.is_ready(),
        "state": state,
        "detail": detail,
        "release": proxy.release(),
        "uptimeSeconds": proxy.uptime().as_secs(),
        "leavesWithinMs": proxy.leaves_within().as_millis() as u64,
        "drill": proxy.drill().map(|drill| drill.to_string()),
    });
    Page::json(if readiness.is_ready() { 200 } else { 503 }, &page)
}

fn config_dump(proxy: &Proxy) -> Page {
    let snapshot = proxy.snapshot();
    match serde_json::to_value(snapshot.config()) {
        Ok(mut config) => {
            config["certificates"] = json!(snapshot.certificates());
            Page::json(200, &config)
        }
        Err(error) => Page::text(500, format!("the configuration cannot be written as JSON: {error}\n")),
    }
}

fn clusters(proxy: &Proxy) -> Value {
    let totals = proxy.endpoint_totals();
    let snapshot = proxy.snapshot();
    let endpoint = |cluster: &weir_config::Cluster, endpoint: &weir_config::Endpoint| {
        let [requests, errors, active] =
            totals.get(&(cluster.name.as_str().into(), endpoint.address)).copied().unwrap_or_default();
        json!({
            "address": endpoint.address,
            "weight": endpoint.weight,
            "priority": endpoint.priority,
            "labels": endpoint.labels,
            "requests": requests,
            "errors": errors,
            "active": active,
        })
    };
    let cluster = |cluster: &weir_config::Cluster| {
        let endpoints: Vec<_> = cluster.endpoints.iter().map(|one| endpoint(cluster, one)).collect();
        json!({ "name": cluster.name, "balance": format!("{:?}", cluster.balance), "endpoints": endpoints })
    };
    snapshot.config().clusters.iter().map(cluster).collect()
}

fn health(window: &HealthWindow) -> Value {
    let endpoints: Vec<_> = window
        .endpoints
        .iter()
        .map(|seen| json!({"cluster": *seen.cluster, "address": seen.address, "requests": seen.requests, "errors": seen.errors}))
        .collect();
    json!({
        "inbound": traffic(&window.inbound),
        "outbound": traffic(&window.outbound),
        "faults": window.faults,
        "refused": window.refused,
        "loopDelayUs": window.loop_delay_us,
        "activeRequests": window.active_requests,
        "activeConnections": window.active_connections,
        "endpoints": endpoints,
    })
}

fn traffic(traffic: &Traffic) -> Value {
    let bounds = LATENCY_BOUNDS_US.iter().map(u64::to_string).chain(["inf".to_owned()]);
    let latency: BTreeMap<_, _> = bounds.zip(traffic.latency).filter(|(_, count)| *count > 0).collect();
    json!({ "requests": traffic.requests, "errors": traffic.errors, "latencyUs": latency })
}

fn drain(proxy: &Proxy) -> Page {
    proxy.ask_to_leave();
    Page::text(202, "draining\n")
}
