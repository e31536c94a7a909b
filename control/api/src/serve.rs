//! The sockets and their limits.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use futures::{Stream, StreamExt};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

use crate::gate::Peer;
use crate::shared::{Api, Limits};

/// Serves the API on connections as they come, each with the address of its peer, until `shutdown` becomes true; then lets
/// open requests end within the drain time.
pub async fn serve<S>(
    mut incoming: impl Stream<Item = (S, SocketAddr)> + Unpin,
    api: Api,
    mut shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (router, limits) = (api.router(), api.shared.options.limits.clone());
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&mut incoming, &connections) => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let Some((stream, peer, permit)) = accepted else { break };
        connection(stream, peer, permit, &router, &limits, &graceful);
    }
    drop(incoming);
    if tokio::time::timeout(limits.drain_time, graceful.shutdown()).await.is_err() {
        warn!("some requests to the API were cut off at shutdown");
    }
}

/// Takes a connection when there is room for it; until then it waits with whoever accepts.
async fn accept<S>(
    incoming: &mut (impl Stream<Item = (S, SocketAddr)> + Unpin),
    connections: &Arc<Semaphore>,
) -> Option<(S, SocketAddr, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    let (stream, peer) = incoming.next().await?;
    Some((stream, peer, permit))
}

fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    router: &Router,
    limits: &Limits,
    graceful: &GracefulShutdown,
) {
    let router = TowerToHyperService::new(router.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%peer, %error, "a connection to the API ended early");
        }
        drop(permit);
    });
}
