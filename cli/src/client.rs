//! The HTTP API, from outside: requests, watches, and refusals as a person reads them.

use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use weir_trust::{Trust, TrustError};

use crate::cli::{Connection, Write};
use crate::context::Context;
use crate::failure::{Failure, UNREACHABLE, USAGE};
use crate::output::color;
use crate::secure::Secure;

/// Where a control plane listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:15000";
/// Root of all resources.
pub const BASE: &str = "/apis/weir.dev/v1";
/// A control plane that does not answer within this is taken for unreachable; watches have no such bound.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest line of a watch.
const MAX_LINE: usize = 16 << 20;

/// A connection to one control plane, as one user.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    secure: Option<Secure>,
    server: String,
    token: Option<String>,
    trust: Option<Trust>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// `created`, `configured`, `unchanged`, or nothing.
    pub result: String,
    /// What the server found odd about a write that it made all the same.
    pub warnings: Vec<String>,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// Shows the warnings to a person.
    pub fn warn(&self) {
        let paint = color::stderr();
        self.warnings.iter().for_each(|text| eprintln!("{} {text}", paint.yellow("warning:")));
    }
}

impl Client {
    /// From flags, environment, and what `weir login` remembered.
    pub fn new(connection: &Connection) -> Result<Client, Failure> {
        let context = Context::load()?;
        let given = connection.server.clone().filter(|server| !server.trim().is_empty());
        let server = url(&given.or_else(|| context.server.clone()).unwrap_or_else(|| DEFAULT_SERVER.to_owned()));
        // A variable that is set to nothing says nothing.
        let own = connection.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        let token = match (own, &connection.token_file) {
            (Some(token), _) => Some(token.to_owned()),
            (None, Some(file)) => Some(read_token(file)?),
            (None, None) => context.token_for(&server),
        };
        token.as_deref().map_or(Ok(()), well_formed)?;
        let trust = match (&connection.ca, context.ca_for_host(&server)) {
            (None, Some(kept)) => Some(kept.parse().map_err(unusable)?),
            (given, _) => given.clone(),
        };
        let secure = secure(&server, trust.as_ref())?;
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).build();
        Ok(Client { http: http.map_err(|error| Failure::new(error.to_string()))?, secure, server, token, trust })
    }

    /// By whom the control plane is known, if it is at `https`.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// URL of the control plane.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The token that requests carry.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `GET path?query`, as JSON.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let answer = self.answer(self.request(Method::GET, path).query(query)).await?;
        Ok(answer.body)
    }

    /// `GET`, but `None` for 404.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        let response = self.send(self.request(Method::GET, path)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(self.read(response).await?.body))
    }

    /// Answers of any status, for checks: status and body.
    pub async fn probe(&self, path: &str) -> Result<(StatusCode, Value), Failure> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let status = response.status();
        Ok((status, response.json().await.unwrap_or_default()))
    }

    /// A write with its reason.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
        write: &Write,
    ) -> Result<Answer, Failure> {
        let mut request = self.request(method, path).query(query);
        if write.dry_run {
            request = request.query(&[("dryRun", "true")]);
        }
        if let Some(reason) = &write.reason {
            request = request.query(&[("reason", reason)]);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        self.answer(request).await
    }

    /// Follows changes, calling `each` for every line until it returns false or the stream ends.
    pub async fn watch(
        &self,
        path: &str,
        query: &[(&str, String)],
        mut each: impl FnMut(Value) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let request = self.request(Method::GET, path).query(&[("watch", "true")]).query(query);
        let response = self.exchange(request).await?;
        if !response.status().is_success() {
            return self.read(response).await.map(drop);
        }
        let (mut chunks, mut buffer) = (response.bytes_stream(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            buffer.extend_from_slice(&chunk.map_err(|error| self.unreachable(&error))?);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if !each(serde_json::from_slice(&line).map_err(|error| self.garbled(&error))?)? {
                    return Ok(());
                }
            }
            if buffer.len() > MAX_LINE {
                return Err(Failure::new(format!("{} sends a line without end", self.server)));
            }
        }
        Ok(())
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let late = |_| self.unreachable(&std::io::Error::from(std::io::ErrorKind::TimedOut));
        tokio::time::timeout(PATIENCE, self.exchange(request.timeout(PATIENCE))).await.map_err(late)?
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let Some(secure) = &self.secure else {
            return request.send().await.map_err(|error| self.unreachable(&error));
        };
        let request = request.build().map_err(|error| self.unreachable(&error))?;
        secure.send(request).await.map_err(|error| self.unreachable(&*error))
    }

    async fn read(&self, response: Response) -> Result<Answer, Failure> {
        let status = response.status();
        let result = result_header(response.headers());
        let warnings = warnings(response.headers());
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body: Value = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(error) if status.is_success() => return Err(self.garbled(&error)),
            Err(_) => Value::Null,
        };
        if status.is_success() { Ok(Answer { result, warnings, body }) } else { Err(self.refusal(status, &body)) }
    }

    /// What the server refused, with what to do about it.
    fn refusal(&self, status: StatusCode, body: &Value) -> Failure {
        let message = body["message"].as_str().map(str::to_owned);
        let mut text =
            message.unwrap_or_else(|| format!("{} answered {status}; is it a Weir control plane?", self.server));
        let details: Vec<String> = body["details"].as_array().into_iter().flatten().map(detail).collect();
        if details.len() > 1 {
            text = format!("{text}:\n  {}", details.join("\n  "));
        }
        let failure = Failure { status: Some(status.as_u16()), ..Failure::new(text) };
        match status {
            StatusCode::UNAUTHORIZED if self.token.is_none() => {
                failure.hint(format!("log in with `weir login --server {}`, or set WEIR_TOKEN", self.server))
            }
            StatusCode::UNAUTHORIZED => {
                failure.hint("log in again with `weir login`; an Admin makes tokens with `weir token create`")
            }
            StatusCode::CONFLICT if body["reason"] == "Conflict" => failure.hint("read it again and decide again"),
            _ => failure,
        }
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> Failure {
        let message = format!("cannot reach the control plane at {}: {}", self.server, innermost(error));
        Failure::new(message)
            .code(UNREACHABLE)
            .hint("start one with `weir control`, or name another with --server or WEIR_SERVER")
    }

    fn garbled(&self, error: &serde_json::Error) -> Failure {
        Failure::new(format!("{} does not answer in JSON ({error}); is it a Weir control plane?", self.server))
    }
}

