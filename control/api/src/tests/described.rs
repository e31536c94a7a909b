//! The document and the routes agree.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Server;
use crate::endpoints;

/// Every documented operation as method and path, names filled in.
fn documented(document: &Value) -> Vec<(Method, String)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = |(path, operations): (&String, &Value)| {
        let path = path.replace("{kind}", "app").replace("{name}", "stock");
        let methods: Vec<Method> =
            operations.as_object().unwrap().keys().map(|m| m.to_ascii_uppercase().parse().unwrap()).collect();
        methods.into_iter().map(move |method| (method, path.clone()))
    };
    paths.iter().flat_map(operations).collect()
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.1;
    assert_eq!(document["openapi"], "3.1.0");
    for (method, path) in documented(&document) {
        let (status, body) = server.ask(method.clone(), &path, Value::Null).await;
        let unrouted = body["message"].as_str().is_some_and(|m| m.contains("see /openapi.json"));
        assert!(!unrouted && status != StatusCode::METHOD_NOT_ALLOWED, "{method} {path}: {status} {body}");
    }
}

#[tokio::test]
async fn every_route_is_documented() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.1;
    for endpoint in endpoints::all() {
        let path = endpoint.path.replace("{plural}", "apps");
        let method = endpoint.method.as_str().to_ascii_lowercase();
        assert!(document["paths"][&path][&method].is_object(), "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_not_documented_is_not_served() {
    let server = Server::start().await;
    for (method, path, wanted) in [
        (Method::GET, "/apis/weir.dev/v2/apps", StatusCode::NOT_FOUND),
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::DELETE, "/version", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/apis/weir.dev/v1/apps", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (status, body) = server.ask(method.clone(), path, Value::Null).await;
        assert_eq!(status, wanted, "{method} {path}");
        assert!(body["message"].as_str().unwrap().contains("see /openapi.json"));
    }
}

#[tokio::test]
async fn readiness_tells_which_part_does_not_work() {
    struct Broken;
    #[async_trait::async_trait]
    impl crate::Probe for Broken {
        fn name(&self) -> &str {
            "store"
        }
        async fn probe(&self) -> Result<String, String> {
            Err("the disk is full".into())
        }
    }
    let mut options = crate::Options::default();
    options.probes.push(std::sync::Arc::new(Broken));
    let server = Server::with(options).await;
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, json!({"ready": false, "checks": [{"name": "store", "ok": false, "detail": "the disk is full"}]}));
}

#[tokio::test]
async fn metrics_are_there() {
    let server = Server::start().await;
    server.get("/healthz").await;
    let text =
        server.request(Method::GET, "/metrics").bearer_auth("viewer").send().await.unwrap().text().await.unwrap();
    for wanted in ["weir_build_info{version=", "route=\"/healthz\",code=\"200\"", "# TYPE weir_instances gauge"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}
