//! What a change would do, and what one has done.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;
use weir_model::{Key, Kind};

use crate::endpoints::Handle;
use crate::error::{ApiError, Result};
use crate::login::Login;
use crate::params;
use crate::resources::{may_read, stored, wanted};
use crate::shared::{ChangeDesk, Shared};

/// `GET /changes/{name}/report`.
pub(crate) async fn report(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path(name): Path<String>,
) -> Result<Json<Value>> {
    may_read(Kind::Change, &login)?;
    let change = stored(&shared, &Key::new(Kind::Change, name)).await?;
    Ok(Json(desk(&shared)?.report(&change, &shared.store).await?))
}

/// `POST /plan`.
pub(crate) async fn plan(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>> {
    may_read(Kind::Change, &login)?;
    let body = params::body(&headers, body, &shared.options.limits).await?;
    let change = wanted(body, Kind::Change, None)?.canonical()?;
    Ok(Json(desk(&shared)?.plan(&change, &shared.store, Timestamp::now()).await?))
}

fn desk(shared: &Shared) -> Result<&dyn ChangeDesk> {
    let missing = || ApiError::not_found("no change engine runs here");
    shared.options.changes.as_deref().ok_or_else(missing)
}
