//! A response on its way to the caller.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use weir_codec::http1::{Framing, Reject, ResponseHead, Version, parse_response, slots};
use weir_config::HeaderEdits;

use super::body::Body;
use super::head::{Goes, write_response};
use super::prepare::Facts;
use crate::io::{BUFFER_BYTES, Buf, Elapsed, Reader, Timer, Writer};
use crate::upstream::{Deadlines, Failure, Progress};
use crate::worker::{Leaving, Ticket, Worker};

/// Largest response head (bytes).
pub(crate) const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// Most fields in a response head.
pub(crate) const MAX_RESPONSE_HEADERS: usize = 128;
/// Interim responses before the final one.
const MAX_INTERIM: usize = 16;
/// A body's data up to this size is copied behind its head; larger data is written from where it lies.
const COPY_BYTES: usize = 2048;

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Responded {
    /// The caller has it whole.
    Whole {
        /// The upstream connection can be used again.
        upstream_persists: bool,
        /// The caller's connection can be used again.
        caller_persists: bool,
    },
    /// The upstream speaks another protocol from now on, and so does the caller.
    Switched,
    /// Nothing has reached the caller.
    Failed(Failure),
    /// A response that is to be retried; nothing has reached the caller.
    Retry,
    /// Part of it has reached the caller; both connections are at an end.
    Broken,
    /// Nothing more came of it, and nothing more was sent; both connections are at an end.
    Stalled,
    /// The caller is gone.
    CallerGone,
    /// The caller does not take the response.
    CallerStuck,
}

/// All that a response's way needs.
pub(super) struct Responding<'a, 'c> {
    pub(super) worker: &'a Worker,
    pub(super) ticket: &'a Ticket,
    pub(super) facts: &'a Facts,
    pub(super) edits: &'a HeaderEdits,
    pub(super) timer: &'a mut Timer,
    pub(super) from: Reader<'c>,
    pub(super) to: Writer<'c>,
    /// What was received from the upstream and not passed on.
    pub(super) buf: &'a mut Buf,
    pub(super) progress: &'a Progress,
    pub(super) deadlines: &'a Deadlines,
    pub(super) idle: Duration,
    /// How long neither side need say anything; `None`: forever.
    pub(super) silence: Option<Duration>,
    /// The upstream connection carried another request before.
    pub(super) reused: bool,
    pub(super) upgrade: bool,
    /// The connection to the caller is to end with this response.
    pub(super) leaving: Leaving<'a>,
    /// The caller has been told nothing, and may be gone without anybody noticing.
    pub(super) watched: Option<Reader<'c>>,
}

/// A final response, its head written for the caller.
struct Final {
    out: Vec<u8>,
    body: Body,
    framing: Framing,
    decode: bool,
    persists: bool,
    goes: Goes,
}

enum Parsed {
    More,
    Interim(Vec<u8>),
    Retry,
    Final(Final),
}

impl Responding<'_, '_> {
    /// Waits for the response and passes it on. `retries` is asked about the status before anything is passed on.
    pub(super) async fn run(&mut self, mut retries: impl FnMut(u16) -> bool) -> Responded {
        let mut interim = 0;
        loop {
            let parsed = if self.buf.is_empty() { Ok(Parsed::More) } else { self.parse(&mut retries) };
            match parsed {
                Ok(Parsed::Final(response)) => return self.relay(response).await,
                Ok(Parsed::Retry) => return Responded::Retry,
                Ok(Parsed::Interim(out)) if interim < MAX_INTERIM => {
                    interim += 1;
                    if let Err(ended) = write(self.timer, self.idle, &mut self.to, &out, b"").await {
                        return ended;
                    }
                }
                Ok(Parsed::More) => {
                    if let Err(ended) = self.read_head(interim > 0).await {
                        return ended;
                    }
                }
                Ok(Parsed::Interim(_)) | Err(_) => return self.failed(Failure::Protocol, interim > 0),
            }
        }
    }

    /// What an interim response has told the caller cannot be taken back.
    fn failed(&self, failure: Failure, told: bool) -> Responded {
        if told && self.facts.version == Version::Http11 && failure == Failure::Stale {
            return Responded::Failed(Failure::Reset);
        }
        Responded::Failed(failure)
    }

    fn parse(&mut self, retries: &mut impl FnMut(u16) -> bool) -> Result<Parsed, Reject> {
        let mut slots = slots::<MAX_RESPONSE_HEADERS>();
        let bytes = self.buf.filled();
        let Some(head) = parse_response(bytes, &mut slots, MAX_RESPONSE_HEAD, self.facts.to_head)? else {
            return Ok(Parsed::More);
        };
        let (parsed, len) = (self.judge(bytes, &head, retries)?, head.len);
        self.buf.consume(len);
        Ok(parsed)
    }

    fn judge(
        &self,
        bytes: &[u8],
        head: &ResponseHead<'_, '_>,
        retries: &mut impl FnMut(u16) -> bool,
    ) -> Result<Parsed, Reject> {
        if head.status == 101 && !self.upgrade {
            // Nobody asked for another protocol.
            return Err(Reject::FirstLine);
        }
        if head.is_interim() {
            return Ok(Parsed::Interim(self.interim(bytes, head)));
        }
        if retries(head.status) {
            return Ok(Parsed::Retry);
        }
        self.ticket.set_status(head.status);
        Ok(Parsed::Final(self.finalise(bytes, head)))
    }

    /// HTTP/1.0 knows no interim responses.
    fn interim(&self, bytes: &[u8], head: &ResponseHead<'_, '_>) -> Vec<u8> {
        let mut out = Vec::new();
        if self.facts.version == Version::Http11 {
            write_response(&mut out, bytes, head, &HeaderEdits::default(), Goes::On, true);
        }
        out
    }

