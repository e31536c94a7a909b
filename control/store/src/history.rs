//! The recent past of a store, and those who watch it: one bounded ring of changes, read by any number of watchers.
//!
//! A writer pushes each change once, in order. A watcher is a cursor into the ring: it is woken, reads on from where
//! it was, and translates what it reads by its own query. Nothing is queued per watcher, so a watcher that sleeps
//! costs nothing; if the ring has moved past its cursor in the meantime it is told so ([`Error::Gone`]) and must list
//! again. It can never miss a change without knowing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use tokio::sync::watch;
use weir_model::Object;

use crate::error::{Error, Result};
use crate::query::{WatchEvent, WatchQuery};

/// A watcher hears at least so often how far it is.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// The ring holds changes of at most about so many bytes, however many that are (but at least one).
pub const MAX_RING_BYTES: usize = 64 << 20;
/// Changes taken from the ring at once, so that a watcher far behind holds the lock and memory only for moments.
const MAX_READ: usize = 256;

/// What was done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Created.
    Create,
    /// Spec, metadata or status replaced.
    Update,
    /// Deleted.
    Delete,
}

impl Verb {
    /// As the audit log and change logs on disk have it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
        }
    }

    /// The reverse of [`Verb::name`].
    pub fn from_name(name: &str) -> Option<Verb> {
        [Verb::Create, Verb::Update, Verb::Delete].into_iter().find(|verb| verb.name() == name)
    }
}

/// One write, as watchers of any query can make sense of it.
#[derive(Debug, Clone)]
pub struct Change {
    /// What was done.
    pub verb: Verb,
    /// The resource after it, or as it last was; its resourceVersion is that of the write.
    pub object: Arc<Object>,
    /// Labels before the write where they were others: tells who must see the resource come or go.
    pub labels_before: Option<BTreeMap<String, String>>,
}

impl Change {
    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        weight(&self.object.spec) + weight(&self.object.status) + OBJECT_BYTES
    }

    /// The write's resourceVersion.
    pub fn version(&self) -> u64 {
        self.object.metadata.resource_version
    }

    /// What a watcher with this query sees of it: a resource whose labels begin to match is added, one whose labels
    /// no longer match is deleted.
    pub fn seen_by(&self, query: &WatchQuery) -> Option<WatchEvent> {
        let meta = &self.object.metadata;
        if query.kind.is_some_and(|kind| kind != self.object.kind) || !meta.name.starts_with(&query.name_prefix) {
            return None;
        }
        let labels_before = self.labels_before.as_ref().unwrap_or(&meta.labels);
        let before = self.verb != Verb::Create && query.selector.matches(labels_before);
        let after = self.verb != Verb::Delete && query.selector.matches(&meta.labels);
        let object = || Object::clone(&self.object);
        match (before, after) {
            (false, true) => Some(WatchEvent::Added(object())),
            (true, true) => Some(WatchEvent::Modified(object())),
            (true, false) => Some(WatchEvent::Deleted(object())),
            (false, false) => None,
        }
    }
}

/// What an object takes besides its spec and status: names, labels, the envelope.
const OBJECT_BYTES: usize = 1024;

/// About what a JSON value takes: each node, and its text.
fn weight(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| 64 + name.len() + weight(value)).sum(),
    };
    size_of::<Value>() + inside
}

#[derive(Debug)]
struct Ring {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Every change after this resourceVersion is in `changes`.
    floor: u64,
}

/// The bounded past and the wake-up of watchers.
#[derive(Debug)]
pub struct History {
    ring: Mutex<Ring>,
    head: watch::Sender<u64>,
    capacity: usize,
}

impl History {
    /// A past that begins at resourceVersion `head` and remembers `capacity` changes (at least one).
    pub fn new(head: u64, capacity: usize) -> Arc<History> {
        let ring = Ring { changes: VecDeque::new(), bytes: 0, floor: head };
        Arc::new(History { ring: Mutex::new(ring), head: watch::Sender::new(head), capacity: capacity.max(1) })
    }

    /// ResourceVersion of the newest change.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Takes one change; versions must come in order.
    pub fn push(&self, change: Change) {
        let version = change.version();
        {
            let mut ring = self.lock();
            debug_assert!(version > self.head(), "changes are pushed in the order of their resourceVersions");
            ring.bytes += change.bytes();
            ring.changes.push_back(change);
            while ring.changes.len() > self.capacity || (ring.bytes > MAX_RING_BYTES && ring.changes.len() > 1) {
                ring.forget_oldest();
            }
        }
        self.head.send_replace(version);
    }

    /// Waits until the newest change is `version` or a later one.
    pub async fn reached(&self, version: u64) {
        // Fails only when the sender is gone, and `self` has it.
        let _ = self.head.subscribe().wait_for(|head| *head >= version).await;
    }

