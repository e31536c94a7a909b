//! Resources to xDS: the only place where Weir's resources become Envoy's configuration.
//!
//! Wiring: [`Xds::new`], mount [`Xds::service`] on a gRPC server, and run [`Xds::run`] beside it.

mod ads;
mod options;

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use tokio::sync::watch;
use weir_store::SharedStore;
use weir_store::observed::Observed;

use ads::AdsService;
pub use options::{Authenticate, Options, anyone};

/// The xDS server: one per control plane process.
#[derive(Clone)]
pub struct Xds {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: SharedStore,
    observed: Arc<Observed>,
    authenticate: Authenticate,
    options: Options,
}

impl Xds {
    /// A server over a store; `authenticate` says who may open a stream.
    pub fn new(store: SharedStore, observed: Arc<Observed>, authenticate: Authenticate, options: Options) -> Xds {
        Xds { inner: Arc::new(Inner { store, observed, authenticate, options }) }
    }

    /// The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService`.
    pub fn service(&self) -> AggregatedDiscoveryServiceServer<AdsService> {
        AggregatedDiscoveryServiceServer::new(AdsService::new(Arc::clone(&self.inner)))
            .max_decoding_message_size(self.inner.options.max_message_bytes)
    }

    /// Follows the store and publishes until `shutdown` becomes true; then all streams end too.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let _ = shutdown.wait_for(|down| *down).await;
    }
}
