//! The one table of routes. The router is made from it, and so is the document: what is served is documented.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use axum::{Router, middleware};

use crate::error::ApiError;
use crate::gate::{self, Access, Gate};
use crate::shared::Shared;
use crate::{changes, inspect, records, resources};

/// How handlers get what is shared.
pub(crate) type Handle = State<Arc<Shared>>;

/// What a route is about; decides its parameters and schemas in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A list of one kind.
    List,
    /// A new resource.
    Create,
    /// One resource.
    Read,
    /// A whole resource that replaces one.
    Replace,
    /// A part of a resource.
    Patch,
    /// The end of a resource.
    Delete,
    /// Events or audit entries.
    Records,
    /// A resource that is looked at and not stored.
    Preview,
    /// Anything else, with a JSON or text answer.
    Plain,
}

/// One route.
pub(crate) struct Endpoint {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    pub topic: Topic,
    pub operation: &'static str,
    pub summary: &'static str,
    handler: MethodRouter<Arc<Shared>>,
}

/// Every route there is.
pub(crate) fn all() -> Vec<Endpoint> {
    resource_endpoints().into_iter().chain(observed_endpoints()).chain(server_endpoints()).collect()
}

const MANY: &str = "/apis/weir.dev/v1/{plural}";
const ONE: &str = "/apis/weir.dev/v1/{plural}/{name}";

fn resource_endpoints() -> [Endpoint; 6] {
    use Access::{Read, Write};
    let endpoint = |method, path, access, topic, operation, summary, handler| Endpoint {
        method,
        path,
        access,
        topic,
        operation,
        summary,
        handler,
    };
    [
        endpoint(Method::GET, MANY, Read, Topic::List, "list", "List or watch {plural}", get(resources::list)),
        endpoint(
            Method::POST,
            MANY,
            Write,
            Topic::Create,
            "create",
            "Create one of the {plural}",
            post(resources::create),
        ),
        endpoint(Method::GET, ONE, Read, Topic::Read, "get", "Read or watch one of the {plural}", get(resources::read)),
        endpoint(
            Method::PUT,
            ONE,
            Write,
            Topic::Replace,
            "replace",
            "Replace one of the {plural}, if it is still at the given resourceVersion",
            put(resources::replace),
        ),
        endpoint(
            Method::PATCH,
            ONE,
            Write,
            Topic::Patch,
            "patch",
            "Merge a patch (RFC 7396) into one of the {plural}, or apply a whole text with apply=true",
            patch(resources::patch),
        ),
        endpoint(
            Method::DELETE,
            ONE,
            Write,
            Topic::Delete,
            "delete",
            "Delete one of the {plural}",
            delete(resources::delete),
        ),
    ]
}

fn observed_endpoints() -> [Endpoint; 8] {
    let read = |path, topic, operation, summary, handler| Endpoint {
        method: Method::GET,
        path,
        access: Access::Read,
        topic,
        operation,
        summary,
        handler,
    };
    use Topic::{Plain, Records};
    [
        read(
            "/apis/weir.dev/v1/events",
            Records,
            "listEvents",
            "What happened to resources, and why",
            get(records::events),
        ),
        read("/apis/weir.dev/v1/audit", Records, "listAudit", "Every write: who, when, why", get(records::audit)),
        read(
            "/apis/weir.dev/v1/explain/{kind}/{name}",
            Plain,
            "explain",
            "Why a resource waits, was blocked, or is as it is",
            get(inspect::explain),
        ),
        read(
            "/apis/weir.dev/v1/proxies",
            Plain,
            "listProxies",
            "Connected proxies: configuration sent, acknowledged, rejected; newest health",
            get(inspect::proxies),
        ),
        read(
            "/apis/weir.dev/v1/changes/{name}/report",
            Plain,
            "reportChange",
            "The record of a change: plans, steps, verdicts with evidence, who and why; also in words",
            get(changes::report),
        ),
        Endpoint {
            method: Method::POST,
            ..read(
                "/apis/weir.dev/v1/plan",
                Topic::Preview,
                "planChange",
                "What a change would do: batches, who waits, forecast, largest blast radius; writes nothing",
                post(changes::plan),
            )
        },
        read("/apis/weir.dev/v1", Plain, "listKinds", "The kinds of resources", get(inspect::discovery)),
        read("/metrics", Plain, "metrics", "Metrics in Prometheus's text format", get(inspect::metrics)),
    ]
}

fn server_endpoints() -> [Endpoint; 5] {
    let plain = |path, access, operation, summary, handler| Endpoint {
        method: Method::GET,
        path,
        access,
        topic: Topic::Plain,
        operation,
        summary,
        handler,
    };
    use Access::{Known, Open};
    [
        plain("/apis/weir.dev/v1/whoami", Known, "whoami", "Who this token belongs to", get(inspect::whoami)),
        plain("/version", Open, "version", "Version of the control plane", get(inspect::version)),
        plain("/healthz", Open, "healthz", "The process answers", get(inspect::healthz)),
        plain(
            "/readyz",
            Open,
            "readyz",
            "200 if every part works, 503 and which does not otherwise",
            get(inspect::readyz),
        ),
        plain("/openapi.json", Open, "openapi", "This document", get(inspect::openapi)),
    ]
}

/// The router over the table, each route behind its gate.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let add = |router: Router<Arc<Shared>>, endpoint: Endpoint| {
        let gate = Gate { shared: shared.clone(), access: endpoint.access, route: endpoint.path };
        router.route(endpoint.path, endpoint.handler.route_layer(from_fn_with_state(gate, gate::pass)))
    };
    all()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::map_response(harden))
        .with_state(shared.clone())
}

/// Answers are data of the moment, never to be guessed at or kept.
async fn harden(mut response: axum::response::Response) -> axum::response::Response {
    use axum::http::HeaderValue;
    use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}; see /openapi.json", uri.path()))
}

async fn unknown_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{method} is not something to do with {}; see /openapi.json", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}
