//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpListener;

use super::Stream;

/// Connections the kernel holds that were not accepted yet.
const BACKLOG: i32 = 4_096;

/// Opens one socket per worker, all on the same address. With `inherited`, they are copies of that socket instead.
///
/// One worker gets a socket of its own, so that a second process on the same address is an error; several share the
/// port, and the kernel spreads connections over them (`SO_REUSEPORT`, see `socket(7)`).
pub(crate) fn bind(address: SocketAddr, workers: usize, inherited: Option<&OwnedFd>) -> io::Result<Vec<StdListener>> {
    if let Some(socket) = inherited {
        return (0..workers).map(|_| duplicate(socket)).collect();
    }
    let first = open(address, workers > 1)?;
    let actual = first.local_addr()?;
    let more = (1..workers).map(|_| open(actual, true));
    std::iter::once(Ok(first)).chain(more).collect()
}

fn open(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn duplicate(socket: &OwnedFd) -> io::Result<StdListener> {
    let listener = StdListener::from(socket.as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listening socket of one worker.
#[derive(Debug)]
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// Registers the socket with the runtime of the calling thread.
    pub(crate) fn new(listener: StdListener) -> io::Result<Self> {
        TcpListener::from_std(listener).map(Listener)
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Stream::new(stream, peer), peer))
    }

    /// A connection that is waiting already, if there is one.
    pub(crate) fn accept_waiting(&self) -> Option<(Stream, SocketAddr)> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self.0.poll_accept(&mut cx) {
            std::task::Poll::Ready(Ok((stream, peer))) => Some((Stream::new(stream, peer), peer)),
            _ => None,
        }
    }
}
