//! The first phases of a connection: which protocol is spoken on it, and who serves it.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::Instant;
use weir_codec::tls_hello::{self, ClientHello};
use weir_config::{ListenerProtocol, TlsMode};

use crate::detect::{Told, told_by};
use crate::io::Buf;
use crate::rpc::Protocol;
use crate::stats::Refusal;
use crate::tcp::Wanted;
use crate::worker::{Connection, Leaving, ListenerView, count_refusal};

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
        None => {}
    }
}

/// What is spoken on a connection whose messages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
    Rpc(Protocol),
}

/// What a connection is.
#[derive(Debug)]
enum Kind {
    Spoken(Spoken),
    /// Bytes, and where they go.
    Tcp(Wanted),
}

impl Kind {
    /// What the listener passes on without looking at it.
    fn rest(view: &ListenerView) -> Self {
        Kind::Tcp(Wanted { passage: view.compiled.passing.rest(), server_name: None })
    }
}

/// The connection with what was read from it; `None` if it has ended: before it said what it speaks, or after its bytes
/// have been passed on.
async fn opened(mut connection: Box<Connection>) -> Option<(Spoken, Box<Connection>, Buf)> {
    if !connection.find_destination() {
        return None;
    }
    let mut first = Buf::default();
    match kind(&mut connection, &mut first).await {
        Some(Kind::Spoken(spoken)) => return Some((spoken, connection, first)),
        Some(Kind::Tcp(wanted)) => Box::pin(crate::tcp::serve(connection, first, wanted)).await,
        None => connection.worker.buffers.discard(&mut first),
    }
    None
}

async fn kind(connection: &mut Connection, first: &mut Buf) -> Option<Kind> {
    let view = connection.listener.view();
    if is_looked_at(&view) {
        drop(view);
        match begin(connection, first).await {
            Read::More => {}
            Read::Late => return silent(connection),
            Read::End => return None,
        }
    }
    // The configuration may have changed while nothing came.
    let view = connection.listener.view();
    if first.filled().first() == Some(&crate::tls::HANDSHAKE) && view.compiled.passing.looks_at_names() {
        let hello = hello(connection, first).await?;
        if let Some(wanted) = by_name(&view, hello) {
            return Some(Kind::Tcp(wanted));
        }
    }
    if view.compiled.tls.is_some() && !first.is_empty() && !crate::tls::admit(connection, first).await {
        return None;
    }
    match view.compiled.config.protocol {
        ListenerProtocol::Http1 => Some(Kind::Spoken(Spoken::Http1)),
        ListenerProtocol::Http2 => Some(Kind::Spoken(Spoken::Http2)),
        ListenerProtocol::Bolt => Some(Kind::Spoken(Spoken::Rpc(Protocol::Bolt))),
        ListenerProtocol::Dubbo => Some(Kind::Spoken(Spoken::Rpc(Protocol::Dubbo))),
        ListenerProtocol::Tcp => Some(Kind::rest(&view)),
        ListenerProtocol::Auto => sniff(connection, &view, first).await,
    }
}

/// Whether what becomes of a connection depends on what it begins with.
fn is_looked_at(view: &ListenerView) -> bool {
    let listener = &view.compiled;
    listener.tls.is_some() || listener.passing.looks_at_names() || listener.config.protocol == ListenerProtocol::Auto
}

/// A caller that says nothing waits for the server to begin, where there may be such a server; it is TCP then.
fn silent(connection: &Connection) -> Option<Kind> {
    let view = connection.listener.view();
    may_be_silent(&view).then(|| Kind::rest(&view))
}

fn may_be_silent(view: &ListenerView) -> bool {
    let strict = view.compiled.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Strict);
    view.compiled.passing.rest().is_some() && !strict
}

/// Where a TLS connection goes that is not for this proxy: by the server it asks for, or with the rest.
fn by_name(view: &ListenerView, hello: Option<ClientHello>) -> Option<Wanted> {
    let server_name = hello.and_then(|hello| hello.server_name);
    let listener = &view.compiled;
    let named = listener.passing.by_name(server_name.as_deref());
    let is_for_others = named.is_some() || listener.tls.is_none();
    is_for_others.then(|| Wanted { passage: named.or_else(|| listener.passing.rest()), server_name })
}

