//! Following resources.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};
use weir_store::Retention;
use weir_store::clock::system_clock;
use weir_store::memory::MemoryStore;

use super::{APPS, Server, app};
use crate::Options;

/// A deadline that only a broken server reaches.
const LONG: Duration = Duration::from_secs(30);

struct Lines {
    response: reqwest::Response,
    buffer: String,
}

impl Lines {
    async fn open(server: &Server, query: &str) -> Lines {
        let response = server.request(Method::GET, query).bearer_auth("admin").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Lines { response, buffer: String::new() }
    }

    /// The next line, or `None` at the end.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.buffer.split_once('\n') {
                let line = serde_json::from_str(line).unwrap();
                self.buffer = rest.to_owned();
                return Some(line);
            }
            let chunk = timeout(LONG, self.response.chunk()).await.expect("a line in time").unwrap()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Type and name of the next event, bookmarks passed over.
    async fn event(&mut self) -> (String, String) {
        loop {
            let line = self.line().await.expect("another line");
            if line["type"] != "BOOKMARK" {
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                return (text(&line["type"]), text(&line["object"]["metadata"]["name"]));
            }
        }
    }
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn state_then_changes_in_order() {
    let server = Server::start().await;
    server.post(APPS, app("a", json!({}))).await;
    let mut lines = Lines::open(&server, &format!("{APPS}?watch=true")).await;
    assert_eq!(lines.event().await, event("ADDED", "a"));
    let bookmark = lines.line().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(bookmark["object"]["metadata"]["resourceVersion"].as_u64().unwrap() > 0);

    server.post(APPS, app("b", json!({}))).await;
    server.patch(&format!("{APPS}/a"), json!({"spec": {"tier": 1}})).await;
    server.ask(Method::DELETE, &format!("{APPS}/b"), Value::Null).await;
    let wanted = [event("ADDED", "b"), event("MODIFIED", "a"), event("DELETED", "b")];
    for wanted in wanted {
        assert_eq!(lines.event().await, wanted);
    }
}

#[tokio::test]
async fn from_a_version_and_of_one_name() {
    let server = Server::start().await;
    server.post(APPS, app("a", json!({}))).await;
    let (_, list) = server.get(APPS).await;
    let version = list["metadata"]["resourceVersion"].as_u64().unwrap();
    let mut one = Lines::open(&server, &format!("{APPS}/ab?watch=true&resourceVersion={version}")).await;
    server.post(APPS, app("abc", json!({}))).await;
    server.post(APPS, app("ab", json!({}))).await;
    assert_eq!(one.event().await, event("ADDED", "ab"));
}

#[tokio::test]
async fn changes_no_longer_known_are_gone() {
    let retention = Retention { changes: 4, ..Retention::default() };
    let store = MemoryStore::with(retention, system_clock()).shared();
    let server = Server::over(store, Options::default()).await;
    for n in 0..6 {
        server.post(APPS, app(&format!("a{n}"), json!({}))).await;
    }
    let (status, error) = server.get(&format!("{APPS}?watch=true&resourceVersion=1")).await;
    assert_eq!((status, &error["reason"]), (StatusCode::GONE, &json!("Gone")));
    assert!(error["message"].as_str().unwrap().contains("list again"), "{error}");
}

#[tokio::test]
async fn a_watch_ends_when_the_server_stops() {
    let server = Server::start().await;
    let mut lines = Lines::open(&server, &format!("{APPS}?watch=true")).await;
    assert_eq!(lines.line().await.unwrap()["type"], "BOOKMARK");
    server.stop.send_replace(true);
    while let Some(line) = lines.line().await {
        assert_eq!(line["type"], "BOOKMARK");
    }
}