    /// See [`crate::Store::watch`]. A `from` that lies ahead of the newest change comes from another store, and is
    /// answered like one that is too old.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn watch(self: &Arc<History>, query: WatchQuery) -> Result<BoxStream<'static, Result<WatchEvent>>> {
        let head = self.head.subscribe();
        self.lock().reach(query.from, *head.borrow())?;
        let watcher = Watcher {
            history: Arc::downgrade(self),
            head,
            cursor: query.from,
            query,
            ready: VecDeque::new(),
            at: Progress::CatchingUp,
        };
        Ok(stream::unfold(watcher, Watcher::next).fuse().boxed())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.changes.pop_front() {
            self.bytes -= oldest.bytes();
            self.floor = oldest.version();
        }
    }

    fn reach(&self, from: u64, head: u64) -> Result<()> {
        let known = (self.floor..=head).contains(&from);
        if known { Ok(()) } else { Err(Error::Gone { from, oldest: self.floor }) }
    }

    /// The changes after `cursor`, the oldest first, so many.
    fn after(&self, cursor: u64) -> impl Iterator<Item = &Change> {
        let start = self.changes.partition_point(|change| change.version() <= cursor);
        self.changes.range(start..).take(MAX_READ)
    }
}

/// Where a watcher is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Reads what happened before it came.
    CatchingUp,
    /// Reads what it has been woken for.
    Following,
    /// Has read everything.
    Waiting,
    /// Has been told that it is too slow.
    Ended,
}

struct Watcher {
    /// Weak, so that watchers end when their store is gone.
    history: Weak<History>,
    head: watch::Receiver<u64>,
    query: WatchQuery,
    cursor: u64,
    ready: VecDeque<WatchEvent>,
    at: Progress,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<WatchEvent>, Watcher)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            match self.at {
                Progress::Ended => return None,
                Progress::Waiting => self.wait().await?,
                Progress::CatchingUp | Progress::Following => {
                    if let Err(gone) = self.read()? {
                        self.at = Progress::Ended;
                        return Some((Err(gone), self));
                    }
                }
            }
        }
    }

    /// ## CatchingUp | Following => (the same | Waiting)
    /// Says with a bookmark when it has first caught up. `None`: the store is gone.
    fn read(&mut self) -> Option<Result<()>> {
        let history = self.history.upgrade()?;
        let head = *self.head.borrow_and_update();
        let ring = history.lock();
        if let Err(gone) = ring.reach(self.cursor, u64::MAX) {
            return Some(Err(gone));
        }
        for change in ring.after(self.cursor) {
            self.ready.extend(change.seen_by(&self.query));
            self.cursor = change.version();
        }
        if self.cursor >= head {
            let first = self.at == Progress::CatchingUp;
            self.ready.extend(first.then_some(WatchEvent::Bookmark(self.cursor)));
            self.at = Progress::Waiting;
        }
        Some(Ok(()))
    }

    /// ## Waiting => (Waiting | Following)
    /// Says with a bookmark, from time to time, that nothing happens. `None`: the store is gone.
    async fn wait(&mut self) -> Option<()> {
        match tokio::time::timeout(BOOKMARK_INTERVAL, self.head.changed()).await {
            Ok(changed) => {
                changed.ok()?;
                self.at = Progress::Following;
            }
            Err(_) => self.ready.push_back(WatchEvent::Bookmark(self.cursor)),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{API_VERSION, Kind, Metadata};

    use super::*;

    fn change(version: u64, bytes: usize) -> Change {
        let metadata = Metadata { resource_version: version, ..Metadata::named("x") };
        let (spec, status) = (Value::String("x".repeat(bytes)), Value::Null);
        let object = Object { api_version: API_VERSION.to_owned(), kind: Kind::App, metadata, spec, status };
        Change { verb: Verb::Update, object: Arc::new(object), labels_before: None }
    }

    /// The floor, and how many changes lie above it.
    fn kept(history: &History) -> (u64, usize) {
        let ring = history.lock();
        (ring.floor, ring.changes.len())
    }

    #[test]
    fn the_past_is_bounded_in_number_and_in_bytes() {
        let small = History::new(0, 10);
        (1..=25).for_each(|version| small.push(change(version, 1)));
        assert_eq!((kept(&small), small.head()), ((15, 10), 25));

        let large = History::new(0, 1_000_000);
        let quarter = MAX_RING_BYTES / 4;
        (1..=9).for_each(|version| large.push(change(version, quarter)));
        assert_eq!(kept(&large), (6, 3), "four and what is around them exceed it");
        assert!(large.watch(WatchQuery::all(5)).is_err());
        assert!(large.watch(WatchQuery::all(6)).is_ok());
        large.push(change(10, 2 * MAX_RING_BYTES));
        assert_eq!(kept(&large), (9, 1), "the newest is always kept");
        large.push(change(11, 1));
        assert_eq!(large.lock().bytes, change(11, 1).bytes());
    }
}
