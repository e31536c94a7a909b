//! A store at which its user dies: after a number of operations, the next one never returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::{Author, Key, Object};
use weir_store::{
    AuditEntry, AuditQuery, Event, EventQuery, Lease, ListPage, ListQuery, MemoryStore, Result, SharedStore, Store,
    WatchQuery, WatchStream,
};

#[derive(Clone)]
pub struct Mortal {
    inner: MemoryStore,
    left: Arc<AtomicI64>,
    /// The last operation takes effect, but nobody hears of it.
    effective: bool,
}

impl Mortal {
    pub fn new(inner: MemoryStore, operations: i64, effective: bool) -> Mortal {
        Mortal { inner, left: Arc::new(AtomicI64::new(operations)), effective }
    }

    async fn live<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1.. => operation.await,
            0 if self.effective => {
                let _unheard = operation.await;
                std::future::pending().await
            }
            _ => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &Key) -> Result<Option<Object>> {
        self.live(self.inner.get(key)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        self.live(self.inner.list(query)).await
    }

    async fn create(&self, object: Object, author: &Author) -> Result<Object> {
        self.live(self.inner.create(object, author)).await
    }

    async fn update(&self, object: Object, author: &Author) -> Result<Object> {
        self.live(self.inner.update(object, author)).await
    }

    async fn update_status(&self, object: Object) -> Result<Object> {
        self.live(self.inner.update_status(object)).await
    }

    async fn delete(&self, key: &Key, version: Option<u64>, author: &Author) -> Result<Object> {
        self.live(self.inner.delete(key, version, author)).await
    }

    async fn watch(&self, query: &WatchQuery) -> Result<WatchStream> {
        self.live(self.inner.watch(query)).await
    }

    async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Result<Option<Lease>> {
        self.live(self.inner.acquire_lease(name, holder, ttl, now)).await
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        self.live(self.inner.release_lease(name, holder)).await
    }

    fn fenced(&self, _lease: &Lease) -> SharedStore {
        Arc::new(self.clone())
    }

    async fn append_event(&self, event: Event) -> Result<()> {
        self.live(self.inner.append_event(event)).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Event>> {
        self.live(self.inner.events(query)).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        self.live(self.inner.audit(query)).await
    }
}
