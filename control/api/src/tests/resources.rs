//! Reading and writing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{APPS, Server, app};

#[tokio::test]
async fn created_read_listed_deleted() {
    let server = Server::start().await;
    let (status, created) = server.post(APPS, app("stock", json!({"owner": "pay"}))).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(created["spec"]["tier"], 3, "defaults are written out");
    assert_eq!(server.get("/apis/weir.dev/v1/apps/stock").await, (StatusCode::OK, created.clone()));

    let (_, list) = server.get(APPS).await;
    assert_eq!(list["kind"], "AppList");
    assert_eq!(list["items"], json!([created]));

    let gone = server.ask(Method::DELETE, "/apis/weir.dev/v1/apps/stock", Value::Null).await;
    assert_eq!((gone.0, &gone.1["metadata"]["name"]), (StatusCode::OK, &json!("stock")));
    let (status, error) = server.get("/apis/weir.dev/v1/apps/stock").await;
    assert_eq!((status, &error["message"]), (StatusCode::NOT_FOUND, &json!("app/stock not found")));
}

#[tokio::test]
async fn a_second_create_is_refused() {
    let server = Server::start().await;
    server.post(APPS, app("stock", json!({}))).await;
    for path in [APPS.to_owned(), format!("{APPS}?dryRun=true")] {
        let (status, error) = server.post(&path, app("stock", json!({}))).await;
        assert_eq!((status, &error["reason"]), (StatusCode::CONFLICT, &json!("AlreadyExists")));
    }
}

