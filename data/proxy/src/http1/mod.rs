//! HTTP/1 from callers: one request after the other on a connection.
//!
//! [`serve`] tells the whole story. A request's head is parsed in the receive buffer, decided about, and written anew
//! for the upstream in the same step; nothing of it needs to be kept. Bodies pass from socket to socket through one
//! buffer, framed as they came.

mod answer;
mod body;
mod fields;
mod forward;
mod head;
mod prepare;
mod respond;
mod tunnel;
mod upload;

pub(crate) use answer::{reason_phrase, write_answer};
pub(crate) use forward::{explain, write_failure};
pub(crate) use prepare::{Facts, forward_action, forwarded_for, is_idempotent};
pub(crate) use respond::{MAX_RESPONSE_HEAD, MAX_RESPONSE_HEADERS};
pub(crate) use tunnel::{Moved, tunnel};

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use weir_codec::http1::Reject;

use crate::io::{Buf, Elapsed};
use crate::stats::{Fault, Refusal};
use crate::worker::{Connection, Leaving, count_refusal};
use prepare::{Next, Request, prepare};

/// After the last answer, what the caller still sends is read for this long, so that the answer is not lost by a reset.
const LINGER: Duration = Duration::from_secs(1);
/// And no more of it than this (bytes).
const LINGER_BYTES: usize = 1024 * 1024;

/// What a connection does after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Takes the next.
    KeepAlive,
    /// Is closed.
    Close,
    /// Is closed once the caller has had time to read the answer.
    Linger,
}

/// Serves a connection; `buf` holds what was read from it already.
///
/// What this future holds is what an idle connection costs. So a request under way has memory of its own, and so has
/// whatever happens at most once in a connection's life.
pub(crate) async fn serve(mut connection: Box<Connection>, mut buf: Buf) {
    let worker = connection.worker.clone();
    let mut after = After::KeepAlive;
    while after == After::KeepAlive {
        let Some(request) = next_request(&mut connection, &mut buf).await else { break };
        after = worker.frames.run(handle(&mut connection, &mut buf, request)).await;
        worker.buffers.release_if_empty(&mut buf);
    }
    if after == After::Linger {
        Box::pin(linger(&mut connection, &mut buf)).await;
    }
    worker.buffers.discard(&mut buf);
}

async fn handle(connection: &mut Connection, buf: &mut Buf, request: Request) -> After {
    match request.next {
        Next::Answer(answer) => answer::answer(connection, buf, &request.facts, &request.ticket, &answer).await,
        Next::Forward(outgoing) => forward::forward(connection, buf, &request.facts, &request.ticket, outgoing).await,
        Next::Bridge(bridged) => {
            Box::pin(crate::bridge::from_http1(connection, buf, &request.facts, request.ticket, *bridged)).await
        }
    }
}

/// The next request, decided about; `None` if there is none any more.
async fn next_request(connection: &mut Connection, buf: &mut Buf) -> Option<Request> {
    let mut begun = None;
    loop {
        if !buf.is_empty() {
            match prepare(connection, buf) {
                Ok(Some(request)) => return Some(request),
                Ok(None) => {}
                Err(reject) => {
                    Box::pin(refuse(connection, buf, reject)).await;
                    return None;
                }
            }
        }
        if !fill(connection, buf, &mut begun).await {
            return None;
        }
    }
}

/// Reads more of a head. False if there is no more, or it took too long.
async fn fill(connection: &mut Connection, buf: &mut Buf, begun: &mut Option<Instant>) -> bool {
    match Waiting::new(connection, buf, begun).more().await {
        Ok(more) => more,
        Err(_) => {
            if !buf.is_empty() {
                count_refusal(&connection.worker, Refusal::HeadTimeout);
                let _ = Box::pin(write_closing(connection, 408)).await;
            }
            false
        }
    }
}

/// A connection that waits for the next head, or for more of it. It holds no view of the configuration: an idle
/// connection must not keep an old one alive.
struct Waiting<'a> {
    connection: &'a mut Connection,
    buf: &'a mut Buf,
    begun: &'a mut Option<Instant>,
    deadline: Option<Instant>,
}

