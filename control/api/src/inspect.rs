//! What is observed: explanations, proxies, health of the control plane, versions.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use weir_model::instance::{InstancePhase, InstanceStatus, ManagedBy};
use weir_model::{API_VERSION, Condition, Instance, Kind, Object};
use weir_store::observed::{ProxyView, TimedWindow};
use weir_store::{Event, EventQuery, EventType};

use crate::endpoints::Handle;
use crate::error::Result;
use crate::login::Login;
use crate::records;
use crate::resources::{may_read, stored};
use crate::shared::Shared;

/// Events looked at for an explanation.
const EVENTS: usize = 50;

/// `GET /explain/{kind}/{name}`.
pub(crate) async fn explain(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let key = records::key(&format!("{kind}/{name}"))?;
    may_read(key.kind, &login)?;
    let object = stored(&shared, &key).await?;
    let text = match shared.options.explain.get(&key.kind) {
        Some(domain) => domain.explain(&object, &shared.store, &shared.observed, Timestamp::now()).await?,
        None => plainly(&object),
    };
    let query = EventQuery { about: Some(key.clone()), limit: EVENTS };
    let warnings: Vec<Event> = shared.store.events(&query).await?.into_iter().filter(worrying).collect();
    Ok(Json(json!({"kind": key.kind, "name": key.name, "text": text, "warnings": warnings})))
}

fn worrying(event: &Event) -> bool {
    event.r#type == EventType::Warning
}

/// Without a domain's own words: phase, message and conditions.
fn plainly(object: &Object) -> String {
    let field = |name: &str| object.status.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    let mut text = object.key().to_string();
    let _infallible = match field("phase") {
        Some(phase) => write!(text, " is {phase}."),
        None => write!(text, " is stored and takes effect as it is; nothing waits for it."),
    };
    if let Some(message) = field("message") {
        let _infallible = write!(text, " {message}");
    }
    let conditions = object.status.get("conditions").cloned().unwrap_or_default();
    for condition in serde_json::from_value::<Vec<Condition>>(conditions).unwrap_or_default() {
        let Condition { r#type, status, reason, message, .. } = condition;
        let _infallible = write!(text, "\n{type} is {status:?} ({reason}): {message}");
    }
    if awaits_registration(object) {
        text.push_str(UNREGISTERED);
    }
    text
}

/// What to do about an Instance that was applied by hand.
const UNREGISTERED: &str = " It waits for its proxy to register by this name, and callers are not given it before: start \
    its program under `weir run --instance NAME`, or delete it. A proxy that only takes its configuration from here, as \
    a plain Envoy does, does not register.";

/// An Instance that nobody runs and that no proxy has ever spoken for.
fn awaits_registration(object: &Object) -> bool {
    let instance = Instance::try_from(object.clone());
    instance.is_ok_and(|i| {
        let InstanceStatus { phase, conditions, .. } = &i.status;
        i.spec.managed_by == ManagedBy::Itself && *phase == InstancePhase::Pending && conditions.is_empty()
    })
}

/// A proxy with what it reported last.
#[derive(Serialize)]
struct ProxyItem {
    #[serde(flatten)]
    view: ProxyView,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<LastHealth>,
}

/// The newest window of a proxy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastHealth {
    received: Timestamp,
    proxy_version: String,
    requests_per_second: f64,
    errors: u64,
    faults: BTreeMap<String, u64>,
    loop_delay_us: u32,
    active_connections: u32,
    rss_bytes: u64,
    cpu_us: u64,
}

impl From<&TimedWindow> for LastHealth {
    fn from(timed: &TimedWindow) -> LastHealth {
        let window = &timed.window;
        let requests = window.inbound.requests + window.outbound.requests;
        LastHealth {
            received: timed.received,
            proxy_version: timed.proxy_version.clone(),
            requests_per_second: requests as f64 * 1000.0 / f64::from(window.duration_ms.max(1)),
            errors: window.inbound.errors + window.outbound.errors,
            faults: window.faults.clone(),
            loop_delay_us: window.loop_delay_us,
            active_connections: window.active_connections,
            rss_bytes: window.rss_bytes,
            cpu_us: window.cpu_us,
        }
    }
}

/// `GET /proxies`.
pub(crate) async fn proxies(State(shared): Handle) -> Json<Value> {
    let latest = shared.observed.telemetry.latest();
    let item = |view: ProxyView| ProxyItem { health: latest.get(&view.node).map(LastHealth::from), view };
    let items: Vec<ProxyItem> = shared.observed.proxies.all().into_iter().map(item).collect();
    Json(json!({"items": items}))
}

/// `GET /whoami`.
pub(crate) async fn whoami(Extension(login): Extension<Login>) -> Json<Value> {
    Json(json!({"actor": login.actor, "role": login.role}))
}

/// `GET /apis/weir.dev/v1`: the kinds there are.
pub(crate) async fn discovery() -> Json<Value> {
    let kind = |k: Kind| json!({"kind": k, "plural": k.plural(), "short": k.short()});
    Json(json!({"apiVersion": API_VERSION, "kinds": Kind::ALL.map(kind)}))
}

/// `GET /version`.
pub(crate) async fn version(State(shared): Handle) -> Json<Value> {
    Json(json!({"version": shared.options.version, "apiVersion": API_VERSION}))
}

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: 200 if every part works, else 503; the body says which does not.
pub(crate) async fn readyz(State(shared): Handle) -> Response {
    let found = join_all(shared.options.probes.iter().map(|probe| async move {
        let result = probe.probe().await;
        let (Ok(detail) | Err(detail)) = &result;
        (result.is_ok(), json!({"name": probe.name(), "ok": result.is_ok(), "detail": detail}))
    }));
    let (ok, checks): (Vec<bool>, Vec<Value>) = found.await.into_iter().unzip();
    let ready = ok.into_iter().all(|ok| ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready, "checks": checks}))).into_response()
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(shared): Handle) -> Result<Response> {
    let text = shared.metrics.render(&shared).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// `GET /openapi.json`.
pub(crate) async fn openapi(State(shared): Handle) -> Json<Value> {
    Json(document_of(&shared))
}

fn document_of(shared: &Shared) -> Value {
    crate::openapi::document(&shared.options.version)
}
