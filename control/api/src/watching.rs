//! Following resources: one JSON object a line, in the order of their resourceVersions.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use weir_model::{API_VERSION, Kind, Object};
use weir_store::{ListQuery, WatchEvent, WatchQuery};

use crate::error::{ApiError, Result};
use crate::params::ListParams;
use crate::shared::Shared;

/// Longest life of a watch; clients come again with the resourceVersion they have reached.
const MAX_SECONDS: u64 = 3600;

/// Answers with changes after `resourceVersion`; without one, first with everything that is there.
///
/// # Errors
/// 410 if those changes are no longer known, 429 if there are too many watches.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    kind: Kind,
    name: Option<String>,
    params: &ListParams,
) -> Result<Response> {
    let permit = shared.watches.clone().try_acquire_owned().map_err(|_| {
        ApiError::too_many(format!("{} watches are open, the most allowed; try again", shared.options.limits.watches))
    })?;
    let query = WatchQuery {
        kind: Some(kind),
        selector: params.selector()?,
        name_prefix: name.clone().unwrap_or_else(|| params.prefix.clone()),
        from: params.resource_version.unwrap_or_default(),
    };
    let lines = match params.resource_version {
        Some(_) => follow(shared, &query, kind).await?,
        None => first_all(shared, query, kind).await?,
    };
    let wanted = move |line: &Line| name.as_ref().is_none_or(|name| line.name.as_ref().is_none_or(|n| n == name));
    let lines = lines.filter(move |line| std::future::ready(wanted(line)));
    Ok(answer(lines.map(|line| line.text).boxed(), ending(shared, params), permit))
}

/// A line, and the name it is about.
struct Line {
    name: Option<String>,
    text: String,
}

type Lines = BoxStream<'static, Line>;

/// The state as ADDED events and a bookmark, then what happens.
async fn first_all(shared: &Shared, mut query: WatchQuery, kind: Kind) -> Result<Lines> {
    let mut list = ListQuery::all(kind);
    list.selector = query.selector.clone();
    list.name_prefix = query.name_prefix.clone();
    let (mut state, mut from) = (Vec::new(), None);
    loop {
        let page = shared.store.list(&list).await?;
        from.get_or_insert(page.resource_version);
        state.extend(page.items.into_iter().map(|object| object_line("ADDED", object)));
        match page.next {
            Some(next) => list.after = Some(next),
            None => break,
        }
    }
    query.from = from.unwrap_or_default();
    state.push(bookmark(kind, query.from));
    Ok(stream::iter(state).chain(follow(shared, &query, kind).await?).boxed())
}

async fn follow(shared: &Shared, query: &WatchQuery, kind: Kind) -> Result<Lines> {
    let events = shared.store.watch(query).await?;
    Ok(events.map(move |event| event.map_or_else(error_line, |event| line(kind, event))).boxed())
}

fn line(kind: Kind, event: WatchEvent) -> Line {
    match event {
        WatchEvent::Added(object) => object_line("ADDED", object),
        WatchEvent::Modified(object) => object_line("MODIFIED", object),
        WatchEvent::Deleted(object) => object_line("DELETED", object),
        WatchEvent::Bookmark(version) => bookmark(kind, version),
    }
}

fn object_line(event: &str, object: Object) -> Line {
    let name = Some(object.metadata.name.clone());
    Line { name, text: text(&json!({"type": event, "object": object})) }
}

fn bookmark(kind: Kind, version: u64) -> Line {
    let object = json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"resourceVersion": version}});
    Line { name: None, text: text(&json!({"type": "BOOKMARK", "object": object})) }
}

fn error_line(error: weir_store::Error) -> Line {
    Line { name: None, text: text(&json!({"type": "ERROR", "object": ApiError::from(error)})) }
}

fn text(value: &Value) -> String {
    format!("{value}\n")
}

/// Resolves when the watch is to end: at its time, or when the server stops.
fn ending(shared: &Shared, params: &ListParams) -> impl Future<Output = ()> + Send + 'static {
    let seconds = params.timeout_seconds.unwrap_or(MAX_SECONDS).min(MAX_SECONDS);
    let mut shutdown = shared.shutdown.clone();
    async move {
        let stopped = async { shutdown.wait_for(|stop| *stop).await.map(drop).unwrap_or(()) };
        let _either = tokio::time::timeout(Duration::from_secs(seconds), stopped).await;
    }
}

fn answer(
    lines: BoxStream<'static, String>,
    end: impl Future<Output = ()> + Send + 'static,
    permit: OwnedSemaphorePermit,
) -> Response {
    let bytes = lines.map(move |line| {
        let _held = &permit;
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    let body = Body::from_stream(bytes.take_until(Box::pin(end)));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
