//! Who is let in, and to what.

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use weir_model::token::TokenRole;

use super::{APPS, Server, add_token, answer, app};
use crate::Options;

const TOKENS: &str = "/apis/weir.dev/v1/tokens";

async fn status(server: &Server, method: Method, path: &str, token: Option<&str>) -> StatusCode {
    let request = server.request(method.clone(), path);
    let request = if method == Method::POST { request.json(&app("a", json!({}))) } else { request };
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn roles_may_do_what_they_say() {
    let server = Server::start().await;
    let audit = "/apis/weir.dev/v1/audit";
    let cases = [
        (Method::GET, APPS, [200, 200, 403, 401]),
        (Method::POST, APPS, [201, 403, 403, 401]),
        (Method::GET, TOKENS, [200, 403, 403, 401]),
        (Method::GET, "/apis/weir.dev/v1/tokens/admin", [200, 403, 403, 401]),
        (Method::GET, "/apis/weir.dev/v1/explain/token/admin", [200, 403, 403, 401]),
        (Method::GET, audit, [200, 200, 403, 401]),
        (Method::GET, "/metrics", [200, 200, 403, 401]),
        (Method::GET, "/apis/weir.dev/v1/whoami", [200, 200, 200, 401]),
        (Method::GET, "/healthz", [200, 200, 200, 200]),
        (Method::GET, "/openapi.json", [200, 200, 200, 200]),
    ];
    for (method, path, wanted) in cases {
        for (token, wanted) in [Some("admin"), Some("viewer"), Some("proxy"), None].into_iter().zip(wanted) {
            let got = status(&server, method.clone(), path, token).await;
            assert_eq!(got, wanted, "{method} {path} as {token:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_token_is_refused_with_advice() {
    let server = Server::start().await;
    let response = server.request(Method::GET, APPS).bearer_auth("guess").send().await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"weir\"");
    let (status, error) = answer(response).await;
    assert_eq!((status, &error["reason"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    let basic = server.request(Method::GET, APPS).header("Authorization", "Basic YTpi").send().await.unwrap();
    assert_eq!(basic.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_works_once_made_and_never_once_revoked() {
    let server = Server::start().await;
    let record = json!({"actor": "user/ci", "sha256": crate::login::hash("weir_new"), "role": "Viewer"});
    let body = json!({"apiVersion": "weir.dev/v1", "kind": "Token", "metadata": {"name": "ci"}, "spec": record});
    assert_eq!(server.post(TOKENS, body).await.0, StatusCode::CREATED);
    assert_eq!(status(&server, Method::GET, APPS, Some("weir_new")).await, StatusCode::OK);
    server.ask(Method::DELETE, &format!("{TOKENS}/ci"), Value::Null).await;
    assert_eq!(status(&server, Method::GET, APPS, Some("weir_new")).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let server = Server::start().await;
    add_token(&server.store, "short", TokenRole::Viewer).await;
    server.patch(&format!("{TOKENS}/short"), json!({"spec": {"expiresAt": Timestamp::UNIX_EPOCH}})).await;
    assert_eq!(status(&server, Method::GET, APPS, Some("short")).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn loopback_needs_no_token_only_when_told_so_and_never_for_a_browser() {
    let server = Server::with(Options { insecure_loopback: true, ..Options::default() }).await;
    let (code, me) = answer(server.request(Method::GET, "/apis/weir.dev/v1/whoami").send().await.unwrap()).await;
    assert_eq!((code, &me["actor"]), (StatusCode::OK, &json!("user/loopback")));
    for (header, value) in [("Origin", "http://evil.example"), ("Host", "evil.example")] {
        let request = server.request(Method::GET, APPS).header(header, value);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{header}");
    }
    let wrong = server.request(Method::GET, APPS).bearer_auth("guess");
    assert_eq!(wrong.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "a wrong token is not passed over");
}
