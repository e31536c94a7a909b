//! The gRPC server: the registry's control stream and xDS on one port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::task::JoinSet;
use tracing::error;
use weir_identity::Authority;
use weir_registry::Registry;
use weir_xds::Xds;

use crate::Base;
use crate::access::Authenticate;
use crate::incoming::Connection;

/// A peer that is gone without a word is noticed after this and [`PING_PATIENCE`].
const PING_EVERY: Duration = Duration::from_secs(10);
/// Time to answer a ping.
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// Streams on one connection: a proxy needs two, a gRPC process a few.
const STREAMS: u32 = 64;

/// Starts both services, and what they do beside their streams.
pub(crate) fn start(
    parts: &mut JoinSet<&'static str>,
    base: &Base,
    authenticate: Authenticate,
    authority: Arc<Authority>,
    incoming: BoxStream<'static, Connection>,
) {
    let (store, observed) = (base.store.clone(), base.observed.clone());
    let registry =
        Registry::new(store.clone(), observed.clone(), authenticate.clone(), weir_registry::Options::default());
    let options = weir_xds::Options { authority: Some(authority), ..weir_xds::Options::default() };
    let xds = Xds::new(store, observed, authenticate, options);
    parts.spawn(serve(incoming, registry.clone(), xds.clone(), base.stopped.clone()));
    let stopped = base.stopped.clone();
    parts.spawn(async move {
        registry.run(stopped).await;
        "the registry"
    });
    let stopped = base.stopped.clone();
    parts.spawn(async move {
        xds.run(stopped).await;
        "xDS"
    });
}

async fn serve(
    incoming: BoxStream<'static, Connection>,
    registry: Registry,
    xds: Xds,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) -> &'static str {
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_PATIENCE))
        .max_concurrent_streams(STREAMS)
        .add_service(registry.service())
        .add_service(xds.service())
        .serve_with_incoming_shutdown(incoming.map(Ok::<_, Infallible>), async move {
            drop(stopped.wait_for(|stop| *stop).await);
        });
    if let Err(error) = server.await {
        error!(%error, "the gRPC server failed");
    }
    "the gRPC server"
}