    fn finalise(&self, bytes: &[u8], head: &ResponseHead<'_, '_>) -> Final {
        let decode = head.framing == Framing::Chunked && self.facts.version == Version::Http10;
        // A caller that waited for `100 Continue` in vain will not send its body, so what comes next is unknown.
        let unsent = self.facts.expects_continue && self.progress.sent_at.get().is_none();
        let ends = decode || unsent || head.framing == Framing::UntilClose || self.leaving.now();
        let goes = match head.status {
            101 => Goes::Over,
            _ => Goes::of(self.facts.version, self.facts.persists && !ends),
        };
        let mut out = self.worker.buffers.take_vec();
        write_response(&mut out, bytes, head, self.edits, goes, !decode);
        Final { out, body: Body::new(head.framing), framing: head.framing, decode, persists: head.persists(), goes }
    }

    /// Reads more of the response's head.
    async fn read_head(&mut self, told: bool) -> Result<(), Responded> {
        if self.buf.is_allocated() && !self.buf.make_room(MAX_RESPONSE_HEAD.max(BUFFER_BYTES)) {
            return Err(Responded::Failed(Failure::Protocol));
        }
        let Responding { worker, from, buf, timer, progress, deadlines, silence, watched, .. } = self;
        let mut watch = watched.is_some();
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = from.poll_fill(cx, &worker.buffers, buf) {
                return Poll::Ready(Ok(read));
            }
            if watched.as_mut().is_some_and(|caller| caller.poll_reset(cx, &mut watch)) {
                return Poll::Ready(Err(Responded::CallerGone));
            }
            match progress.deadline(deadlines, *silence) {
                Some(deadline) => timer.poll_until(cx, deadline).map(|_| Err(Responded::Failed(Failure::Timeout))),
                None => Poll::Pending,
            }
        })
        .await?;
        match read {
            Ok(read) if read > 0 => Ok(()),
            _ if self.reused && self.buf.is_empty() => Err(self.failed(Failure::Stale, told)),
            _ => Err(Responded::Failed(Failure::Reset)),
        }
    }

    /// Passes the final response on, body and all.
    async fn relay(&mut self, mut response: Final) -> Responded {
        let ends_by_closing = response.framing == Framing::UntilClose || response.decode;
        if ends_by_closing {
            self.to.reset_on_close(true);
        }
        if let Err(ended) = self.relay_first(&mut response).await {
            return ended;
        }
        self.worker.buffers.put_vec(std::mem::take(&mut response.out));
        while !response.body.is_done() {
            match self.relay_more(&mut response).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(ended) => return ended,
            }
        }
        if response.goes == Goes::Over {
            return Responded::Switched;
        }
        if ends_by_closing {
            self.to.reset_on_close(false);
        }
        // What follows a complete response was not asked for: the connection is out of step.
        let upstream_persists = response.persists && self.buf.is_empty() && response.framing != Framing::UntilClose;
        Responded::Whole { upstream_persists, caller_persists: response.goes != Goes::Away }
    }

    /// The head, along with what is there of the body.
    async fn relay_first(&mut self, response: &mut Final) -> Result<(), Responded> {
        let Final { out, body, .. } = response;
        let claimed = if response.decode {
            (body.decode(self.buf.filled(), out).map_err(|_| Responded::Broken)?, 0)
        } else {
            let claimed = body.claim(self.buf.filled()).map_err(|_| Responded::Broken)?;
            if claimed <= COPY_BYTES {
                out.extend_from_slice(&self.buf.filled()[..claimed]);
                (claimed, 0)
            } else {
                (claimed, claimed)
            }
        };
        let Responding { to, buf, timer, idle, .. } = self;
        write(timer, *idle, to, out, &buf.filled()[..claimed.1]).await?;
        self.buf.consume(claimed.0);
        Ok(())
    }

    /// What comes next of the body. False if it has ended by the upstream's closing.
    async fn relay_more(&mut self, response: &mut Final) -> Result<bool, Responded> {
        let Responding { worker, from, buf, timer, idle, silence, to, progress, .. } = self;
        worker.buffers.release_if_empty(buf);
        let mut since = None;
        let read = poll_fn(|cx| match from.poll_fill(cx, &worker.buffers, buf) {
            Poll::Ready(read) => Poll::Ready(Ok(read)),
            Poll::Pending => {
                // The caller may still be sending: the exchange is idle when neither side moves.
                let Some(silence) = *silence else { return Poll::Pending };
                let since = *since.get_or_insert_with(Instant::now);
                timer.poll_until(cx, since.max(progress.moved.get()) + silence).map(Err)
            }
        })
        .await;
        match read {
            Ok(Ok(0)) if response.body.ends_at_close() => return Ok(false),
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => return Err(Responded::Broken),
            Err(_) => return Err(Responded::Stalled),
        }
        if response.decode {
            let mut out = worker.buffers.take_vec();
            let used = response.body.decode(buf.filled(), &mut out).map_err(|_| Responded::Broken)?;
            write(timer, *idle, to, &out, b"").await?;
            worker.buffers.put_vec(out);
            buf.consume(used);
        } else {
            let used = response.body.claim(buf.filled()).map_err(|_| Responded::Broken)?;
            write(timer, *idle, to, &buf.filled()[..used], b"").await?;
            buf.consume(used);
        }
        Ok(true)
    }
}

/// Writes to the caller, who must take it within the idle time.
async fn write(
    timer: &mut Timer,
    idle: Duration,
    to: &mut Writer<'_>,
    first: &[u8],
    second: &[u8],
) -> Result<(), Responded> {
    match timer.within(idle, to.write_all(first, second)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Responded::CallerGone),
        Err(Elapsed) => Err(Responded::CallerStuck),
    }
}
