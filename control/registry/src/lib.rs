//! Services and endpoints: who is there, since when, and how it does.
//!
//! A proxy keeps one control stream to the control plane ([`service`]). Its `Hello` becomes an `Instance` in the store;
//! its `Health`, one window per second, goes to the observed state and renews its lease; its `Goodbye` takes it out of
//! the endpoints before it stops. Leases are kept in memory ([`lease`], pure) because they come back by themselves
//! within seconds; what they decide is written to the store, where the xDS server and the controllers see it.
//!
//! Wiring: [`Registry::new`], mount [`Registry::service`] on a gRPC server, and run [`Registry::run`] beside it.

mod options;
mod service;

use std::sync::Arc;

use tokio::sync::watch;
use weir_proto::control::proxy_control_server::ProxyControlServer;
use weir_store::SharedStore;
use weir_store::observed::Observed;

pub use options::{Authenticate, Options, anyone};
use service::ControlService;

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
}

impl Registry {
    /// A registry over a store; `authenticate` says who may open a control stream.
    pub fn new(store: SharedStore, observed: Arc<Observed>, authenticate: Authenticate, options: Options) -> Registry {
        Registry { inner: Arc::new(Inner { store, observed, authenticate, options }) }
    }

    /// The gRPC service `weir.control.v1.ProxyControl`.
    pub fn service(&self) -> ProxyControlServer<ControlService> {
        ProxyControlServer::new(ControlService::new(Arc::clone(&self.inner)))
            .max_decoding_message_size(self.inner.options.max_message_bytes)
    }

    /// Sweeps leases and follows the store until `shutdown` becomes true; then all control streams end too.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let _ = shutdown.wait_for(|down| *down).await;
    }
}
