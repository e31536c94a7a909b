//! The API as its clients see it: over a real socket, on the in-memory store.

mod access;
mod bounds;
mod described;
mod removal;
mod resources;
mod watching;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{Stream, stream};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weir_model::token::TokenRole;
use weir_model::{Author, Token, TokenSpec};
use weir_store::memory::MemoryStore;
use weir_store::observed::Observed;
use weir_store::{SharedStore, typed};

use crate::login;
use crate::{Api, Options, serve};

/// Connections as they come.
fn incoming(listener: TcpListener) -> impl Stream<Item = (TcpStream, SocketAddr)> {
    stream::unfold(listener, |listener| async move { Some((listener.accept().await.unwrap(), listener)) })
}

/// A running API with one token per role.
struct Server {
    address: SocketAddr,
    store: SharedStore,
    stop: watch::Sender<bool>,
    http: reqwest::Client,
}

impl Server {
    async fn start() -> Server {
        Server::with(Options::default()).await
    }

    async fn with(options: Options) -> Server {
        Server::over(Arc::new(MemoryStore::new()), options).await
    }

    async fn over(store: SharedStore, options: Options) -> Server {
        for (name, role) in [("admin", TokenRole::Admin), ("viewer", TokenRole::Viewer), ("proxy", TokenRole::Proxy)] {
            add_token(&store, name, role).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let api = Api::new(store.clone(), Arc::new(Observed::default()), options, stopped.clone());
        tokio::spawn(serve(Box::pin(incoming(listener)), api, stopped));
        Server { address, store, stop, http: reqwest::Client::new() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    /// As the administrator, with a JSON body unless it is null.
    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.request(method, path).bearer_auth("admin");
        let request = if body.is_null() { request } else { request.json(&body) };
        answer(request.send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, path, body).await
    }

    async fn patch(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::PATCH, path, body).await
    }
}

async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// A token that is called like its role.
async fn add_token(store: &SharedStore, name: &str, role: TokenRole) {
    let actor = format!("user/{name}");
    let token = Token::new(name, TokenSpec { actor, sha256: login::hash(name), role, apps: vec![], expires_at: None });
    typed::create(&**store, &token, &Author::new("test", "set up")).await.unwrap();
}

fn app(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "weir.dev/v1", "kind": "App", "metadata": {"name": name}, "spec": spec})
}

const APPS: &str = "/apis/weir.dev/v1/apps";
