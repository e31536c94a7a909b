//! Resources to xDS: the only place where Weir's resources become Envoy's configuration.
//!
//! The way of a change: one task follows the store ([`follow`]) and keeps an index of what it says ([`index`]), from
//! which it encodes each app's shared resources once ([`build`], [`world`]). It publishes the whole as an immutable
//! world and wakes only the streams that are interested in what is different ([`hub`]). Each stream is a state machine
//! without I/O ([`session`]) that works out what its client should have ([`node`]), what it has, and what to send now;
//! [`ads`] moves that over the wire. What clients acknowledge is gathered ([`board`]), and from it the task decides when
//! an instance that leaves is known to be gone to all its callers: it then sets the condition `Unpublished`.
//!
//! Wiring: [`Xds::new`], mount [`Xds::service`] on a gRPC server, and run [`Xds::run`] beside it. The gRPC server should
//! send HTTP/2 keep-alives, so that streams to vanished machines end.

mod ads;
mod board;
mod build;
mod encryption;
mod explain;
#[cfg(test)]
mod fixtures;
mod follow;
mod hub;
mod index;
mod names;
mod node;
mod options;
mod overlay;
mod peer;
mod resource;
mod secrets;
mod session;
mod switch;
mod wire;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use tokio::sync::watch;
use weir_store::SharedStore;
use weir_store::clock::{Clock, system_clock};
use weir_store::observed::Observed;

pub use ads::AdsService;
pub use explain::explain;
pub use options::{Authenticate, Options, anyone};
pub use peer::Peer;

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
    clock: Clock,
    hub: Arc<hub::Hub>,
    board: board::Board,
    /// The store has been read; before, no client is told that there is nothing.
    ready: watch::Sender<bool>,
    down: watch::Sender<bool>,
    next_stream: AtomicU64,
    open_streams: AtomicUsize,
}

impl Xds {
    /// A server over a store; `authenticate` says who may open a stream.
    pub fn new(store: SharedStore, observed: Arc<Observed>, authenticate: Authenticate, options: Options) -> Xds {
        Xds::with_clock(store, observed, authenticate, options, system_clock())
    }

    /// Likewise, with a clock for what is written to the store.
    pub fn with_clock(
        store: SharedStore,
        observed: Arc<Observed>,
        authenticate: Authenticate,
        options: Options,
        clock: Clock,
    ) -> Xds {
        let inner = Inner {
            store,
            observed,
            authenticate,
            options,
            clock,
            hub: Arc::default(),
            board: board::Board::default(),
            ready: watch::Sender::new(false),
            down: watch::Sender::new(false),
            next_stream: AtomicU64::new(1),
            open_streams: AtomicUsize::new(0),
        };
        Xds { inner: Arc::new(inner) }
    }

    /// The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService`.
    pub fn service(&self) -> AggregatedDiscoveryServiceServer<AdsService> {
        AggregatedDiscoveryServiceServer::new(AdsService::new(Arc::clone(&self.inner)))
            .max_decoding_message_size(self.inner.options.max_message_bytes)
    }

    /// Follows the store and publishes until `shutdown` becomes true; then all streams end too. Clients that connect
    /// earlier are kept waiting rather than told that there is nothing.
    pub async fn run(&self, shutdown: watch::Receiver<bool>) {
        follow::Follower::new(Arc::clone(&self.inner)).run(shutdown).await;
        self.inner.down.send_replace(true);
    }
}
