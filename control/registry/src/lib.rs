//! Services and endpoints: who is there, since when, and how it does.
//!
//! A proxy keeps one control stream to the control plane ([`service`]). Its `Hello`, once checked ([`hello`]), becomes an
//! `Instance` in the store ([`records`]); its `Health`, one window per second, goes to the observed state ([`health`])
//! and renews its lease; its `Goodbye` takes it out of the endpoints before it stops. Leases are kept in memory
//! ([`lease`], pure) because they come back by themselves within seconds; what they decide is written to the store
//! ([`sweep`]), where the xDS server and the controllers see it.
//!
//! An instance that joined by itself is walked through its phases here: `Serving` once its self-check has passed,
//! `Unpublishing` when it says goodbye, deleted when it is gone. One that Weir manages belongs to the instance
//! controller; here only what its proxy says is noted. The exception is a goodbye nobody asked for: a proxy that leaves
//! while `Serving` must leave the endpoints first, whoever manages it.
//!
//! Wiring: [`Registry::new`], mount [`Registry::service`] on a gRPC server, and run [`Registry::run`] beside it.

mod health;
mod hello;
mod lease;
mod options;
mod records;
mod service;
mod sweep;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weir_proto::control::proxy_control_server::ProxyControlServer;
use weir_store::SharedStore;
use weir_store::clock::{Clock, system_clock};
use weir_store::observed::Observed;

pub use options::{Authenticate, Options, anyone};
pub use service::ControlService;

/// The registry: one per control plane process.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: SharedStore,
    observed: Arc<Observed>,
    authenticate: Authenticate,
    options: Options,
    clock: Clock,
    records: records::Records,
    leases: Mutex<lease::Leases>,
    addresses: health::Addresses,
    down: watch::Sender<bool>,
    open_streams: AtomicUsize,
}

impl Inner {
    fn leases(&self) -> MutexGuard<'_, lease::Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// A registry over a store; `authenticate` says who may open a control stream.
    pub fn new(store: SharedStore, observed: Arc<Observed>, authenticate: Authenticate, options: Options) -> Registry {
        Registry::with_clock(store, observed, authenticate, options, system_clock())
    }

    /// Likewise, with a clock for what is written to the store.
    pub fn with_clock(
        store: SharedStore,
        observed: Arc<Observed>,
        authenticate: Authenticate,
        options: Options,
        clock: Clock,
    ) -> Registry {
        let inner = Inner {
            records: records::Records::new(store.clone()),
            store,
            observed,
            authenticate,
            options,
            clock,
            leases: Mutex::default(),
            addresses: health::Addresses::default(),
            down: watch::Sender::new(false),
            open_streams: AtomicUsize::new(0),
        };
        Registry { inner: Arc::new(inner) }
    }

    /// The gRPC service `weir.control.v1.ProxyControl`.
    pub fn service(&self) -> ProxyControlServer<ControlService> {
        ProxyControlServer::new(ControlService::new(Arc::clone(&self.inner)))
            .max_decoding_message_size(self.inner.options.max_message_bytes)
    }

    /// Sweeps leases and follows the store until `shutdown` becomes true; then all control streams end too.
    pub async fn run(&self, shutdown: watch::Receiver<bool>) {
        sweep::Sweeper::new(Arc::clone(&self.inner)).run(shutdown).await;
        self.inner.down.send_replace(true);
    }
}
