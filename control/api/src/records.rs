//! Events and the audit log.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};
use weir_model::Key;
use weir_store::{AuditQuery, EventQuery};

use crate::endpoints::Handle;
use crate::error::{ApiError, Result};
use crate::params::{self, RecordParams};

/// `GET /events`.
pub(crate) async fn events(State(shared): Handle, uri: Uri) -> Result<Json<Value>> {
    let params: RecordParams = params::query(&uri)?;
    let query = EventQuery { about: about(&params)?, limit: params.limit };
    Ok(Json(json!({"items": shared.store.events(&query).await?})))
}

/// `GET /audit`.
pub(crate) async fn audit(State(shared): Handle, uri: Uri) -> Result<Json<Value>> {
    let params: RecordParams = params::query(&uri)?;
    let query = AuditQuery { key: about(&params)?, limit: params.limit };
    Ok(Json(json!({"items": shared.store.audit(&query).await?})))
}

fn about(params: &RecordParams) -> Result<Option<Key>> {
    params.about.as_deref().map(key).transpose()
}

/// `KIND/NAME`, the kind in any of its spellings.
pub(crate) fn key(text: &str) -> Result<Key> {
    let (kind, name) = text
        .split_once('/')
        .filter(|(_, name)| !name.is_empty())
        .ok_or_else(|| ApiError::bad_request(format!("{text:?} is not of the form KIND/NAME")))?;
    let kind =
        kind.parse().map_err(|unknown: weir_model::kind::UnknownKind| ApiError::not_found(unknown.to_string()))?;
    Ok(Key::new(kind, name))
}