#[tokio::test]
async fn a_stale_replace_conflicts() {
    let server = Server::start().await;
    let (_, mut first) = server.post(APPS, app("stock", json!({"tier": 2}))).await;
    let mut second = first.clone();
    first["spec"]["tier"] = json!(1);
    second["spec"]["tier"] = json!(4);
    let path = format!("{APPS}/stock");
    let (status, written) = server.ask(Method::PUT, &path, first).await;
    assert_eq!((status, &written["metadata"]["generation"]), (StatusCode::OK, &json!(2)));
    for path in [path.clone(), format!("{path}?dryRun=true")] {
        let (status, error) = server.ask(Method::PUT, &path, second.clone()).await;
        assert_eq!((status, &error["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    }
    second["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let (status, error) = server.ask(Method::PUT, &path, second).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error["details"][0]["path"], "metadata.resourceVersion");
}

#[tokio::test]
async fn errors_name_the_field_and_the_nearest_name() {
    let server = Server::start().await;
    let (status, error) = server.post(APPS, app("stock", json!({"teir": 2}))).await;
    assert_eq!((status, &error["reason"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("Invalid")));
    assert_eq!(error["details"][0]["path"], "spec.teir");
    assert_eq!(error["details"][0]["hint"], "did you mean \"tier\"?");

    let (_, error) = server.post(APPS, app("Stock!", json!({"tier": 9}))).await;
    let paths: Vec<_> = error["details"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["metadata.name", "spec.tier"]);

    let (_, error) = server.post("/apis/weir.dev/v1/units", app("stock", json!({}))).await;
    assert_eq!(error["details"][0]["path"], "kind");
    let (status, error) = server.get("/apis/weir.dev/v1/aps").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(error["message"].as_str().unwrap().contains("did you mean \"apps\"?"), "{error}");
    let (status, error) = server.get(&format!("{APPS}?labelselector=a=b")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let server = Server::start().await;
    let (status, would_be) = server.post(&format!("{APPS}?dryRun=true"), app("stock", json!({}))).await;
    assert_eq!((status, &would_be["spec"]["tier"]), (StatusCode::CREATED, &json!(3)));
    assert_eq!(server.get(&format!("{APPS}/stock")).await.0, StatusCode::NOT_FOUND);

    let (_, stored) = server.post(APPS, app("stock", json!({}))).await;
    let dry = format!("{APPS}/stock?dryRun=true");
    let (_, would_be) = server.patch(&dry, json!({"spec": {"tier": 1}})).await;
    assert_eq!((&would_be["spec"]["tier"], &would_be["metadata"]["generation"]), (&json!(1), &json!(2)));
    assert_eq!(server.ask(Method::DELETE, &dry, Value::Null).await.0, StatusCode::OK);
    assert_eq!(server.get(&format!("{APPS}/stock")).await.1, stored);
}

#[tokio::test]
async fn patches_merge() {
    let server = Server::start().await;
    server.post(APPS, app("stock", json!({"tier": 1, "owner": "pay"}))).await;
    let path = format!("{APPS}/stock");
    let (status, patched) =
        server.patch(&path, json!({"metadata": {"labels": {"a": "b"}}, "spec": {"tier": null}})).await;
    assert_eq!(status, StatusCode::OK, "{patched}");
    assert_eq!((&patched["spec"]["tier"], &patched["spec"]["owner"]), (&json!(3), &json!("pay")));
    assert_eq!(patched["metadata"]["labels"], json!({"a": "b"}));

    let stale = json!({"metadata": {"resourceVersion": 1}, "spec": {"tier": 2}});
    assert_eq!(server.patch(&path, stale).await.0, StatusCode::CONFLICT);
    for wrong in
        [json!({"metadata": {"name": "other"}}), json!({"kind": "Unit"}), json!({"status": {}}), json!({"spec": 3})]
    {
        let (status, error) = server.patch(&path, wrong.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong} {error}");
    }
    assert_eq!(server.patch(&path, json!([1])).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = Server::start().await;
    server.post(APPS, app("stock", json!({}))).await;
    let path = format!("{APPS}/stock");
    let label = |n: u32| server.patch(&path, json!({"metadata": {"labels": {format!("l{n}"): "x"}}}));
    let answers = futures::future::join_all((0..8).map(label)).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
    let (_, stored) = server.get(&path).await;
    assert_eq!(stored["metadata"]["labels"].as_object().unwrap().len(), 8);
}

/// Applies and tells what the server says it did.
async fn apply(server: &Server, body: &Value) -> (String, Value) {
    let path = format!("{APPS}/{}?apply=true", body["metadata"]["name"].as_str().unwrap());
    let request = server.request(Method::PATCH, &path).bearer_auth("admin").json(body);
    let response = request.send().await.unwrap();
    let result = response.headers().get("weir-result").map(|r| r.to_str().unwrap().to_owned());
    (result.unwrap_or_default(), response.json().await.unwrap())
}

#[tokio::test]
async fn apply_tells_created_configured_unchanged() {
    let server = Server::start().await;
    let text = app("stock", json!({"tier": 1, "owner": "pay"}));
    assert_eq!(apply(&server, &text).await.0, "created");
    assert_eq!(apply(&server, &text).await.0, "unchanged");
    // Somebody else's field stays; a field that is no longer in the text goes back to its default.
    server.patch(&format!("{APPS}/stock"), json!({"spec": {"timeoutMs": 99}})).await;
    let (result, stored) = apply(&server, &app("stock", json!({"owner": "pay"}))).await;
    assert_eq!(result, "configured");
    assert_eq!(stored["spec"]["tier"], 3);
    assert_eq!(stored["spec"]["timeoutMs"], 99);
    assert_eq!(apply(&server, &app("stock", json!({"owner": "pay"}))).await.0, "unchanged");
}

#[tokio::test]
async fn what_was_read_can_be_applied() {
    let server = Server::start().await;
    server.post(APPS, app("stock", json!({"tier": 1}))).await;
    let (_, stored) = server.get(&format!("{APPS}/stock")).await;
    assert_eq!(apply(&server, &stored).await.0, "unchanged");
}

#[tokio::test]
async fn lists_are_paged_and_selected() {
    let server = Server::start().await;
    for n in 0..5 {
        let mut body = app(&format!("a{n}"), json!({}));
        body["metadata"]["labels"] = json!({"even": (n % 2 == 0).to_string()});
        server.post(APPS, body).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, page) = server.get(&format!("{APPS}?limit=2&labelSelector=even=true")).await;
    assert_eq!(names(&page), ["a0", "a2"]);
    let next = page["metadata"]["continue"].as_str().unwrap();
    let (_, page) = server.get(&format!("{APPS}?limit=2&labelSelector=even=true&continue={next}")).await;
    assert_eq!((names(&page), &page["metadata"]["continue"]), (vec!["a4".to_owned()], &Value::Null));
    assert_eq!(names(&server.get(&format!("{APPS}?prefix=a3")).await.1), ["a3"]);
}

#[tokio::test]
async fn writes_are_audited_with_actor_and_reason() {
    let server = Server::start().await;
    server.post(&format!("{APPS}?reason=first"), app("stock", json!({}))).await;
    let patch = server.request(Method::PATCH, &format!("{APPS}/stock")).bearer_auth("admin");
    patch.header("X-Weir-Reason", "größer".as_bytes()).json(&json!({"spec": {"tier": 1}})).send().await.unwrap();
    server.ask(Method::DELETE, &format!("{APPS}/stock"), Value::Null).await;
    let (_, audit) = server.get("/apis/weir.dev/v1/audit?about=app/stock").await;
    let told: Vec<_> = audit["items"].as_array().unwrap().iter().map(|e| (&e["verb"], &e["author"])).collect();
    let by = |reason: &str| json!({"actor": "user/admin", "reason": reason});
    let wanted =
        [(json!("create"), by("first")), (json!("update"), by("größer")), (json!("delete"), by("no reason given"))];
    assert_eq!(told, wanted.iter().map(|(verb, author)| (verb, author)).collect::<Vec<_>>());
}

#[tokio::test]
async fn yaml_is_read_too() {
    let server = Server::start().await;
    let text = "apiVersion: weir.dev/v1\nkind: App\nmetadata:\n  name: stock\nspec:\n  tier: 2\n";
    let send = |text: &'static str, media: &'static str| {
        server.request(Method::POST, APPS).bearer_auth("admin").header("Content-Type", media).body(text).send()
    };
    assert_eq!(send(text, "application/yaml").await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(
        send("---\na: 1\n---\nb: 2\n", "application/yaml").await.unwrap().status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(send("{", "application/json").await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(send(text, "text/plain").await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn explanations_come_from_the_status_where_no_domain_speaks() {
    let server = Server::start().await;
    server.post(APPS, app("stock", json!({}))).await;
    let (status, told) = server.get("/apis/weir.dev/v1/explain/app/stock").await;
    assert_eq!(status, StatusCode::OK);
    assert!(told["text"].as_str().unwrap().contains("takes effect as it is"), "{told}");
    let applied = json!({"apiVersion": "weir.dev/v1", "kind": "Instance", "metadata": {"name": "by-hand"},
        "spec": {"app": "stock", "address": "127.0.0.1", "port": 8080}});
    server.post("/apis/weir.dev/v1/instances", applied).await;
    let (_, told) = server.get("/apis/weir.dev/v1/explain/instance/by-hand").await;
    assert!(told["text"].as_str().unwrap().contains("waits for its proxy to register"), "{told}");
    assert_eq!(server.get("/apis/weir.dev/v1/explain/app/none").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/apis/weir.dev/v1/explain/apl/none").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_text_of_an_older_version_is_not_applied() {
    let server = Server::start().await;
    let (_, mut text) = server.post(APPS, app("stock", json!({"tier": 2}))).await;
    let path = format!("{APPS}/stock?apply=true");
    text["spec"]["tier"] = json!(1);
    assert_eq!(server.patch(&path, text.clone()).await.0, StatusCode::OK, "it is of the stored version");
    text["spec"]["tier"] = json!(4);
    for path in [path.clone(), format!("{path}&dryRun=true")] {
        let (status, error) = server.patch(&path, text.clone()).await;
        assert_eq!((status, &error["reason"]), (StatusCode::CONFLICT, &json!("Conflict")), "{error}");
    }
    assert_eq!(server.get(&format!("{APPS}/stock")).await.1["spec"]["tier"], 1);
    text["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(server.patch(&path, text).await.0, StatusCode::OK, "one that names no version is for any");
}

#[tokio::test]
async fn what_is_not_known_is_warned_of() {
    let server = Server::start().await;
    server.post(APPS, app("stock", json!({}))).await;
    let spec = json!({"action": {"proxyUpgrade": {"version": "b"}}, "scope": {"apps": ["stokc", "stock"]}});
    let change = json!({"apiVersion": "weir.dev/v1", "kind": "Change", "metadata": {"name": "to-b"}, "spec": spec});
    for query in ["?dryRun=true", ""] {
        let request = server.request(Method::POST, &format!("/apis/weir.dev/v1/changes{query}"));
        let response = request.bearer_auth("admin").json(&change).send().await.unwrap();
        let warnings: Vec<_> = response.headers().get_all("warning").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(warnings, ["299 weir \"nothing is known of app stokc, did you mean stock?\""]);
        assert_eq!(response.status(), StatusCode::CREATED);
    }
}