/// What speaks TLS to `server`, if it is at `https`.
fn secure(server: &str, trust: Option<&Trust>) -> Result<Option<Secure>, Failure> {
    match (server.starts_with("https://"), trust) {
        (true, Some(trust)) => Secure::new(trust).map(Some).map_err(unusable),
        (true, None) => {
            let hint = "give --ca (WEIR_CA) the file or the fingerprint that `weir control` printed";
            Err(Failure::new(format!("nothing says whom to trust at {server}")).code(USAGE).hint(hint))
        }
        (false, Some(_)) => {
            let hint = "use https:// (the token would go in plaintext), or leave out --ca (WEIR_CA)";
            Err(Failure::new(format!("{server} is not TLS, but a CA says that it should be")).code(USAGE).hint(hint))
        }
        (false, None) => Ok(None),
    }
}

fn unusable(error: TrustError) -> Failure {
    Failure::new(error.to_string()).code(USAGE)
}

/// The cause that says something: reqwest's own text repeats the URL.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn result_header(headers: &HeaderMap) -> String {
    headers.get("weir-result").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// With a scheme, and without a slash at the end.
pub fn url(server: &str) -> String {
    let server = server.trim().trim_end_matches('/');
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// `Warning: 299 weir "text"` (RFC 7234, section 5.5).
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all("warning").iter().filter_map(|value| value.to_str().ok());
    texts.filter_map(|text| Some(text.split_once('"')?.1.trim_end_matches('"').to_owned())).collect()
}

fn detail(detail: &Value) -> String {
    let field = |name: &str| detail[name].as_str().unwrap_or_default();
    let hint = detail["hint"].as_str().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}: {}{hint}", field("path"), field("message"))
}

/// A token stands in a header: visible ASCII without white space.
///
/// # Errors
/// Says so without showing it.
pub fn well_formed(token: &str) -> Result<(), Failure> {
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let failure = Failure::new(
        "the token is malformed: it holds a line break, a blank, or another character that tokens do not have",
    );
    Err(failure.code(USAGE).hint("look at WEIR_TOKEN, --token or --token-file: nothing but the token belongs there"))
}

fn read_token(file: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("cannot read the token file {}: {error}", file.display())).code(USAGE))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_token_is_called_so_and_not_shown() {
        assert!(well_formed("weir_0aZ-_.~").is_ok());
        for wrong in ["s3cret\nmore", "s3 cret", "s\u{e9}cret3"] {
            let told = well_formed(wrong).unwrap_err().to_string();
            assert!(told.contains("malformed") && !told.contains("cret"), "{told}");
        }
    }
}
