//! The first phases of a connection: which protocol is spoken on it, and who serves it.

use std::future::poll_fn;
use std::io;
use std::task::ready;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::ListenerProtocol;

use crate::io::Buf;
use crate::rpc::Protocol;
use crate::stats::Refusal;
use crate::worker::{Connection, Leaving, count_refusal};

/// First bytes of an HTTP/2 connection with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First bytes of every Dubbo frame.
const DUBBO_0: u8 = weir_codec::dubbo::MAGIC[0];
const DUBBO_1: u8 = weir_codec::dubbo::MAGIC[1];

/// Serves a connection until it ends.
///
/// Most connections speak HTTP/1 and are idle: that state is part of the task itself, and small. All else has memory of
/// its own for as long as it lasts. The connection is boxed since every async function has room for its arguments twice.
pub(crate) async fn serve(connection: Box<Connection>) {
    match Box::pin(opened(connection)).await {
        Some((Spoken::Http1, connection, first)) => crate::http1::serve(connection, first).await,
        Some((Spoken::Http2, connection, first)) => Box::pin(crate::http2::serve(connection, first)).await,
        Some((Spoken::Rpc(protocol), connection, first)) => {
            Box::pin(crate::rpc::serve(connection, protocol, first)).await;
        }
        Some((Spoken::Tcp, connection, first)) => Box::pin(crate::tcp::serve(connection, first)).await,
        None => {}
    }
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
    Rpc(Protocol),
    Tcp,
}

/// The connection with what was read from it; `None` if it ended before it said what it speaks.
async fn opened(mut connection: Box<Connection>) -> Option<(Spoken, Box<Connection>, Buf)> {
    let mut first = Buf::default();
    match spoken(&mut connection, &mut first).await {
        Some(spoken) => Some((spoken, connection, first)),
        None => {
            connection.worker.buffers.discard(&mut first);
            None
        }
    }
}

async fn spoken(connection: &mut Connection, first: &mut Buf) -> Option<Spoken> {
    let view = connection.listener.view();
    if view.compiled.tls.is_some() && !crate::tls::admit(connection, first).await {
        return None;
    }
    match view.compiled.config.protocol {
        ListenerProtocol::Http1 => Some(Spoken::Http1),
        ListenerProtocol::Http2 => Some(Spoken::Http2),
        ListenerProtocol::Bolt => Some(Spoken::Rpc(Protocol::Bolt)),
        ListenerProtocol::Dubbo => Some(Spoken::Rpc(Protocol::Dubbo)),
        ListenerProtocol::Tcp => Some(Spoken::Tcp),
        ListenerProtocol::Auto => sniff(connection, first).await.ok(),
    }
}

/// Reads until the first bytes tell what is spoken.
async fn sniff(connection: &mut Connection, first: &mut Buf) -> io::Result<Spoken> {
    let limits = connection.listener.view().compiled.config.limits.clone();
    let idle = Instant::now() + Duration::from_millis(limits.idle_timeout_ms);
    loop {
        if let Some(spoken) = told_by(first.filled()) {
            return Ok(spoken);
        }
        let begun = !first.is_empty();
        let deadline = if begun { Instant::now() + Duration::from_millis(limits.head_timeout_ms) } else { idle };
        if fill(connection, first, deadline).await? == 0 {
            return if begun { Ok(Spoken::Http1) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// `None`: more bytes are needed, at most as many as the HTTP/2 preface has. No HTTP request begins with a byte of Bolt's
/// or Dubbo's.
fn told_by(first: &[u8]) -> Option<Spoken> {
    let shared = first.len().min(PREFACE.len());
    match first {
        [] | [DUBBO_0] => None,
        [1 | 2, ..] => Some(Spoken::Rpc(Protocol::Bolt)),
        [DUBBO_0, DUBBO_1, ..] => Some(Spoken::Rpc(Protocol::Dubbo)),
        _ if first[..shared] != PREFACE[..shared] => Some(Spoken::Http1),
        _ => (shared == PREFACE.len()).then_some(Spoken::Http2),
    }
}

async fn fill(connection: &mut Connection, buf: &mut Buf, deadline: Instant) -> io::Result<usize> {
    let Connection { worker, listener, control, stream, timer, security, .. } = connection;
    let leaving = Leaving { worker, listener, security: *security };
    let read = poll_fn(|cx| {
        control.listen(cx.waker());
        if leaving.when_quiet() && buf.is_empty() && stream.poll_readable(cx).is_pending() {
            return std::task::Poll::Ready(Ok(0));
        }
        ready!(stream.poll_readable(cx))?;
        worker.buffers.fill(buf);
        stream.poll_read(cx, buf)
    });
    match timer.limit(Some(deadline), read).await {
        Ok(read) => read,
        Err(_) => {
            if !buf.is_empty() {
                count_refusal(worker, Refusal::HeadTimeout);
            }
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_tell_what_is_spoken() {
        for (first, spoken) in [
            (&b""[..], None),
            (b"G", Some(Spoken::Http1)),
            (b"P", None),
            (b"POST", Some(Spoken::Http1)),
            (&PREFACE[..23], None),
            (PREFACE, Some(Spoken::Http2)),
            (b"\x01", Some(Spoken::Rpc(Protocol::Bolt))),
            (b"\x02\x01", Some(Spoken::Rpc(Protocol::Bolt))),
            (b"\xda", None),
            (b"\xda\xbb", Some(Spoken::Rpc(Protocol::Dubbo))),
            (b"\xda\xbc", Some(Spoken::Http1)),
        ] {
            assert_eq!(told_by(first), spoken, "{first:?}");
        }
    }

    fn size_of_future<A, F: Future>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle connection's task is memory that is there thousands of times.
    #[test]
    fn an_idle_connection_is_small() {
        let (task, connection) = (size_of_future(serve), size_of::<Connection>());
        assert!(task + connection <= 640, "task {task}, connection {connection} bytes");
    }
}
