//! What is at work is not taken away or turned round under way.

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use weir_model::change::{Change, ChangePhase, ChangeSpec};
use weir_model::instance::{Instance, InstancePhase, InstanceSpec};
use weir_store::typed;

use super::Server;

const CHANGE: &str = "/apis/weir.dev/v1/changes/to-b";
const INSTANCES: &str = "/apis/weir.dev/v1/instances";

fn instance(name: &str, managed_by: &str) -> Value {
    let spec = json!({"app": "stock", "address": "127.0.0.2", "port": 8080, "managedBy": managed_by});
    json!({"apiVersion": "weir.dev/v1", "kind": "Instance", "metadata": {"name": name}, "spec": spec})
}

/// Applies `change/to-b` and lets the engine's status say this of it.
async fn change(server: &Server, phase: ChangePhase) {
    let body = Change::new("to-b", ChangeSpec::proxy_upgrade("b")).to_object();
    server.post("/apis/weir.dev/v1/changes", serde_json::to_value(body).unwrap()).await;
    observed(server, phase).await;
}

async fn observed(server: &Server, phase: ChangePhase) {
    let mut change: Change = typed::get::<ChangeSpec>(&*server.store, "to-b").await.unwrap().unwrap();
    change.status.phase = phase;
    change.status.started_at = Some(Timestamp::UNIX_EPOCH);
    typed::update_status(&*server.store, &change).await.unwrap();
}

#[tokio::test]
async fn an_instance_that_weir_runs_leaves_in_order() {
    let server = Server::start().await;
    let path = format!("{INSTANCES}/stock-1");
    server.post(INSTANCES, instance("stock-1", "Weir")).await;
    let dry = server.ask(Method::DELETE, &format!("{path}?dryRun=true"), Value::Null).await;
    assert_eq!((dry.0, &dry.1["spec"]["retire"]), (StatusCode::OK, &json!(true)));
    assert_eq!(server.get(&path).await.1["spec"]["retire"], Value::Null, "a dry run writes nothing");
    for _ in 0..2 {
        let (status, leaving) = server.ask(Method::DELETE, &path, Value::Null).await;
        assert_eq!((status, &leaving["spec"]["retire"]), (StatusCode::OK, &json!(true)));
        assert_eq!(server.get(&path).await.1, leaving, "it is still there");
    }
    server.ask(Method::DELETE, &format!("{path}?force=true"), Value::Null).await;
    assert_eq!(server.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_instance_that_joined_by_itself_is_deleted_at_once() {
    let server = Server::start().await;
    server.post(INSTANCES, instance("stock-x", "Itself")).await;
    let path = format!("{INSTANCES}/stock-x");
    assert_eq!(server.ask(Method::DELETE, &path, Value::Null).await.0, StatusCode::OK);
    assert_eq!(server.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_change_under_way_is_not_deleted() {
    let server = Server::start().await;
    change(&server, ChangePhase::Running).await;
    for query in ["", "?force=true"] {
        let (status, error) = server.ask(Method::DELETE, &format!("{CHANGE}{query}"), Value::Null).await;
        assert_eq!((status, &error["reason"]), (StatusCode::CONFLICT, &json!("UnderWay")));
        assert!(error["message"].as_str().unwrap().contains("weir change abort|rollback to-b"), "{error}");
    }
    observed(&server, ChangePhase::Aborted).await;
    assert_eq!(server.ask(Method::DELETE, CHANGE, Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_change_under_way_keeps_its_course() {
    let server = Server::start().await;
    change(&server, ChangePhase::Running).await;
    let (status, error) = server.patch(CHANGE, json!({"spec": {"scope": {"apps": ["order"]}}})).await;
    assert_eq!((status, &error["details"][0]["path"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("spec.scope")));
    let (_, mut read) = server.get(CHANGE).await;
    read["spec"]["action"]["proxyUpgrade"]["version"] = json!("c");
    for (method, path) in [(Method::PUT, CHANGE.to_owned()), (Method::PATCH, format!("{CHANGE}?apply=true"))] {
        let (status, error) = server.ask(method, &path, read.clone()).await;
        assert_eq!((status, &error["details"][0]["path"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("spec.action")));
    }
    assert_eq!(server.patch(CHANGE, json!({"spec": {"command": "Pause"}})).await.0, StatusCode::OK);
    observed(&server, ChangePhase::RolledBack).await;
    let (status, error) = server.patch(CHANGE, json!({"spec": {"retries": 1}})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error["message"].as_str().unwrap().contains("has ended (RolledBack)"), "{error}");
}

fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "weir.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_release_in_use_is_not_deleted() {
    const RELEASE: &str = "/apis/weir.dev/v1/releases/proxy-b";
    let server = Server::start().await;
    let release = json!({"component": "proxy", "version": "b", "path": "/opt/weir-proxy"});
    server.post("/apis/weir.dev/v1/releases", resource("Release", "proxy-b", release)).await;
    change(&server, ChangePhase::Running).await;
    let mut stock = instance("stock-1", "Weir");
    stock["spec"]["proxyVersion"] = json!("b");
    server.post(INSTANCES, stock).await;
    let (status, error) = server.ask(Method::DELETE, RELEASE, Value::Null).await;
    assert_eq!((status, &error["reason"]), (StatusCode::CONFLICT, &json!("InUse")));
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("instance/stock-1, change/to-b; ") && message.contains("weir release withdraw b"),
        "{message}"
    );
    observed(&server, ChangePhase::Succeeded).await;
    server.ask(Method::DELETE, &format!("{INSTANCES}/stock-1"), Value::Null).await;
    assert_eq!(server.ask(Method::DELETE, RELEASE, Value::Null).await.0, StatusCode::OK, "nobody runs it any more");
}

#[tokio::test]
async fn a_release_in_use_is_deleted_by_force() {
    const RELEASE: &str = "/apis/weir.dev/v1/releases/proxy-b";
    let server = Server::start().await;
    let release = json!({"component": "proxy", "version": "b", "path": "/opt/weir-proxy"});
    server.post("/apis/weir.dev/v1/releases", resource("Release", "proxy-b", release)).await;
    change(&server, ChangePhase::Running).await;
    assert_eq!(server.ask(Method::DELETE, RELEASE, Value::Null).await.0, StatusCode::CONFLICT);
    let forced = server.ask(Method::DELETE, &format!("{RELEASE}?force=true"), Value::Null).await;
    assert_eq!(forced.0, StatusCode::OK);
}

#[tokio::test]
async fn an_app_with_live_instances_is_not_deleted() {
    const APP: &str = "/apis/weir.dev/v1/apps/stock";
    let server = Server::start().await;
    server.post("/apis/weir.dev/v1/apps", resource("App", "stock", json!({"protocol": "grpc"}))).await;
    server.post(INSTANCES, instance("stock-x", "Itself")).await;
    let mut live: Instance = typed::get::<InstanceSpec>(&*server.store, "stock-x").await.unwrap().unwrap();
    live.status.phase = InstancePhase::Serving;
    typed::update_status(&*server.store, &live).await.unwrap();
    let (status, error) = server.ask(Method::DELETE, APP, Value::Null).await;
    assert_eq!((status, &error["reason"]), (StatusCode::CONFLICT, &json!("InUse")));
    assert!(error["message"].as_str().unwrap().contains("app/stock is in use by instance/stock-x"), "{error}");
    assert_eq!(server.ask(Method::DELETE, &format!("{APP}?force=true"), Value::Null).await.0, StatusCode::OK);
}
