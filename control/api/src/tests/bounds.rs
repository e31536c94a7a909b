//! What clients cannot make the server do.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Duration;

use super::{APPS, Server, app};
use crate::{Limits, Options};

async fn limited(change: impl FnOnce(&mut Limits)) -> Server {
    let mut options = Options::default();
    change(&mut options.limits);
    Server::with(options).await
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = limited(|limits| limits.body_bytes = 1000).await;
    let (status, error) = server.post(APPS, app("a", json!({"owner": "x".repeat(1000)}))).await;
    assert_eq!((status, &error["reason"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("TooLarge")));
    assert_eq!(server.post(APPS, app("a", json!({}))).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn lists_are_bounded() {
    let server = Server::start().await;
    for limit in ["0", "1001", "-1", "many"] {
        let (status, _) = server.get(&format!("{APPS}?limit={limit}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{limit}");
    }
}

#[tokio::test]
async fn watches_are_bounded_and_given_back() {
    let server = limited(|limits| limits.watches = 1).await;
    let path = format!("{APPS}?watch=true");
    let first = server.request(Method::GET, &path).bearer_auth("admin").send().await.unwrap();
    let second = server.request(Method::GET, &path).bearer_auth("admin").send().await.unwrap();
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(second.headers()["retry-after"], "1");
    drop(first);
    // The server notices the closed connection in its own time: ask until it has.
    loop {
        let again = server.request(Method::GET, &path).bearer_auth("admin").send().await.unwrap();
        if again.status() == StatusCode::OK {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_cut_off() {
    let server = limited(|limits| limits.head_time = Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = limited(|limits| limits.body_time = Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {APPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\nConnection: close\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let server = limited(|limits| limits.connections = 1).await;
    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let first = TcpStream::connect(server.address).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(ask).await.unwrap();
    drop(first);
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
