//! The first phases of a connection: which protocol is spoken on it, and who serves it.

use std::future::poll_fn;
use std::io;
use std::task::ready;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::ListenerProtocol;

use crate::io::Buf;
use crate::stats::Refusal;
use crate::worker::{Connection, Leaving, count_refusal};

/// First bytes of an HTTP/2 connection with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends.
pub(crate) async fn serve(mut connection: Connection) {
    let view = connection.listener.view();
    let mut first = Buf::default();
    if view.compiled.tls.is_some() && !Box::pin(crate::tls::admit(&mut connection, &mut first)).await {
        connection.worker.buffers.discard(&mut first);
        return;
    }
    match view.compiled.config.protocol {
        ListenerProtocol::Http1 => Box::pin(crate::http1::serve(connection, first)).await,
        ListenerProtocol::Http2 => Box::pin(crate::http2::serve(connection, first)).await,
        ListenerProtocol::Tcp => Box::pin(crate::tcp::serve(connection, first)).await,
        ListenerProtocol::Auto => match sniff(&mut connection, &mut first).await {
            Ok(true) => Box::pin(crate::http2::serve(connection, first)).await,
            Ok(false) => Box::pin(crate::http1::serve(connection, first)).await,
            Err(_) => connection.worker.buffers.discard(&mut first),
        },
    }
}

/// Reads until the bytes are, or can no longer become, the HTTP/2 preface.
async fn sniff(connection: &mut Connection, first: &mut Buf) -> io::Result<bool> {
    let limits = connection.listener.view().compiled.config.limits.clone();
    let idle = Instant::now() + Duration::from_millis(limits.idle_timeout_ms);
    loop {
        let begun = !first.is_empty();
        if begun && !PREFACE.starts_with(&first.filled()[..first.len().min(PREFACE.len())]) {
            return Ok(false);
        }
        if first.len() >= PREFACE.len() {
            return Ok(true);
        }
        let deadline = if begun { Instant::now() + Duration::from_millis(limits.head_timeout_ms) } else { idle };
        if fill(connection, first, deadline).await? == 0 {
            return if begun { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
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
