//! The control plane's API as `weir up` uses it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use weir_model::{Kind, Object, Resource, Spec};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the control plane may take to start: a restart may have to wait for its own old lease.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A client that knows its token.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// Of the control plane at `address`.
    pub fn new(address: SocketAddr, token: &str) -> Result<Api, String> {
        let http =
            reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().map_err(|error| error.to_string())?;
        Ok(Api { http, base: format!("http://{address}"), token: token.to_owned() })
    }

    /// The token, to show it to the person who started all this.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Waits until it answers that it is ready.
    pub async fn wait_until_ready(&self) -> Result<(), String> {
        let ready = async {
            loop {
                let answer = self.http.get(format!("{}/readyz", self.base)).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = |_| format!("the control plane at {} is not ready after 60 s; its log is control.log", self.base);
        tokio::time::timeout(START_PATIENCE, ready).await.map_err(late)
    }

    /// One resource, if it is there.
    pub async fn get<S: Spec>(&self, name: &str) -> Result<Option<Resource<S>>, String> {
        let request = self.request(Method::GET, &format!("{}/{name}", S::KIND.plural()));
        let answer = request.send().await.map_err(|error| error.to_string())?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        typed(read(answer).await?).map(Some)
    }

    /// All resources of a kind.
    pub async fn list<S: Spec>(&self) -> Result<Vec<Resource<S>>, String> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let request = self.request(Method::GET, S::KIND.plural()).query(&[("limit", "500"), ("continue", &next)]);
            let page = send(request).await?;
            for item in page["items"].as_array().into_iter().flatten() {
                items.push(typed(item.clone())?);
            }
            match page["metadata"]["continue"].as_str() {
                Some(more) if !more.is_empty() => next = more.to_owned(),
                _ => return Ok(items),
            }
        }
    }

    /// Creates a resource, or brings it to this text.
    pub async fn apply<S: Spec>(&self, resource: &Resource<S>, reason: &str) -> Result<(), String> {
        let mut object = resource.to_object();
        object.status = Value::Null;
        let path = format!("{}/{}", object.kind.plural(), object.metadata.name);
        let request = self.request(Method::PATCH, &path).query(&[("apply", "true"), ("reason", reason)]).json(&object);
        send(request).await.map(drop).map_err(|error| format!("applying {path}: {error}"))
    }

    /// Merges a patch into a resource.
    pub async fn patch(&self, kind: Kind, name: &str, patch: &Value, reason: &str) -> Result<(), String> {
        let path = format!("{}/{name}", kind.plural());
        let request = self.request(Method::PATCH, &path).query(&[("reason", reason)]).json(patch);
        send(request).await.map(drop).map_err(|error| format!("changing {path}: {error}"))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/apis/weir.dev/v1/{path}", self.base)).bearer_auth(&self.token)
    }
}

async fn send(request: RequestBuilder) -> Result<Value, String> {
    read(request.send().await.map_err(|error| error.to_string())?).await
}

async fn read(answer: reqwest::Response) -> Result<Value, String> {
    let status = answer.status();
    let body: Value = answer.json().await.map_err(|error| format!("{status}: {error}"))?;
    if status.is_success() {
        return Ok(body);
    }
    Err(body["message"].as_str().map_or_else(|| format!("{status}: {body}"), str::to_owned))
}

fn typed<S: Spec>(value: Value) -> Result<Resource<S>, String> {
    let object: Object = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Resource::try_from(object).map_err(|error| error.to_string())
}