/// Reads what TLS begins with. `Some(None)`: it is not TLS after all; `None`: the connection has ended.
async fn hello(connection: &mut Connection, first: &mut Buf) -> Option<Option<ClientHello>> {
    let timeout = connection.listener.view().compiled.config.limits.head_timeout_ms;
    let deadline = Instant::now() + Duration::from_millis(timeout);
    loop {
        match tls_hello::parse(first.filled()) {
            Ok(Some(hello)) => return Some(Some(hello)),
            Err(_) => return Some(None),
            Ok(None) => {}
        }
        match fill(connection, first, deadline).await {
            Read::More => {}
            Read::End => return None,
            Read::Late => return late(connection),
        }
    }
}

/// A beginning was not finished in time.
fn late<T>(connection: &Connection) -> Option<T> {
    count_refusal(&connection.worker, Refusal::HeadTimeout);
    None
}

/// Reads until the first bytes tell what is spoken. Where TCP is what is left, what they do not tell in time is TCP.
async fn sniff(connection: &mut Connection, view: &ListenerView, first: &mut Buf) -> Option<Kind> {
    let limits = &view.compiled.config.limits;
    let has_rest = view.compiled.passing.rest().is_some();
    // After a handshake nothing may have come yet.
    if first.is_empty() && !has_rest && begin(connection, first).await != Read::More {
        return None;
    }
    let timeout = if has_rest { limits.detect_timeout_ms } else { limits.head_timeout_ms };
    let deadline = Instant::now() + Duration::from_millis(timeout);
    loop {
        let spoken = match told_by(first.filled(), has_rest) {
            Told::Http1 => Some(Spoken::Http1),
            Told::Http2 => Some(Spoken::Http2),
            Told::Rpc(protocol) => Some(Spoken::Rpc(protocol)),
            Told::Other => return Some(Kind::rest(view)),
            Told::Nothing => None,
        };
        if let Some(spoken) = spoken {
            return Some(Kind::Spoken(spoken));
        }
        match fill(connection, first, deadline).await {
            Read::More => {}
            _ if has_rest => return Some(Kind::rest(view)),
            Read::End => return Some(Kind::Spoken(Spoken::Http1)),
            Read::Late => return late(connection),
        }
    }
}

/// How a wait for bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    More,
    /// There will be no more.
    End,
    /// None came in time.
    Late,
}

/// Waits for the first bytes, without holding a buffer meanwhile.
async fn begin(connection: &mut Connection, first: &mut Buf) -> Read {
    let view = connection.listener.view();
    let limits = &view.compiled.config.limits;
    let wait = if may_be_silent(&view) { limits.detect_timeout_ms } else { limits.idle_timeout_ms };
    drop(view);
    fill(connection, first, Instant::now() + Duration::from_millis(wait)).await
}

async fn fill(connection: &mut Connection, buf: &mut Buf, deadline: Instant) -> Read {
    let Connection { worker, listener, control, stream, timer, security, .. } = connection;
    let leaving = Leaving { worker, listener, security: *security };
    let read = poll_fn(|cx| {
        control.listen(cx.waker());
        if leaving.when_quiet() && buf.is_empty() && stream.poll_readable(cx).is_pending() {
            return Poll::Ready(Ok(0));
        }
        ready!(stream.poll_readable(cx))?;
        worker.buffers.fill(buf);
        stream.poll_read(cx, buf)
    });
    match timer.limit(Some(deadline), read).await {
        Ok(Ok(read)) if read > 0 => Read::More,
        Ok(_) => Read::End,
        Err(_) => Read::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle connection's task is memory that is there thousands of times.
    #[test]
    fn an_idle_connection_is_small() {
        let (task, connection) = (size_of_future(serve), size_of::<Connection>());
        assert!(task + connection <= 656, "task {task}, connection {connection} bytes");
    }
}
