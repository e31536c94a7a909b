//! What all handlers share, and what the wiring supplies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use weir_model::{Invalid, Kind, Object};
use weir_store::SharedStore;
use weir_store::observed::Observed;

use crate::login::Logins;
use crate::metrics::Metrics;

/// Says why a resource waits, was blocked, or is as it is. Domains supply one for their kinds.
#[async_trait]
pub trait Explain: Send + Sync {
    /// Some sentences for a person, plain text.
    async fn explain(
        &self,
        object: &Object,
        store: &SharedStore,
        observed: &Observed,
        now: Timestamp,
    ) -> weir_store::Result<String>;
}

/// Tells what a change would do and what one has done. The change engine supplies it.
#[async_trait]
pub trait ChangeDesk: Send + Sync {
    /// The report of a stored change: `report`, and the same in words under `markdown`, `status`, `diff`, `verdict`.
    async fn report(&self, change: &Object, store: &SharedStore) -> weir_store::Result<Value>;
    /// The plan of a change that need not be stored: `plan`, and the same in words under `text`. Writes nothing.
    async fn plan(&self, change: &Object, store: &SharedStore, now: Timestamp) -> weir_store::Result<Value>;
}

/// Looks whether a part of the control plane works.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Which part, e.g. `store`.
    fn name(&self) -> &str;
    /// What was found, in words; `Err` says what is wrong and what to do.
    async fn probe(&self) -> Result<String, String>;
}

/// Appends samples in Prometheus's text format.
pub type MetricsSource = Arc<dyn Fn(&mut String) + Send + Sync>;

/// Bounds on what clients can make the server do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Time for a request body to arrive.
    pub body_time: Duration,
    /// Time for a request head to arrive; idle connections are closed after it too.
    pub head_time: Duration,
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Connections at a time; further ones wait.
    pub connections: usize,
    /// Watches at a time; further ones are refused.
    pub watches: usize,
    /// Time that open requests get at shutdown.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: weir_model::parse::MAX_DOCUMENT_BYTES,
            body_time: Duration::from_secs(30),
            head_time: Duration::from_secs(30),
            head_bytes: 64 << 10,
            connections: 4096,
            watches: 1024,
            drain_time: Duration::from_secs(5),
        }
    }
}

/// What the wiring supplies.
#[derive(Clone)]
pub struct Options {
    /// Explanations by kind; other kinds are explained from their status and events.
    pub explain: BTreeMap<Kind, Arc<dyn Explain>>,
    /// Plans and reports of changes; without it there are none.
    pub changes: Option<Arc<dyn ChangeDesk>>,
    /// What domains refuse of a resource beyond its kind's own rules, before it is stored.
    pub review: fn(&Object) -> Result<(), Invalid>,
    /// What `/readyz` asks.
    pub probes: Vec<Arc<dyn Probe>>,
    /// Further metrics.
    pub metrics: Vec<MetricsSource>,
    /// Peers on loopback need no token and may do everything.
    pub insecure_loopback: bool,
    /// Bounds.
    pub limits: Limits,
    /// Version shown to clients.
    pub version: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            explain: BTreeMap::new(),
            changes: None,
            review: |_| Ok(()),
            probes: Vec::new(),
            metrics: Vec::new(),
            insecure_loopback: false,
            limits: Limits::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What all handlers share.
pub(crate) struct Shared {
    pub store: SharedStore,
    pub observed: Arc<Observed>,
    pub logins: Arc<Logins>,
    pub options: Options,
    pub metrics: Metrics,
    pub watches: Arc<Semaphore>,
    pub shutdown: watch::Receiver<bool>,
}

/// The API over one store, ready to be served.
#[derive(Clone)]
pub struct Api {
    pub(crate) shared: Arc<Shared>,
}

impl Api {
    /// The API over a store; it ends its streams when `shutdown` becomes true.
    pub fn new(store: SharedStore, observed: Arc<Observed>, options: Options, shutdown: watch::Receiver<bool>) -> Api {
        let logins = Arc::new(Logins::new(store.clone()));
        let watches = Arc::new(Semaphore::new(options.limits.watches));
        let metrics = Metrics::default();
        Api { shared: Arc::new(Shared { store, observed, logins, options, metrics, watches, shutdown }) }
    }

    /// The tokens, for others who let peers in.
    pub fn logins(&self) -> Arc<Logins> {
        self.shared.logins.clone()
    }

    /// All routes.
    pub fn router(&self) -> Router {
        crate::endpoints::router(&self.shared)
    }
}
