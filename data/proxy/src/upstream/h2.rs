//! HTTP/2 connections to endpoints: few, each carrying many requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::timeout;
use weir_h2::{Config, SendRequest};

use super::cluster::{ClusterState, EndpointState};
use super::connect::open_stream;
use super::pool::AcquireError;
use crate::io::{Buf, Prefixed};
use crate::stats::Refusal;
use crate::tls::{Alpn, Security};

/// Requests put on a connection before another is opened, if the peer allows more.
const STREAMS_PER_CONNECTION: usize = 100;
/// Connections per endpoint and worker; beyond, requests queue inside them.
const MAX_CONNECTIONS: usize = 16;
/// A connection that does not answer a ping within this is closed.
const PONG: Duration = Duration::from_secs(2);
/// Flow-control windows offered to peers (bytes): what a stream and a connection may have in flight towards us.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Largest header list taken from a peer (bytes).
pub(crate) const MAX_HEADER_LIST_BYTES: usize = 64 * 1024;

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct H2Pool {
    connections: RefCell<Vec<Rc<H2Connection>>>,
    /// Held while one is opened, so that a burst of requests opens one and not as many as it has requests.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct H2Connection {
    send: SendRequest,
    security: Security,
    /// Requests on it.
    active: Cell<usize>,
    idle_since: Cell<Instant>,
    /// It takes no more requests.
    gone: Cell<bool>,
    /// A request on it was not answered in time: it gets no other until it has answered a ping.
    suspect: Cell<bool>,
    driver: RefCell<Option<AbortHandle>>,
}

/// A place on a connection, for one request.
#[derive(Debug)]
pub(crate) struct H2Lease {
    connection: Rc<H2Connection>,
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        self.connection.idle_since.set(Instant::now());
    }
}

impl H2Lease {
    fn new(connection: &Rc<H2Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        H2Lease { connection: connection.clone() }
    }

    /// Sends the request.
    pub(crate) fn send(&self) -> &SendRequest {
        &self.connection.send
    }

    /// The connection turned out not to take requests any more.
    pub(crate) fn note_gone(&self) {
        self.connection.gone.set(true);
    }

    /// The request was not answered in time. The connection gets no other until it has answered a ping, and is closed if
    /// it does not, which ends the requests on it. Pings at other times would be taken for an attack by some servers.
    pub(crate) fn note_silence(&self) {
        if !self.connection.suspect.replace(true) {
            tokio::task::spawn_local(probe(self.connection.clone()));
        }
    }
}

async fn probe(connection: Rc<H2Connection>) {
    if matches!(timeout(PONG, connection.send.ping()).await, Ok(Ok(()))) {
        connection.suspect.set(false);
    } else {
        tracing::debug!("an HTTP/2 upstream does not answer: its connection is closed");
        connection.gone.set(true);
        if let Some(driver) = connection.driver.take() {
            driver.abort();
        }
    }
}

impl H2Connection {
    fn takes(&self, endpoint: &EndpointState) -> bool {
        !self.gone.get() && endpoint.takes(self.security)
    }
}

impl H2Pool {
    /// The least loaded connection that has room. Those that take no more requests are let go: they finish what they carry.
    fn best(&self, endpoint: &EndpointState, limit: usize) -> Option<H2Lease> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.takes(endpoint));
        let most = connections.len() >= MAX_CONNECTIONS;
        let usable = connections.iter().filter(|connection| most || !connection.suspect.get());
        let least = usable.min_by_key(|connection| (connection.suspect.get(), connection.active.get()))?;
        let limit = limit.min(least.send.max_streams().max(1));
        let has_room = least.active.get() < limit || most;
        has_room.then(|| H2Lease::new(least))
    }

    /// Takes no more requests; what is in flight finishes, then the connections close.
    pub(super) fn retire(&self) {
        self.connections.take();
    }

    /// Lets go of connections that have been idle for too long or take no more requests.
    pub(super) fn sweep(&self, endpoint: &EndpointState, now: Instant, timeout: Duration) {
        let idle = |connection: &H2Connection| {
            connection.active.get() == 0 && now.duration_since(connection.idle_since.get()) >= timeout
        };
        self.connections.borrow_mut().retain(|connection| connection.takes(endpoint) && !idle(connection));
    }
}

/// A place on a connection to the endpoint, which is ready to take a request.
pub(crate) async fn acquire_h2(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
) -> Result<H2Lease, AcquireError> {
    for _ in 0..=MAX_CONNECTIONS {
        let lease = match endpoint.h2.best(endpoint, STREAMS_PER_CONNECTION) {
            Some(lease) => lease,
            None => open_one(cluster, endpoint).await?,
        };
        match lease.send().check_ready() {
            Ok(()) => return Ok(lease),
            Err(_) => lease.note_gone(),
        }
    }
    Err(AcquireError::Connect(std::io::ErrorKind::ConnectionReset.into()))
}

async fn open_one(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) -> Result<H2Lease, AcquireError> {
    let _opening = endpoint.h2.opening.lock().await;
    if let Some(lease) = endpoint.h2.best(endpoint, STREAMS_PER_CONNECTION) {
        return Ok(lease);
    }
    if cluster.stats.connections.get() >= cluster.compiled.config.limits.max_connections as u64 {
        return Err(AcquireError::Refused(Refusal::Pending));
    }
    let connection = handshake(cluster, endpoint).await.map_err(AcquireError::Connect)?;
    if connection.takes(endpoint) {
        endpoint.h2.connections.borrow_mut().push(connection.clone());
    }
    Ok(H2Lease::new(&connection))
}

async fn handshake(cluster: &ClusterState, endpoint: &EndpointState) -> std::io::Result<Rc<H2Connection>> {
    let (stream, open) = open_stream(cluster, endpoint, Alpn::Http2).await?;
    let config = Config {
        max_header_list_bytes: MAX_HEADER_LIST_BYTES,
        stream_window_bytes: STREAM_WINDOW,
        connection_window_bytes: CONNECTION_WINDOW,
        ..Default::default()
    };
    let (send, driver) = weir_h2::connect(Prefixed::new(Buf::default(), stream), config);
    let connection = Rc::new(H2Connection {
        send,
        security: open.security,
        active: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        gone: Cell::new(false),
        suspect: Cell::new(false),
        driver: RefCell::default(),
    });
    let watched = Rc::downgrade(&connection);
    let task = tokio::task::spawn_local(async move {
        // How it ended shows on the requests it carried.
        let _ = driver.await;
        drop(open);
        if let Some(connection) = watched.upgrade() {
            connection.gone.set(true);
        }
    });
    connection.driver.replace(Some(task.abort_handle()));
    Ok(connection)
}
