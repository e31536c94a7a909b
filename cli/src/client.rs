//! The HTTP API, from outside.

use std::time::Duration;

use serde_json::Value;

use crate::cli::Connection;
use crate::failure::{Failure, UNREACHABLE, USAGE};

/// Where a control plane listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:15000";

/// A connection to one control plane, as one user.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Client {
    /// From flags and environment.
    pub fn new(connection: &Connection) -> Result<Client, Failure> {
        let token = match (&connection.token, &connection.token_file) {
            (Some(token), _) => Some(token.trim().to_owned()),
            (None, Some(file)) => Some(read_token(file)?),
            (None, None) => None,
        };
        let server = connection.server.as_deref().unwrap_or(DEFAULT_SERVER);
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Client { http, server: server.trim_end_matches('/').to_owned(), token })
    }

    /// `GET path`, as JSON.
    pub async fn json(&self, path: &str) -> Result<Value, Failure> {
        let mut request = self.http.get(format!("{}{path}", self.server));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        answer.json().await.map_err(|error| Failure::new(format!("{}: {error}", self.server)))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let message = format!("cannot reach the control plane at {}: {error}", self.server);
        Failure::new(message).code(UNREACHABLE).hint("start one with `weir control`, or name another with --server")
    }
}

fn read_token(file: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("cannot read the token file {}: {error}", file.display())).code(USAGE))?;
    Ok(text.trim().to_owned())
}
