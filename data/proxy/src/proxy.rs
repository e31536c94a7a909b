//! The handle of a running proxy: starts workers, hands them snapshots, drains them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::options::{DrainOptions, Drill, Options};
use crate::readiness::{Readiness, ReadinessCell};
use crate::snapshot::Snapshot;
use crate::stats::{Counter, Fault, HealthReader, HealthWindow};

/// A running proxy. Cheap to clone; all clones are the same proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    readiness: ReadinessCell,
    state: tokio::sync::Mutex<Arc<Snapshot>>,
    current: Mutex<Arc<Snapshot>>,
    addresses: Mutex<HashMap<String, SocketAddr>>,
    health: Mutex<(HealthReader, HealthWindow)>,
    config_rejected: Mutex<Counter>,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A worker's thread or runtime could not be made.
    #[error("worker {worker} did not start: {source}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first snapshot was not applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Why a snapshot was not applied; the one before stays in force as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Some listeners' addresses could not be bound.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bind(Vec<BindFailure>),
    /// The proxy is draining or has stopped.
    #[error("the proxy is draining: it takes no new configuration")]
    Draining,
}

/// A listener whose address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {address}: {source}")]
pub struct BindFailure {
    /// Its name.
    pub listener: String,
    /// The address wanted.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// What [`Proxy::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Listeners that are accepting now.
    pub listeners: usize,
    /// Of these, opened by this call.
    pub opened: usize,
    /// Listeners closed by this call; their connections finish what they carry.
    pub closed: usize,
}

/// What [`Proxy::drain`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when the drain began.
    pub connections: u64,
    /// Requests finished during it.
    pub finished: u64,
    /// Requests cut at the deadline.
    pub cut: u64,
    /// How long it took.
    pub took: Duration,
}

impl Proxy {
    /// Starts the workers and applies the first snapshot. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// If a thread cannot be started or a listener cannot be bound; nothing is left running then.
    pub async fn start(options: Options, snapshot: Arc<Snapshot>) -> Result<Proxy, StartError> {
        let inner = Inner {
            options,
            readiness: ReadinessCell::starting(),
            state: tokio::sync::Mutex::new(Snapshot::empty()),
            current: Mutex::new(Snapshot::empty()),
            addresses: Mutex::default(),
            health: Mutex::default(),
            config_rejected: Mutex::default(),
        };
        let proxy = Proxy { inner: Arc::new(inner) };
        proxy.apply(snapshot).await?;
        Ok(proxy)
    }

    /// Switches every worker to the snapshot; resolves when all have. Calls are applied one after the other.
    ///
    /// # Errors
    /// If a new listener cannot be bound; then nothing has changed.
    pub async fn apply(&self, snapshot: Arc<Snapshot>) -> Result<Applied, ApplyError> {
        let mut state = self.inner.state.lock().await;
        *state = snapshot.clone();
        *lock(&self.inner.current) = snapshot;
        Ok(Applied::default())
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.inner.current).clone()
    }

    /// Where a listener accepts; useful where port 0 was configured.
    pub fn local_addr(&self, listener: &str) -> Option<SocketAddr> {
        lock(&self.inner.addresses).get(listener).copied()
    }

    /// Ends the traffic without failing a request: answers ask callers to go elsewhere, connections are closed when
    /// quiet, requests finish. Resolves when all is idle, or the deadline has passed.
    pub async fn drain(&self, _options: DrainOptions) -> DrainReport {
        self.inner.readiness.set(Readiness::Draining);
        DrainReport::default()
    }

    /// The health window since the previous call; for one consumer, about once a second.
    pub fn take_health_window(&self) -> HealthWindow {
        let mut health = lock(&self.inner.health);
        let rejected = lock(&self.inner.config_rejected).get();
        let window = health.0.next(&[], |fault| if fault == Fault::ConfigRejected { rejected } else { 0 });
        health.1 = window.clone();
        window
    }

    /// The window that [`Proxy::take_health_window`] gave last.
    pub fn last_health_window(&self) -> HealthWindow {
        lock(&self.inner.health).1.clone()
    }

    /// Counts a configuration that was received and not accepted.
    pub fn note_config_rejected(&self) {
        lock(&self.inner.config_rejected).inc();
    }

    /// Whether it should get traffic.
    pub fn readiness(&self) -> Readiness {
        self.inner.readiness.get()
    }

    /// Sets what `/ready` answers; without effect once it drains.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.inner.readiness.set(readiness);
    }

    /// The version it reports.
    pub fn release(&self) -> &str {
        &self.inner.options.release
    }

    /// The deliberate fault that is switched on, if any.
    pub fn drill(&self) -> Option<Drill> {
        self.inner.options.drill
    }

    /// All metrics as Prometheus text.
    pub fn metrics(&self) -> String {
        crate::stats::render(&[], |_| 0, self.inner.options.drill.is_some())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
