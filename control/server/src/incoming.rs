//! Connections as they come, in plaintext or TLS alike.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;
use tracing::{debug, warn};
use weir_xds::Peer;

/// Pause after a failed accept (out of descriptors, mostly), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for a handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes under way; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Connections whose handshake is done and that nobody has taken yet.
const QUEUE: usize = 64;

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection.
pub(crate) struct Connection {
    stream: Pin<Box<dyn Duplex>>,
    peer: SocketAddr,
    is_encrypted: bool,
}

/// What is accepted: at once, or after the handshake. A handshake that fails concerns nobody but its peer.
pub(crate) fn incoming(listener: TcpListener, tls: Option<TlsAcceptor>) -> BoxStream<'static, Connection> {
    match tls {
        Some(tls) => encrypted(listener, tls).boxed(),
        None => plain(listener).map(|(stream, peer)| Connection::new(stream, peer, false)).boxed(),
    }
}

fn plain(listener: TcpListener) -> impl Stream<Item = (TcpStream, SocketAddr)> + Send {
    stream::unfold(listener, |listener| async move { Some((accept(&listener).await, listener)) })
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // It matters for speed only.
                let _refused = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Handshakes run side by side: one that stalls holds nobody up.
fn encrypted(listener: TcpListener, tls: TlsAcceptor) -> impl Stream<Item = Connection> + Send {
    let (done, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let (stream, peer) = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = done.closed() => return,
            };
            let (tls, done) = (tls.clone(), done.clone());
            tokio::spawn(async move {
                if let Some(connection) = handshake(tls.accept(stream), peer).await {
                    // Nobody takes it any more when the server stops.
                    let _stopped = done.send(connection).await;
                }
                drop(slot);
            });
        }
    });
    stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) })
}

async fn handshake<S: Duplex + 'static>(
    accepting: impl Future<Output = io::Result<S>>,
    peer: SocketAddr,
) -> Option<Connection> {
    match timeout(HANDSHAKE_PATIENCE, accepting).await {
        Ok(Ok(stream)) => return Some(Connection::new(stream, peer, true)),
        Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
    None
}

impl Connection {
    fn new(stream: impl Duplex + 'static, peer: SocketAddr, is_encrypted: bool) -> Connection {
        Connection { stream: Box::pin(stream), peer, is_encrypted }
    }

    /// Who is at its other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { address: Some(self.peer), is_encrypted: self.is_encrypted }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
