//! Reading. Each answer comes from one statement, and so from one state of the store.

use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use weir_model::{Key, Object};
use weir_store::{AuditEntry, AuditQuery, Event, EventQuery, ListPage, ListQuery, Result};

use crate::{from_json, signed, unavailable, unsigned};

/// Sorts after every character of a name.
const AFTER_NAMES: &str = "\u{10FFFF}";

pub(crate) async fn version(pool: &SqlitePool) -> Result<u64> {
    let version = sqlx::query_scalar("SELECT version FROM store").fetch_one(pool).await.map_err(unavailable)?;
    Ok(unsigned(version))
}

pub(crate) async fn get(pool: &SqlitePool, key: &Key) -> Result<Option<Object>> {
    let row: Option<String> = sqlx::query_scalar("SELECT object FROM resources WHERE kind = ? AND name = ?")
        .bind(key.kind.name())
        .bind(&key.name)
        .fetch_optional(pool)
        .await
        .map_err(unavailable)?;
    row.as_deref().map(from_json).transpose()
}

/// The version comes with every row, and with none found in a row of its own.
pub(crate) async fn list(pool: &SqlitePool, query: &ListQuery) -> Result<ListPage> {
    let rows: Vec<(i64, Option<String>)> =
        list_statement(query).build_query_as().fetch_all(pool).await.map_err(unavailable)?;
    let resource_version = rows.first().map_or(0, |(version, _)| unsigned(*version));
    let objects = rows.iter().filter_map(|(_, object)| object.as_deref());
    let mut items: Vec<Object> = objects.map(from_json).collect::<Result<_>>()?;
    Ok(ListPage { next: query.cut(&mut items), items, resource_version })
}

fn list_statement(query: &ListQuery) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(
        "SELECT store.version, found.object FROM store LEFT JOIN (SELECT name, object FROM resources WHERE kind = ",
    );
    sql.push_bind(query.kind.name());
    if !query.name_prefix.is_empty() {
        sql.push(" AND name >= ").push_bind(query.name_prefix.clone());
        sql.push(" AND name < ").push_bind(format!("{}{AFTER_NAMES}", query.name_prefix));
    }
    if let Some(after) = &query.after {
        sql.push(" AND name > ").push_bind(after.clone());
    }
    for (label, value) in &query.selector.0 {
        sql.push(" AND EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ").push_bind(label.clone());
        sql.push(" AND label.value = ").push_bind(value.clone()).push(")");
    }
    // One more than the page, to know whether there are more.
    sql.push(" ORDER BY name LIMIT ").push_bind(signed(query.bounded_limit() as u64 + 1));
    sql.push(") AS found ON TRUE ORDER BY found.name");
    sql
}

pub(crate) async fn events(pool: &SqlitePool, query: &EventQuery) -> Result<Vec<Event>> {
    let (all, of_one) = (
        "SELECT event FROM events ORDER BY id DESC LIMIT ?",
        "SELECT event FROM events WHERE kind = ? AND name = ? ORDER BY id DESC LIMIT ?",
    );
    newest(pool, all, of_one, query.about.as_ref(), query.bounded_limit()).await
}

pub(crate) async fn audit(pool: &SqlitePool, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
    let (all, of_one) = (
        "SELECT entry FROM audit ORDER BY id DESC LIMIT ?",
        "SELECT entry FROM audit WHERE kind = ? AND name = ? ORDER BY id DESC LIMIT ?",
    );
    newest(pool, all, of_one, query.key.as_ref(), query.bounded_limit()).await
}

/// The newest `limit` records, oldest first.
async fn newest<T: serde::de::DeserializeOwned>(
    pool: &SqlitePool,
    all: &'static str,
    of_one: &'static str,
    key: Option<&Key>,
    limit: usize,
) -> Result<Vec<T>> {
    let statement = match key {
        None => sqlx::query_scalar(all),
        Some(key) => sqlx::query_scalar(of_one).bind(key.kind.name()).bind(&key.name),
    };
    let rows: Vec<String> = statement.bind(signed(limit as u64)).fetch_all(pool).await.map_err(unavailable)?;
    rows.iter().rev().map(|json| from_json(json)).collect()
}
