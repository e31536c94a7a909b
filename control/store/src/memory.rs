//! The in-memory store, for tests and simulations: everything under one lock, nothing ever waits.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::{Author, Key, Object};

use crate::clock::{Clock, system_clock};
use crate::error::{Error, Result};
use crate::history::{Change, History, Verb};
use crate::query::{ListPage, ListQuery, WatchQuery, WatchStream};
use crate::record::{AuditEntry, AuditQuery, Event, EventQuery, Fence, Lease, Retention};
use crate::{SharedStore, Store, rules};

/// A store that lives as long as its last handle. Clones are handles on the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    fence: Option<Fence>,
}

struct Shared {
    state: Mutex<State>,
    history: Arc<History>,
    retention: Retention,
    clock: Clock,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Object>>,
    version: u64,
    leases: BTreeMap<String, Lease>,
    events: VecDeque<Event>,
    audit: VecDeque<AuditEntry>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty store on the machine's clock.
    pub fn new() -> MemoryStore {
        MemoryStore::with(Retention::default(), system_clock())
    }

    /// An empty store that keeps so much of the past and takes its times from `clock`.
    pub fn with(retention: Retention, clock: Clock) -> MemoryStore {
        let history = History::new(0, retention.changes);
        let shared = Shared { state: Mutex::default(), history, retention, clock };
        MemoryStore { shared: Arc::new(shared), fence: None }
    }

    /// This store as everyone holds it.
    pub fn shared(self) -> SharedStore {
        Arc::new(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks for a write, if this handle may still write.
    fn lock_to_write(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &self.fence {
            Some(fence) if !state.stands(fence) => Err(Error::Fenced { lease: fence.lease.clone() }),
            _ => Ok(state),
        }
    }

    /// Makes a write visible to readers, watchers and, with an author, the audit log.
    fn commit(&self, state: &mut State, change: Change, author: Option<&Author>) {
        state.version = change.version();
        let key = change.object.key();
        if let Some(author) = author {
            let time = (self.shared.clock)();
            let verb = change.verb.name().to_owned();
            let entry =
                AuditEntry { time, author: author.clone(), verb, key: key.clone(), resource_version: state.version };
            push_bounded(&mut state.audit, entry, self.shared.retention.audit);
        }
        match change.verb {
            Verb::Delete => state.objects.remove(&key),
            Verb::Create | Verb::Update => state.objects.insert(key, change.object.clone()),
        };
        self.shared.history.push(change);
    }

    fn replace(
        &self,
        given: Object,
        author: Option<&Author>,
        rule: impl FnOnce(&Object, Object, u64) -> Result<Option<Object>>,
    ) -> Result<Object> {
        let mut state = self.lock_to_write()?;
        let stored = state.stored(&given.key())?;
        let Some(new) = rule(&stored, given, state.version + 1)? else { return Ok(Object::clone(&stored)) };
        let labels_before = rules::labels_before(&stored, &new);
        let change = Change { verb: Verb::Update, object: Arc::new(new.clone()), labels_before };
        self.commit(&mut state, change, author);
        Ok(new)
    }
}

impl State {
    fn stored(&self, key: &Key) -> Result<Arc<Object>> {
        self.objects.get(key).cloned().ok_or_else(|| Error::NotFound(key.clone()))
    }

    fn stands(&self, fence: &Fence) -> bool {
        self.leases.get(&fence.lease).is_some_and(|lease| lease.fencing == fence.fencing && !lease.holder.is_empty())
    }
}

fn push_bounded<T>(log: &mut VecDeque<T>, item: T, bound: usize) {
    if log.len() >= bound.max(1) {
        log.pop_front();
    }
    log.push_back(item);
}

/// The newest `limit` that match, oldest first.
fn newest<T: Clone>(log: &VecDeque<T>, limit: usize, matches: impl Fn(&T) -> bool) -> Vec<T> {
    let mut found: Vec<T> = log.iter().rev().filter(|item| matches(item)).take(limit).cloned().collect();
    found.reverse();
    found
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>> {
        Ok(self.lock().objects.get(key).map(|object| Object::clone(object)))
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        let state = self.lock();
        let from = match &query.after {
            Some(after) if *after >= query.name_prefix => Bound::Excluded(Key::new(query.kind, after)),
            _ => Bound::Included(Key::new(query.kind, &query.name_prefix)),
        };
        let limit = query.bounded_limit();
        let mut items: Vec<Object> = state
            .objects
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.kind == query.kind && key.name.starts_with(&query.name_prefix))
            .filter(|(_, object)| query.selector.matches(&object.metadata.labels))
            .take(limit + 1)
            .map(|(_, object)| Object::clone(object))
            .collect();
        Ok(ListPage { next: query.cut(&mut items), items, resource_version: state.version })
    }

    async fn create(&self, object: Object, author: &Author) -> Result<Object> {
        let mut state = self.lock_to_write()?;
        let key = object.key();
        if state.objects.contains_key(&key) {
            return Err(Error::AlreadyExists(key));
        }
        let new = rules::created(object, state.version + 1, (self.shared.clock)())?;
        let change = Change { verb: Verb::Create, object: Arc::new(new.clone()), labels_before: None };
        self.commit(&mut state, change, Some(author));
        Ok(new)
    }

    async fn update(&self, object: Object, author: &Author) -> Result<Object> {
        self.replace(object, Some(author), rules::updated)
    }

    async fn update_status(&self, object: Object) -> Result<Object> {
        self.replace(object, None, rules::status_updated)
    }

    async fn delete(&self, key: &Key, resource_version: Option<u64>, author: &Author) -> Result<Object> {
        let mut state = self.lock_to_write()?;
        let last = rules::deleted(&*state.stored(key)?, resource_version, state.version + 1)?;
        let change = Change { verb: Verb::Delete, object: Arc::new(last.clone()), labels_before: None };
        self.commit(&mut state, change, Some(author));
        Ok(last)
    }

    async fn watch(&self, query: &WatchQuery) -> Result<WatchStream> {
        // Under the lock, so that a version that was read is never ahead of the history.
        let _state = self.lock();
        self.shared.history.watch(query.clone())
    }

    async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Result<Option<Lease>> {
        let mut state = self.lock();
        let lease = rules::acquired(state.leases.get(name), name, holder, ttl, now);
        if let Some(lease) = &lease {
            state.leases.insert(name.to_owned(), lease.clone());
        }
        Ok(lease)
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        let mut state = self.lock();
        if let Some(lease) = state.leases.get_mut(name).filter(|lease| lease.holder == holder) {
            // The fencing token stays known, so that it keeps growing.
            lease.holder.clear();
        }
        Ok(())
    }

    fn fenced(&self, lease: &Lease) -> SharedStore {
        Arc::new(MemoryStore { shared: self.shared.clone(), fence: Some(lease.into()) })
    }

    async fn append_event(&self, event: Event) -> Result<()> {
        push_bounded(&mut self.lock().events, event, self.shared.retention.events);
        Ok(())
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Event>> {
        let wanted = |event: &Event| query.about.as_ref().is_none_or(|about| *about == event.about);
        Ok(newest(&self.lock().events, query.bounded_limit(), wanted))
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        let wanted = |entry: &AuditEntry| query.key.as_ref().is_none_or(|key| *key == entry.key);
        Ok(newest(&self.lock().audit, query.bounded_limit(), wanted))
    }
}
