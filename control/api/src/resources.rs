//! Reading and writing resources.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use weir_model::token::TokenRole;
use weir_model::{API_VERSION, Author, Key, Kind, Object, parse};
use weir_store::{Error as StoreError, ListQuery};

use crate::endpoints::Handle;
use crate::error::{ApiError, Result};
use crate::login::Login;
use crate::merge::{merge, three_way};
use crate::params::{self, ListParams, WriteParams};
use crate::removal::{self, Removal};
use crate::shared::Shared;
use crate::{skips, users, warnings, watching};

/// Annotation with the text applied last: fields it set and the next text leaves out are removed.
pub(crate) const LAST_APPLIED: &str = "weir.dev/last-applied";
/// Response header: `created`, `configured` or `unchanged`.
const RESULT: HeaderName = HeaderName::from_static("weir-result");
/// Times a patch is tried anew when somebody writes in between.
const PATCH_TRIES: u32 = 16;

/// A write as it was asked for.
struct Write<'a> {
    shared: &'a Shared,
    author: Author,
    dry_run: bool,
}

/// `GET /{plural}`: a page of a list, or a watch.
pub(crate) async fn list(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path(plural): Path<String>,
    uri: Uri,
) -> Result<Response> {
    let kind = readable(&plural, &login)?;
    let params: ListParams = params::query(&uri)?;
    if params.watch {
        return watching::watch(&shared, kind, None, &params).await;
    }
    let (limit, selector) = (params.page()?, params.selector()?);
    let query = ListQuery { kind, selector, name_prefix: params.prefix, limit, after: params.r#continue };
    let page = shared.store.list(&query).await?;
    let metadata = json!({"resourceVersion": page.resource_version, "continue": page.next});
    let kind = format!("{kind}List");
    Ok(Json(json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "items": page.items}))
        .into_response())
}

