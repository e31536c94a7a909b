//! Opening a connection to an endpoint: TCP, then TLS where the endpoint wants it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::cluster::{ClusterState, EndpointState, OpenConnection};
use crate::io::{Buf, Stream, connect};
use crate::stats::{Link, LinkKey};
use crate::tls::{Alpn, ClientTls, HandshakeFailure, Security, identity_of};

/// Connects within the cluster's time, and counts how it went.
pub(crate) async fn open_stream(
    cluster: &ClusterState,
    endpoint: &EndpointState,
    alpn: Alpn,
) -> io::Result<(Stream, OpenConnection)> {
    match secured(cluster, endpoint, alpn).await {
        Ok(opened) => {
            cluster.stats.connects.inc();
            endpoint.note_connected();
            Ok(opened)
        }
        Err(error) => {
            cluster.stats.connect_failures.inc();
            endpoint.note_connect_failure();
            Err(error)
        }
    }
}

async fn secured(cluster: &ClusterState, endpoint: &EndpointState, alpn: Alpn) -> io::Result<(Stream, OpenConnection)> {
    let timeout = Duration::from_millis(cluster.compiled.config.connect_timeout_ms);
    let deadline = Instant::now() + timeout;
    // What is wanted may change meanwhile; then the connection serves this request and is not kept.
    let tls = endpoint.tls();
    let security = tls.as_ref().map_or(Security::Plain, |tls| Security::Tls(tls.generation));
    let mut open = OpenConnection::new(cluster, security);
    let mut stream = connect(endpoint.address, timeout).await?;
    open.own = cluster.shared.own.note(&stream, endpoint.address);
    let mut identity = Arc::default();
    if let Some(tls) = &tls {
        let shaken = Box::pin(shake(cluster, &mut stream, tls, alpn));
        let shaken = timeout_at(deadline, shaken).await.unwrap_or(Err(HandshakeFailure::Timeout));
        identity = shaken.map_err(|failure| failed(cluster, endpoint, failure))?;
    }
    // Where there is no TLS yet there may be tomorrow, and the connection be the same.
    let key = LinkKey { inbound: false, cluster: cluster.compiled.name.clone(), identity };
    open.link = Some(Link::open(&cluster.shared.stats.links, key, tls.is_some()));
    Ok((stream, open))
}

/// The identity of the peer, once hands are shaken.
async fn shake(
    cluster: &ClusterState,
    stream: &mut Stream,
    tls: &ClientTls,
    alpn: Alpn,
) -> Result<Arc<str>, HandshakeFailure> {
    let session = tls.session(alpn).ok_or(HandshakeFailure::NotReady)?;
    let secured = stream.secure(session, &cluster.shared.buffers, Buf::default()).await;
    secured.map_err(|unsecured| HandshakeFailure::from(&unsecured))?;
    Ok(stream.peer_certificate().and_then(|shown| identity_of(&shown)).unwrap_or_default().into())
}

fn failed(cluster: &ClusterState, endpoint: &EndpointState, failure: HandshakeFailure) -> io::Error {
    tracing::debug!(cluster = %cluster.compiled.name, endpoint = %endpoint.address, ?failure, "TLS handshake failed");
    cluster.shared.stats.outbound_handshakes.count(failure);
    let key = LinkKey { inbound: false, cluster: cluster.compiled.name.clone(), ..Default::default() };
    cluster.shared.stats.links.at(key).refused.inc();
    io::Error::other(format!("TLS handshake: {}", failure.as_str()))
}