impl<'a> Waiting<'a> {
    fn new(connection: &'a mut Connection, buf: &'a mut Buf, begun: &'a mut Option<Instant>) -> Self {
        Waiting { connection, buf, begun, deadline: None }
    }

    /// Whether more has come.
    async fn more(mut self) -> Result<bool, Elapsed> {
        if self.buf.is_allocated() && !self.has_room() {
            return Ok(false);
        }
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn has_room(&mut self) -> bool {
        let most = self.connection.listener.view().compiled.config.limits.max_head_bytes;
        self.buf.make_room(most.max(crate::io::BUFFER_BYTES))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Elapsed>> {
        let Connection { worker, listener, control, stream, timer, security, .. } = &mut *self.connection;
        control.listen(cx.waker());
        let (mut reader, _) = stream.split();
        if let Poll::Ready(read) = reader.poll_fill(cx, &worker.buffers, self.buf) {
            return Poll::Ready(Ok(read.unwrap_or(0) > 0));
        }
        let idle = self.buf.is_empty();
        if idle && (Leaving { worker, listener, security: *security }).when_quiet() {
            return Poll::Ready(Ok(false));
        }
        let begun = &mut *self.begun;
        let deadline = *self.deadline.get_or_insert_with(|| {
            let limits = &listener.view().compiled.config.limits;
            match idle {
                true => Instant::now() + Duration::from_millis(limits.idle_timeout_ms),
                false => *begun.get_or_insert_with(Instant::now) + Duration::from_millis(limits.head_timeout_ms),
            }
        });
        timer.poll_until(cx, deadline).map(Err)
    }
}

/// Answers a message that must not be forwarded. Where it ends is unknown, so the connection ends with it.
async fn refuse(connection: &mut Connection, buf: &mut Buf, reject: Reject) {
    let refusal = match reject {
        Reject::HeadTooLong => Refusal::HeadBytes,
        Reject::TooManyHeaders | Reject::TrailersTooLong => Refusal::HeaderCount,
        Reject::Method | Reject::TransferCoding | Reject::Version | Reject::Expectation => Refusal::Unsupported,
        _ => Refusal::BadRequest,
    };
    count_refusal(&connection.worker, refusal);
    tracing::debug!(peer = %connection.peer, %reject, "request refused");
    if write_closing(connection, reject.status()).await {
        linger(connection, buf).await;
    }
}

async fn write_closing(connection: &mut Connection, status: u16) -> bool {
    let phrase = reason_phrase(status);
    let head = format!("HTTP/1.1 {status} {phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let (_, mut writer) = connection.stream.split();
    let deadline = Instant::now() + LINGER;
    matches!(connection.timer.limit(Some(deadline), writer.write_all(head.as_bytes(), b"")).await, Ok(Ok(())))
}

/// Closing a socket with unread bytes resets it, and the reset may overtake the answer. So say that no more will be
/// written, and read what comes for a moment (RFC 9112 section 9.6).
async fn linger(connection: &mut Connection, buf: &mut Buf) {
    let Connection { worker, stream, timer, .. } = connection;
    let deadline = Instant::now() + LINGER;
    let (mut reader, mut writer) = stream.split();
    if writer.finish().await.is_err() {
        return;
    }
    let mut left = LINGER_BYTES;
    while left > 0 {
        buf.consume(buf.len());
        let read = timer.limit(Some(deadline), poll_fn(|cx| reader.poll_fill(cx, &worker.buffers, buf))).await;
        match read {
            Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}

/// Counts a caller that did not take its response. The connection is closed at once: nothing waits for such a caller.
fn caller_stuck(connection: &Connection) -> After {
    connection.worker.stats.fault(Fault::DownstreamTimeout);
    After::Close
}

/// Counts a caller that broke the connection while a request was on it.
fn caller_gone(connection: &Connection) -> After {
    connection.worker.stats.fault(Fault::DownstreamReset);
    After::Close
}