/// `GET /{plural}/{name}`, or a watch of it.
pub(crate) async fn read(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path((plural, name)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response> {
    let kind = readable(&plural, &login)?;
    let params: ListParams = params::query(&uri)?;
    if params.watch {
        return watching::watch(&shared, kind, Some(name), &params).await;
    }
    Ok(Json(stored(&shared, &Key::new(kind, name)).await?).into_response())
}

/// `POST /{plural}`.
pub(crate) async fn create(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path(plural): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let kind = params::kind(&plural)?;
    let params: WriteParams = params::query(&uri)?;
    let object = wanted(params::body(&headers, body, &shared.options.limits).await?, kind, None)?;
    Write::new(&shared, &login, &params, &headers).create(object).await
}

/// `PUT /{plural}/{name}`.
pub(crate) async fn replace(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path((plural, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let kind = params::kind(&plural)?;
    let params: WriteParams = params::query(&uri)?;
    let object = wanted(params::body(&headers, body, &shared.options.limits).await?, kind, Some(&name))?;
    if object.metadata.resource_version == 0 {
        let advice = "is missing: read the resource and change what you have read, or use PATCH";
        return Err(ApiError::field("metadata.resourceVersion", advice));
    }
    let write = Write::new(&shared, &login, &params, &headers);
    let before = stored(&shared, &object.key()).await?;
    write.update(&before, object).await
}

/// `PATCH /{plural}/{name}`: a merge patch, or the whole wanted text with `?apply=true`.
pub(crate) async fn patch(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path((plural, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let key = Key::new(params::kind(&plural)?, name);
    let params: WriteParams = params::query(&uri)?;
    let body = params::body(&headers, body, &shared.options.limits).await?;
    let write = Write::new(&shared, &login, &params, &headers);
    if params.apply {
        let object = wanted(body, key.kind, Some(&key.name))?;
        return write.apply(object).await;
    }
    write.patch(&key, &body).await
}

/// `DELETE /{plural}/{name}`. An instance that Weir runs leaves in order first, unless `?force=true`; a change that is
/// under way is not deleted.
pub(crate) async fn delete(
    State(shared): Handle,
    Extension(login): Extension<Login>,
    Path((plural, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let key = Key::new(params::kind(&plural)?, name);
    let params: WriteParams = params::query(&uri)?;
    Write::new(&shared, &login, &params, &headers).delete(&key, &params).await
}

/// The resource, or 404.
pub(crate) async fn stored(shared: &Shared, key: &Key) -> Result<Object> {
    Ok(shared.store.get(key).await?.ok_or_else(|| StoreError::NotFound(key.clone()))?)
}

/// The kind of a plural, if this login may read it: token records are for administrators.
pub(crate) fn readable(plural: &str, login: &Login) -> Result<Kind> {
    let kind = params::kind(plural)?;
    may_read(kind, login).map(|()| kind)
}

/// Refuses token records to all but administrators.
pub(crate) fn may_read(kind: Kind, login: &Login) -> Result<()> {
    if kind == Kind::Token && login.role != TokenRole::Admin {
        return Err(ApiError::forbidden(format!("{} may not read tokens; an Admin may", login.actor)));
    }
    Ok(())
}

/// A body as the resource that the path speaks of, valid and without a status, which only controllers write.
pub(crate) fn wanted(body: Value, kind: Kind, name: Option<&str>) -> Result<Object> {
    let mut body = body;
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("status");
    }
    let object = parse::object(body)?;
    if object.kind == Kind::ChangeRecord {
        let message = "change records are written by the change engine only, once, and go with their change";
        return Err(ApiError::field("kind", message));
    }
    if object.kind != kind {
        return Err(ApiError::field("kind", format!("is {}, but the path speaks of {}", object.kind, kind.plural())));
    }
    if name.is_some_and(|name| name != object.metadata.name) {
        return Err(ApiError::field("metadata.name", "differs from the name in the path; resources are not renamed"));
    }
    Ok(object)
}

impl<'a> Write<'a> {
    fn new(shared: &'a Shared, login: &Login, params: &WriteParams, headers: &HeaderMap) -> Write<'a> {
        Write { shared, author: params::author(login, params, headers), dry_run: params.dry_run }
    }

    async fn create(&self, object: Object) -> Result<Response> {
        let (key, mut object) = (object.key(), object.canonical()?);
        (self.shared.options.review)(&object)?;
        skips::sign(None, &mut object, &self.author.actor)?;
        let stored = if self.dry_run {
            match self.shared.store.get(&key).await? {
                Some(_) => return Err(StoreError::AlreadyExists(key).into()),
                None => object,
            }
        } else {
            self.shared.store.create(object, &self.author).await?
        };
        self.done(key.kind).await;
        let mut response = (StatusCode::CREATED, [(RESULT, "created")], Json(&stored)).into_response();
        warnings::add(&*self.shared.store, None, &stored, &mut response).await;
        Ok(response)
    }

    async fn update(&self, before: &Object, mut object: Object) -> Result<Response> {
        (self.shared.options.review)(&object)?;
        skips::sign(Some(before), &mut object, &self.author.actor)?;
        removal::may_be_edited(before, &object)?;
        let given = object.metadata.resource_version;
        let key = object.key();
        let after = if self.dry_run {
            let stored = before.metadata.resource_version;
            if stored != given {
                return Err(StoreError::Conflict { key, stored, given }.into());
            }
            would_be(before, object)
        } else {
            self.shared.store.update(object, &self.author).await?
        };
        self.done(key.kind).await;
        let mut response = ([(RESULT, told(before, &after))], Json(&after)).into_response();
        warnings::add(&*self.shared.store, Some(before), &after, &mut response).await;
        Ok(response)
    }

    /// Merges into what is stored, anew when somebody writes in between, unless the patch names the version it is of.
    async fn patch(&self, key: &Key, patch: &Value) -> Result<Response> {
        refuse_beyond_spec(patch)?;
        let pinned = patch.pointer("/metadata/resourceVersion").is_some();
        let mut tries = 0;
        loop {
            let before = stored(self.shared, key).await?;
            let object = merged(&before, patch)?;
            match self.update(&before, object).await {
                Err(error) if error.reason == "Conflict" && !pinned && tries < PATCH_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// Creates the resource, or merges what the text says and no longer says into what is stored. A text that names the
    /// version it was made from is for that version only.
    async fn apply(&self, object: Object) -> Result<Response> {
        let text = applied(&object);
        let mut tries = 0;
        loop {
            let before = self.shared.store.get(&object.key()).await?;
            refuse_stale(&object, before.as_ref())?;
            let result = match before {
                None => self.create(remembering(object.clone(), &text)).await,
                Some(before) => self.apply_over(&before, &text).await,
            };
            match result {
                Err(error) if retryable(&error) && !self.dry_run && tries < PATCH_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn apply_over(&self, before: &Object, text: &Value) -> Result<Response> {
        let last = before.metadata.annotations.get(LAST_APPLIED);
        let last = last.and_then(|last| serde_json::from_str(last).ok()).unwrap_or(Value::Null);
        let after = remembering(merged(before, &three_way(&last, text))?, text);
        self.update(before, after).await
    }

    /// Decides on the version that it has read, and anew when somebody writes in between.
    async fn delete(&self, key: &Key, params: &WriteParams) -> Result<Response> {
        let mut tries = 0;
        loop {
            let before = stored(self.shared, key).await?;
            let version = params.resource_version.unwrap_or(before.metadata.resource_version);
            let result = match removal::of(&before, params.force)? {
                Removal::Leave(mut leaving) => {
                    leaving.metadata.resource_version = version;
                    self.update(&before, *leaving).await
                }
                Removal::Now => {
                    if !params.force {
                        users::refuse_used(&*self.shared.store, &before).await?;
                    }
                    self.delete_now(&before, version).await
                }
            };
            match result {
                Err(error)
                    if error.reason == "Conflict" && params.resource_version.is_none() && tries < PATCH_TRIES =>
                {
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn delete_now(&self, before: &Object, version: u64) -> Result<Response> {
        if self.dry_run {
            return Ok(Json(before).into_response());
        }
        let gone = self.shared.store.delete(&before.key(), Some(version), &self.author).await?;
        self.done(gone.kind).await;
        Ok(Json(gone).into_response())
    }

    /// Logins look at tokens anew after one was written.
    async fn done(&self, kind: Kind) {
        if kind == Kind::Token && !self.dry_run {
            self.shared.logins.forget().await;
        }
    }
}

fn refuse_stale(object: &Object, before: Option<&Object>) -> Result<()> {
    let given = object.metadata.resource_version;
    let stored = before.map_or(0, |before| before.metadata.resource_version);
    if given == 0 || given == stored {
        return Ok(());
    }
    match before {
        Some(_) => Err(StoreError::Conflict { key: object.key(), stored, given }.into()),
        None => {
            let gone = format!("{} is not there any more, the text is of its version {given}", object.key());
            Err(ApiError::conflict(format!("{gone}: leave `metadata.resourceVersion` out to make it anew")))
        }
    }
}

/// Somebody created or changed it in between.
fn retryable(error: &ApiError) -> bool {
    matches!(error.reason, "Conflict" | "AlreadyExists")
}

/// What an apply says, as it is remembered: the text of the person, without defaults filled in.
fn applied(object: &Object) -> Value {
    let mut annotations = object.metadata.annotations.clone();
    annotations.remove(LAST_APPLIED);
    let metadata = json!({"labels": object.metadata.labels, "annotations": annotations});
    json!({"metadata": metadata, "spec": object.spec})
}

fn remembering(mut object: Object, text: &Value) -> Object {
    object.metadata.annotations.insert(LAST_APPLIED.to_owned(), text.to_string());
    object
}

/// What is stored with a patch merged in, valid again. It keeps the version it was read at, unless the patch names one.
fn merged(before: &Object, patch: &Value) -> Result<Object> {
    let json = |error: serde_json::Error| ApiError::bad_request(error.to_string());
    let mut value = serde_json::to_value(before).map_err(json)?;
    merge(&mut value, patch);
    let mut after = parse::object(value)?.canonical()?;
    if after.key() != before.key() {
        return Err(ApiError::field("metadata.name", "is not changed by a patch; create another resource"));
    }
    after.metadata.uid.clone_from(&before.metadata.uid);
    Ok(after)
}

/// A patch touches labels, annotations and the spec.
fn refuse_beyond_spec(patch: &Value) -> Result<()> {
    let Some(fields) = patch.as_object() else {
        return Err(ApiError::bad_request("a merge patch is an object, e.g. {\"spec\": {\"tier\": 2}}"));
    };
    if fields.contains_key("status") {
        return Err(ApiError::field("status", "is written by controllers only"));
    }
    Ok(())
}

/// What an update would store.
fn would_be(before: &Object, mut object: Object) -> Object {
    if same(before, &object) {
        return before.clone();
    }
    let grown = u64::from(before.spec != object.spec);
    object.metadata.generation = before.metadata.generation + grown;
    object.metadata.created_at = before.metadata.created_at;
    object.status.clone_from(&before.status);
    object
}

fn told(before: &Object, after: &Object) -> &'static str {
    if same(before, after) { "unchanged" } else { "configured" }
}

/// Equal in all that a person writes.
fn same(a: &Object, b: &Object) -> bool {
    let notes = |object: &Object| {
        let mut annotations = object.metadata.annotations.clone();
        annotations.remove(LAST_APPLIED);
        annotations
    };
    a.spec == b.spec && a.metadata.labels == b.metadata.labels && notes(a) == notes(b)
}
