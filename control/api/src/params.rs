//! Query parameters, the name of a kind in a path, and request bodies.

use axum::body::{Body, to_bytes};
use axum::extract::Query;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_model::error::nearest;
use weir_model::{Author, Kind, parse};
use weir_store::Selector;
use weir_store::query::MAX_PAGE;

use crate::error::{ApiError, Result};
use crate::login::Login;
use crate::shared::Limits;

/// Longest reason, in characters.
const MAX_REASON: usize = 1000;
/// What the audit log says when nobody gave a reason.
const NO_REASON: &str = "no reason given";

/// Parameters of lists and watches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ListParams {
    pub label_selector: String,
    pub prefix: String,
    pub limit: Option<usize>,
    pub r#continue: Option<String>,
    pub watch: bool,
    pub resource_version: Option<u64>,
    pub timeout_seconds: Option<u64>,
}

impl ListParams {
    pub fn page(&self) -> Result<usize> {
        match self.limit {
            None => Ok(MAX_PAGE),
            Some(limit @ 1..=MAX_PAGE) => Ok(limit),
            Some(limit) => Err(ApiError::bad_request(format!("limit is {limit}, must be from 1 to {MAX_PAGE}"))),
        }
    }

    pub fn selector(&self) -> Result<Selector> {
        selector(&self.label_selector)
    }
}

/// Parameters of writes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct WriteParams {
    pub dry_run: bool,
    pub reason: Option<String>,
    pub apply: bool,
    pub force: bool,
    pub resource_version: Option<u64>,
}

/// Parameters of events and audit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RecordParams {
    /// `KIND/NAME`.
    pub about: Option<String>,
    pub limit: usize,
}

/// Reads the query strictly: a parameter that is not known is a mistake, not to be passed over.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T> {
    let bad = |error: String| ApiError::bad_request(format!("in the query: {error}"));
    Query::try_from_uri(uri).map(|Query(params)| params).map_err(|error| bad(error.body_text()))
}

/// `a=b,c=d`.
fn selector(text: &str) -> Result<Selector> {
    let term = |term: &str| {
        let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
        let plain = |s: &str| !s.contains(['=', '!', '(', ')', ' ']);
        (!key.is_empty() && plain(key) && plain(value)).then(|| (key.to_owned(), value.to_owned()))
    };
    let wrong = |t: &str| ApiError::bad_request(format!("labelSelector: {t:?} is not of the form key=value"));
    let terms = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    Ok(Selector(terms.map(|t| term(t).ok_or_else(|| wrong(t))).collect::<Result<_>>()?))
}

/// The kind of a plural in a path.
pub(crate) fn kind(plural: &str) -> Result<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.plural() == plural).ok_or_else(|| {
        let hint = nearest(plural, Kind::ALL.iter().map(|k| k.plural()));
        let hint = hint.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default();
        ApiError::not_found(format!("no resources are called {plural:?}{hint}"))
    })
}

/// Who writes, and why: from the login, and the query or the header `X-Weir-Reason`.
pub(crate) fn author(login: &Login, params: &WriteParams, headers: &HeaderMap) -> Author {
    let header = headers.get("x-weir-reason").and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let reason = params.reason.as_deref().or(header).unwrap_or_default();
    let reason: String = reason.trim().chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    Author::new(&login.actor, if reason.is_empty() { NO_REASON.to_owned() } else { reason })
}

/// Reads a JSON or YAML body within the limits.
pub(crate) async fn body(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Value> {
    let late = |_| ApiError::new(axum::http::StatusCode::REQUEST_TIMEOUT, "Timeout", "the body did not arrive in time");
    let read = tokio::time::timeout(limits.body_time, to_bytes(body, limits.body_bytes)).await.map_err(late)?;
    let bytes = read.map_err(|error| too_large_or_broken(&error, limits))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| ApiError::bad_request("the body is not UTF-8"))?;
    match media(headers) {
        Media::Yaml => parse::document(text).map_err(ApiError::from),
        Media::Json => {
            serde_json::from_str(text).map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))
        }
        Media::Other(other) => Err(unsupported(&other)),
    }
}

fn too_large_or_broken(error: &axum::Error, limits: &Limits) -> ApiError {
    let text = error.to_string();
    if text.contains("length limit") {
        let status = axum::http::StatusCode::PAYLOAD_TOO_LARGE;
        return ApiError::new(status, "TooLarge", format!("the body has more than {} bytes", limits.body_bytes));
    }
    ApiError::bad_request(format!("the body broke off: {text}"))
}

enum Media {
    Json,
    Yaml,
    Other(String),
}

/// A body needs its type: a web page of another site can send none but plain text and forms unasked.
fn media(headers: &HeaderMap) -> Media {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "application/merge-patch+json" => Media::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" => Media::Yaml,
        _ => Media::Other(given.to_owned()),
    }
}

fn unsupported(given: &str) -> ApiError {
    let known = "application/json, application/yaml or application/merge-patch+json";
    let message = format!("Content-Type is {given:?}, must be {known}");
    ApiError::new(axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_equalities() {
        let read = selector("a=b, c==d,").unwrap();
        assert_eq!(read.0.into_iter().collect::<Vec<_>>(), [("a".into(), "b".into()), ("c".into(), "d".into())]);
        assert!(selector("").unwrap().0.is_empty());
        for wrong in ["a", "a!=b", "=b", "a in (b)", "a=b=c"] {
            assert!(selector(wrong).unwrap_err().message.contains("key=value"), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_plural_gets_the_nearest() {
        assert_eq!(kind("apps").unwrap(), Kind::App);
        assert!(kind("instanses").unwrap_err().message.contains("did you mean \"instances\"?"));
    }

    #[test]
    fn a_reason_is_cleaned_and_bounded() {
        let login = Login::new("user/a", weir_model::token::TokenRole::Admin);
        let with = |reason: &str| {
            author(&login, &WriteParams { reason: Some(reason.into()), ..Default::default() }, &HeaderMap::new()).reason
        };
        assert_eq!(with(" more\r\nmemory "), "morememory");
        assert_eq!(with("  "), NO_REASON);
        assert_eq!(with(&"x".repeat(2000)).len(), MAX_REASON);
    }
}
