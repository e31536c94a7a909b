//! What a batch of writes does inside of its transaction.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use weir_model::{Author, Key, Object};
use weir_store::history::{Change, Verb};
use weir_store::{AuditEntry, Error, Event, Fence, Lease, Result, Retention, rules};

use crate::writer::{Done, Op, Request};
use crate::{from_json, signed, to_json, unavailable, unsigned};

/// A transaction and what it will have changed.
pub(crate) struct Batch<'c> {
    transaction: Transaction<'c, Sqlite>,
    version: u64,
    retention: Retention,
    now: Timestamp,
    changes: Vec<Change>,
    audited: bool,
    events: bool,
}

impl<'c> Batch<'c> {
    /// A batch after the write `version`.
    pub fn begin(
        transaction: Transaction<'c, Sqlite>,
        version: u64,
        retention: Retention,
        now: Timestamp,
    ) -> Batch<'c> {
        Batch { transaction, version, retention, now, changes: Vec::new(), audited: false, events: false }
    }

    /// Applies each; those that the rules refuse answer so and write nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database failed, and with it the whole batch.
    pub async fn apply_all(&mut self, requests: &[Request]) -> Result<Vec<Result<Done>>> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            match self.apply(request).await {
                Err(Error::Unavailable(text)) => return Err(Error::Unavailable(text)),
                answer => answers.push(answer),
            }
        }
        Ok(answers)
    }

    /// Drops what is beyond the retention; what is left to do is to commit, and then to tell the watchers.
    pub async fn finish(mut self) -> Result<(Transaction<'c, Sqlite>, Vec<Change>)> {
        if !self.changes.is_empty() {
            let version = signed(self.version);
            self.execute(sqlx::query("UPDATE store SET version = ?").bind(version)).await?;
            let oldest = version.saturating_sub(signed(self.retention.changes.max(1) as u64));
            self.execute(sqlx::query("DELETE FROM changes WHERE version <= ?").bind(oldest)).await?;
        }
        if self.audited {
            let keep = signed(self.retention.audit.max(1) as u64);
            let trim = "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?";
            self.execute(sqlx::query(trim).bind(keep)).await?;
        }
        if self.events {
            let keep = signed(self.retention.events.max(1) as u64);
            let trim = "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?";
            self.execute(sqlx::query(trim).bind(keep)).await?;
        }
        Ok((self.transaction, self.changes))
    }

    async fn apply(&mut self, request: &Request) -> Result<Done> {
        if let Some(fence) = &request.fence {
            self.check_fence(fence).await?;
        }
        match request.op.clone() {
            Op::Create { object, author } => self.create(object, &author).await,
            Op::Update { object, author } => self.replace(object, Some(&author), rules::updated).await,
            Op::UpdateStatus { object } => self.replace(object, None, rules::status_updated).await,
            Op::Delete { key, resource_version, author } => self.delete(&key, resource_version, &author).await,
            Op::AcquireLease { name, holder, ttl, now } => self.acquire(&name, &holder, ttl, now).await,
            Op::ReleaseLease { name, holder } => self.release(&name, &holder).await,
            Op::AppendEvent { event } => self.append_event(&event).await,
        }
    }

    async fn create(&mut self, object: Object, author: &Author) -> Result<Done> {
        let key = object.key();
        if self.find(&key).await?.is_some() {
            return Err(Error::AlreadyExists(key));
        }
        let new = rules::created(object, self.version + 1, self.now)?;
        self.put(Verb::Create, &new, None, Some(author)).await?;
        Ok(written(new))
    }

    async fn replace(
        &mut self,
        given: Object,
        author: Option<&Author>,
        rule: fn(&Object, Object, u64) -> Result<Option<Object>>,
    ) -> Result<Done> {
        let stored = self.stored(&given.key()).await?;
        let Some(new) = rule(&stored, given, self.version + 1)? else { return Ok(written(stored)) };
        self.put(Verb::Update, &new, Some(&stored), author).await?;
        Ok(written(new))
    }

    async fn delete(&mut self, key: &Key, resource_version: Option<u64>, author: &Author) -> Result<Done> {
        let stored = self.stored(key).await?;
        let last = rules::deleted(&stored, resource_version, self.version + 1)?;
        let delete = sqlx::query("DELETE FROM resources WHERE kind = ? AND name = ?");
        self.execute(delete.bind(key.kind.name()).bind(key.name.clone())).await?;
        self.record(Verb::Delete, &last, to_json(&last)?, None, Some(author)).await?;
        Ok(written(last))
    }

    async fn put(&mut self, verb: Verb, new: &Object, old: Option<&Object>, author: Option<&Author>) -> Result<()> {
        let json = to_json(new)?;
        let upsert = "INSERT INTO resources (kind, name, version, labels, object) VALUES (?, ?, ?, ?, ?) \
                      ON CONFLICT (kind, name) DO UPDATE SET \
                      version = excluded.version, labels = excluded.labels, object = excluded.object";
        let upsert = sqlx::query(upsert)
            .bind(new.kind.name())
            .bind(new.metadata.name.clone())
            .bind(signed(new.metadata.resource_version))
            .bind(to_json(&new.metadata.labels)?)
            .bind(json.clone());
        self.execute(upsert).await?;
        self.record(verb, new, json, old, author).await
    }

    /// Notes a write in the change log and the audit log.
    async fn record(
        &mut self,
        verb: Verb,
        object: &Object,
        json: String,
        old: Option<&Object>,
        author: Option<&Author>,
    ) -> Result<()> {
        self.version = object.metadata.resource_version;
        let labels_before = old.and_then(|old| rules::labels_before(old, object));
        let insert = sqlx::query("INSERT INTO changes (version, verb, object, labels_before) VALUES (?, ?, ?, ?)")
            .bind(signed(self.version))
            .bind(verb.name())
            .bind(json)
            .bind(labels_before.as_ref().map(to_json).transpose()?);
        self.execute(insert).await?;
        self.changes.push(Change { verb, object: Arc::new(object.clone()), labels_before });
        match author {
            Some(author) => self.audit(verb, object.key(), author).await,
            None => Ok(()),
        }
    }

    async fn audit(&mut self, verb: Verb, key: Key, author: &Author) -> Result<()> {
        self.audited = true;
        let verb = verb.name().to_owned();
        let entry = AuditEntry {
            time: self.now,
            author: author.clone(),
            verb,
            key: key.clone(),
            resource_version: self.version,
        };
        let insert = sqlx::query("INSERT INTO audit (kind, name, entry) VALUES (?, ?, ?)");
        self.execute(insert.bind(key.kind.name()).bind(key.name).bind(to_json(&entry)?)).await
    }

    async fn append_event(&mut self, event: &Event) -> Result<Done> {
        self.events = true;
        let insert = sqlx::query("INSERT INTO events (kind, name, event) VALUES (?, ?, ?)");
        let insert = insert.bind(event.about.kind.name()).bind(event.about.name.clone()).bind(to_json(event)?);
        self.execute(insert).await.map(|()| Done::Nothing)
    }

    async fn acquire(&mut self, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Result<Done> {
        let stored = self.lease(name).await?;
        let Some(lease) = rules::acquired(stored.as_ref(), name, holder, ttl, now) else {
            return Ok(Done::Lease(None));
        };
        let upsert = "INSERT INTO leases (name, holder, fencing, expires_at) VALUES (?, ?, ?, ?) \
                      ON CONFLICT (name) DO UPDATE SET \
                      holder = excluded.holder, fencing = excluded.fencing, expires_at = excluded.expires_at";
        let upsert = sqlx::query(upsert)
            .bind(lease.name.clone())
            .bind(lease.holder.clone())
            .bind(signed(lease.fencing))
            .bind(lease.expires_at.to_string());
        self.execute(upsert).await?;
        Ok(Done::Lease(Some(lease)))
    }

    async fn release(&mut self, name: &str, holder: &str) -> Result<Done> {
        let release = sqlx::query("UPDATE leases SET holder = '' WHERE name = ? AND holder = ?");
        self.execute(release.bind(name.to_owned()).bind(holder.to_owned())).await.map(|()| Done::Nothing)
    }

    async fn check_fence(&mut self, fence: &Fence) -> Result<()> {
        let stands = |lease: &Lease| lease.fencing == fence.fencing && !lease.holder.is_empty();
        let stored = self.lease(&fence.lease).await?;
        if stored.as_ref().is_some_and(stands) { Ok(()) } else { Err(Error::Fenced { lease: fence.lease.clone() }) }
    }

    async fn lease(&mut self, name: &str) -> Result<Option<Lease>> {
        let query = "SELECT holder, fencing, expires_at FROM leases WHERE name = ?";
        let row: Option<(String, i64, String)> =
            sqlx::query_as(query).bind(name).fetch_optional(self.connection()).await.map_err(unavailable)?;
        let Some((holder, fencing, expires_at)) = row else { return Ok(None) };
        let expires_at = expires_at.parse().map_err(unavailable)?;
        Ok(Some(Lease { name: name.to_owned(), holder, fencing: unsigned(fencing), expires_at }))
    }

    async fn stored(&mut self, key: &Key) -> Result<Object> {
        self.find(key).await?.ok_or_else(|| Error::NotFound(key.clone()))
    }

    async fn find(&mut self, key: &Key) -> Result<Option<Object>> {
        let select = sqlx::query_scalar("SELECT object FROM resources WHERE kind = ? AND name = ?");
        let select = select.bind(key.kind.name()).bind(&key.name);
        let row: Option<String> = select.fetch_optional(self.connection()).await.map_err(unavailable)?;
        row.as_deref().map(from_json).transpose()
    }

    async fn execute(&mut self, query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>) -> Result<()> {
        query.execute(self.connection()).await.map(drop).map_err(unavailable)
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

fn written(object: Object) -> Done {
    Done::Object(Box::new(object))
}
