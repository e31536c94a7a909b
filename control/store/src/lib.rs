//! Where the domains meet: intent and what is observed of it.
//!
//! [`Store`] keeps resources, leases, events and the audit log; everything in it survives a crash once acknowledged.
//! [`memory::MemoryStore`] serves tests and simulations, `weir-store-sql` serves users; [`suite`] is the behaviour both
//! must show. Both are made of the same parts: [`rules`] decides what a write does, [`history`] serves the watchers.
//! [`observed`] holds what is measured by the second and may be lost: health windows and the state of
//! connected proxies. [`typed`] reads and writes typed resources through any store.

pub mod clock;
pub mod error;
pub mod history;
pub mod memory;
pub mod observed;
pub mod query;
pub mod record;
pub mod rules;
pub mod suite;
pub mod typed;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::{Author, Key, Object};

pub use clock::{Clock, system_clock, tokio_clock};
pub use error::{Error, Result};
pub use memory::MemoryStore;
pub use query::{ListPage, ListQuery, Selector, WatchEvent, WatchQuery, WatchStream};
pub use record::{AuditEntry, AuditQuery, Event, EventQuery, EventType, Fence, Lease, Retention};

/// A store as everyone holds it.
pub type SharedStore = Arc<dyn Store>;

/// Resources, leases, events, audit. Every write is atomic with its audit entry and its watch event.
///
/// `resourceVersion` is one number for the whole store: it grows with every write, and watches deliver in its order.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The resource, if it is there.
    async fn get(&self, key: &Key) -> Result<Option<Object>>;

    /// Resources of one kind in the order of their names, a page at a time.
    async fn list(&self, query: &ListQuery) -> Result<ListPage>;

    /// Stores a new resource: sets uid, resourceVersion, generation 1 and createdAt. Like every write it stores the
    /// canonical form ([`Object::canonical`]), in which defaults are filled in.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Invalid`]; like every write of resources [`Error::Fenced`] and
    /// [`Error::Unavailable`]. After the latter the write may have happened or not, but not in part.
    async fn create(&self, object: Object, author: &Author) -> Result<Object>;

    /// Replaces spec, labels and annotations if `metadata.resourceVersion` is still the stored one. The stored status
    /// stays. The generation grows when the spec changed; an update that changes nothing writes nothing and returns
    /// what is stored.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], [`Error::Invalid`].
    async fn update(&self, object: Object, author: &Author) -> Result<Object>;

    /// Replaces the status likewise; the stored spec stays. Not audited: controllers write events instead.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], [`Error::Invalid`].
    async fn update_status(&self, object: Object) -> Result<Object>;

    /// Removes a resource, if `resource_version` (where given) is still the stored one.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`].
    async fn delete(&self, key: &Key, resource_version: Option<u64>, author: &Author) -> Result<Object>;

    /// Changes after `query.from`, in order; a bookmark when it has first caught up, and further ones while nothing
    /// happens. A watcher that is too slow is ended with [`Error::Gone`] rather than made to miss an event. The stream
    /// ends when the store is closed.
    ///
    /// # Errors
    /// [`Error::Gone`] if changes after `from` are no longer known; list again and watch from there.
    async fn watch(&self, query: &WatchQuery) -> Result<WatchStream>;

    /// Takes or renews the lease for `holder` until `now + ttl`. `None`: somebody else holds it. The fencing token
    /// grows whenever the holder changes.
    async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Result<Option<Lease>>;

    /// Gives the lease up, if `holder` has it. Whoever acquires it next, though it be the same, gets a greater fencing
    /// token.
    async fn release_lease(&self, name: &str, holder: &str) -> Result<()>;

    /// The same store for the holder of `lease`: its writes of resources fail with [`Error::Fenced`] once somebody else
    /// has acquired the lease or it was released, checked atomically with the write. An expired lease that nobody else
    /// has acquired still holds. A store that wraps another one wraps what this returns.
    fn fenced(&self, lease: &Lease) -> SharedStore;

    /// Appends an event. Events are kept up to a bound, the oldest go first.
    async fn append_event(&self, event: Event) -> Result<()>;

    /// Events, oldest first.
    async fn events(&self, query: &EventQuery) -> Result<Vec<Event>>;

    /// Audit entries, oldest first; written by the store itself with each audited write.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>>;
}
