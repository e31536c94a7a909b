//! The Store in SQL: SQLite, embedded, the default.
//!
//! One connection writes, a few read. SQLite allows one writer at a time anyway, so all writes go through one task
//! ([`writer`]), which takes whatever has queued up meanwhile into one transaction: each write succeeds or fails by
//! itself, and they share the one `fsync` that makes them durable. A write is acknowledged after its commit. Readers
//! see the last commit (WAL) and never wait for the writer.
//!
//! A write puts its resource, its audit entry and its change in the same transaction; after the commit the change goes
//! to the [`History`] that serves the watchers. The `changes` table holds the same recent past on disk, so that a
//! watch can go on from where it was across a restart.
//!
//! One process at a time has the file, by a lock on `PATH.lock`. A lease found at the start therefore belongs to a
//! dead process, and is released: after a crash controllers go on at once, with a greater fencing token.

mod open;
mod read;
mod statements;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::SqlitePool;
use weir_model::{Author, Key, Object};
use weir_store::history::History;
use weir_store::{
    AuditEntry, AuditQuery, Clock, Error, Event, EventQuery, Fence, Lease, ListPage, ListQuery, Result, Retention,
    SharedStore, Store, WatchQuery, WatchStream, system_clock,
};

use writer::{Op, Queue};

/// A store in an SQLite file. Clones are handles on the same store.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
    fence: Option<Fence>,
}

struct Shared {
    queue: Queue,
    readers: SqlitePool,
    history: Arc<History>,
}

impl SqliteStore {
    /// Opens the store in the file at `path`; makes the file (readable by its owner only) and its folder if they are
    /// not there, and brings the tables up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the file cannot be opened or read, another process has it, or a newer Weir wrote it.
    pub async fn open(path: impl AsRef<Path>) -> Result<SqliteStore> {
        SqliteStore::open_with(path, Retention::default(), system_clock()).await
    }

    /// Likewise, with a retention and a clock of one's own.
    ///
    /// # Errors
    /// Those of [`SqliteStore::open`].
    pub async fn open_with(path: impl AsRef<Path>, retention: Retention, clock: Clock) -> Result<SqliteStore> {
        let opened = open::open(path.as_ref(), retention.changes).await?;
        let (readers, history) = (opened.readers.clone(), opened.history.clone());
        let shared = Shared { queue: writer::start(opened, retention, clock), readers, history };
        Ok(SqliteStore { shared: Arc::new(shared), fence: None })
    }

    /// This store as everyone holds it.
    pub fn shared(self) -> SharedStore {
        Arc::new(self)
    }

    /// Finishes the writes that were accepted and closes the file; whoever still has a handle is answered
    /// [`Error::Unavailable`]. Without it, the same happens some time after the last handle is dropped.
    pub async fn close(&self) {
        self.shared.queue.close().await;
        self.shared.readers.close().await;
    }

    async fn write(&self, op: Op) -> Result<Object> {
        self.shared.queue.write(op, self.fence.clone()).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>> {
        read::get(&self.shared.readers, key).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        read::list(&self.shared.readers, query).await
    }

    async fn create(&self, object: Object, author: &Author) -> Result<Object> {
        self.write(Op::Create { object, author: author.clone() }).await
    }

    async fn update(&self, object: Object, author: &Author) -> Result<Object> {
        self.write(Op::Update { object, author: author.clone() }).await
    }

    async fn update_status(&self, object: Object) -> Result<Object> {
        self.write(Op::UpdateStatus { object }).await
    }

    async fn delete(&self, key: &Key, resource_version: Option<u64>, author: &Author) -> Result<Object> {
        self.write(Op::Delete { key: key.clone(), resource_version, author: author.clone() }).await
    }

    async fn watch(&self, query: &WatchQuery) -> Result<WatchStream> {
        // A reader can see a commit a moment before the history has it; whoever read it may watch from it.
        if query.from > self.shared.history.head() && query.from <= read::version(&self.shared.readers).await? {
            self.shared.history.reached(query.from).await;
        }
        self.shared.history.watch(query.clone())
    }

    async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Result<Option<Lease>> {
        self.shared.queue.acquire_lease(name, holder, ttl, now).await
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        self.shared.queue.release_lease(name, holder).await
    }

    fn fenced(&self, lease: &Lease) -> SharedStore {
        Arc::new(SqliteStore { shared: self.shared.clone(), fence: Some(lease.into()) })
    }

    async fn append_event(&self, event: Event) -> Result<()> {
        self.shared.queue.append_event(event).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Event>> {
        read::events(&self.shared.readers, query).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        read::audit(&self.shared.readers, query).await
    }
}

/// What the database said, for whoever runs it.
fn unavailable(error: impl std::fmt::Display) -> Error {
    Error::Unavailable(error.to_string())
}

/// Versions are kept as SQL's signed integers; they would take longer than the universe to overflow.
fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

fn unsigned(version: i64) -> u64 {
    u64::try_from(version).unwrap_or_default()
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(unavailable)
}

fn from_json<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::Unavailable(format!("a damaged row in the store: {error}")))
}
