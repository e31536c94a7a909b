//! The socket on which orders come.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use weir_instance::supervisor::{MAX_LINE, Reply, Request};

/// Connections at a time; further ones wait.
const MAX_PEERS: usize = 16;

/// An order, and where the answer goes.
#[derive(Debug)]
pub struct Order {
    /// What is asked.
    pub request: Request,
    /// The answer.
    pub reply: oneshot::Sender<Reply>,
}

/// Takes orders until nobody listens to them.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Order>) {
    let mut peers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if peers.len() < MAX_PEERS => match accepted {
                Ok((stream, _)) => { peers.spawn(peer(stream, orders.clone())); }
                Err(error) => tracing::warn!(%error, "cannot take a connection for orders"),
            },
            Some(_) = peers.join_next() => {}
            () = orders.closed() => return,
        }
    }
}

async fn peer(stream: UnixStream, orders: mpsc::Sender<Order>) {
    if let Err(error) = converse(stream, &orders).await {
        tracing::debug!(%error, "a peer's orders ended");
    }
}

async fn converse(stream: UnixStream, orders: &mpsc::Sender<Order>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut read).take(MAX_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str(&line) {
            Ok(request) => ask(orders, request).await,
            Err(error) => Reply::Error(format!("not understood: {error}")),
        };
        let mut answer = serde_json::to_vec(&reply)?;
        answer.push(b'\n');
        write.write_all(&answer).await?;
    }
}

async fn ask(orders: &mpsc::Sender<Order>, request: Request) -> Reply {
    let (reply, answer) = oneshot::channel();
    let ending = || Reply::Error("the supervisor is ending".into());
    if orders.send(Order { request, reply }).await.is_err() {
        return ending();
    }
    answer.await.unwrap_or_else(|_| ending())
}
