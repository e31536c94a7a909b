//! A caller's connection: requests in, answers out in whatever order they come.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use weir_codec::rpc::Failure;

use super::frame::{Frame, Head, Kind, Protocol, Reject};
use super::outbox::Outbox;
use super::{give_back, poll_read, request};
use crate::io::{Buf, Prefixed, Timer};
use crate::phases::Ends;
use crate::stats::{Fault, Link, Refusal};
use crate::tls::Security;
use crate::worker::{Connection, Leaving, ListenerState, Worker, count_refusal};

/// While more than this waits to be written to a caller (bytes), no request of its is read.
const HIGH_WATER_BYTES: usize = 256 * 1024;
/// Frames of the largest size that may wait to be written to a caller. One that leaves more unread is cut off: what
/// others share must not stop for it.
const MAX_FRAMES_UNREAD: usize = 4;
/// A caller that was told goodbye closes the connection itself when it has nothing in flight; after this long it is
/// taken for one that does not understand.
const AFTER_GOODBYE: Duration = Duration::from_secs(1);

/// What the requests of a connection share.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Rc<ListenerState>,
    pub(super) peer: SocketAddr,
    destination: Option<SocketAddr>,
    /// Who the caller is, where that is asked.
    pub(super) link: Option<Link>,
    pub(super) protocol: Protocol,
    outbox: Outbox,
    active: Cell<usize>,
    /// Nothing can be written any more.
    gone: Cell<bool>,
    max_unread: usize,
    overrun: Cell<bool>,
}

/// A request in flight; counts for as long as it lives.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) caller: Rc<Caller>,
}

impl Active {
    pub(super) fn new(caller: &Rc<Caller>) -> Self {
        caller.active.set(caller.active.get() + 1);
        Active { caller: caller.clone() }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.caller.active.set(self.caller.active.get() - 1);
        // The connection may have waited for that to end.
        if self.caller.active.get() == 0 {
            self.caller.outbox.wake();
        }
    }
}

impl Caller {
    fn new(
        worker: Rc<Worker>,
        listener: Rc<ListenerState>,
        (peer, destination): (SocketAddr, Option<SocketAddr>),
        link: Option<Link>,
        protocol: Protocol,
        max_frame_bytes: usize,
    ) -> Self {
        Caller {
            worker,
            listener,
            peer,
            destination,
            link,
            protocol,
            outbox: Outbox::default(),
            active: Cell::new(0),
            gone: Cell::new(false),
            max_unread: max_frame_bytes.saturating_mul(MAX_FRAMES_UNREAD),
            overrun: Cell::new(false),
        }
    }

    /// Where it comes from and was going.
    pub(super) fn ends(&self) -> Ends {
        Ends { peer: self.peer.ip(), destination: self.destination }
    }

    /// Sends a frame, unless the caller is gone.
    pub(super) fn send(&self, frame: Frame) {
        if self.gone.get() {
            return;
        }
        self.outbox.push(frame, &self.worker.buffers);
        if self.outbox.len() > self.max_unread {
            self.overrun.set(true);
            self.outbox.wake();
        }
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing is left to do.
    Done,
    /// The caller broke off, or does not read.
    Broken,
}

/// Serves a connection until it ends; `first` holds what was read from it already.
pub(crate) async fn serve(connection: Box<Connection>, protocol: Protocol, first: Buf) {
    let Connection { worker, listener, control, stream, peer, destination, timer, security, link } = *connection;
    let limits = listener.view().compiled.config.limits.clone();
    let mut serving = Serving {
        caller: Rc::new(Caller::new(
            worker,
            listener,
            (peer, destination.map(|boxed| *boxed)),
            link,
            protocol,
            limits.max_frame_bytes,
        )),
        stream: Prefixed::new(first, stream),
        unread: BytesMut::new(),
        timer,
        security,
        max_bytes: limits.max_frame_bytes,
        idle: Duration::from_millis(limits.idle_timeout_ms),
        frame_time: Duration::from_millis(limits.head_timeout_ms),
        touched: Instant::now(),
        reads: true,
        like: None,
        understands_goodbye: protocol == Protocol::Dubbo,
        told: None,
    };
    let end = poll_fn(|cx| {
        control.listen(cx.waker());
        serving.poll(cx)
    })
    .await;
    if end == End::Broken {
        serving.caller.worker.stats.fault(Fault::DownstreamReset);
    }
}

/// A connection while its task serves it.
struct Serving {
    caller: Rc<Caller>,
    stream: Prefixed,
    /// The beginning of a frame.
    unread: BytesMut,
    timer: Timer,
    security: Security,
    max_bytes: usize,
    idle: Duration,
    frame_time: Duration,
    /// When something was last read or written.
    touched: Instant,
    /// Further requests are read.
    reads: bool,
    /// How the caller's first frame looked: goodbye is said in its version.
    like: Option<Head>,
    understands_goodbye: bool,
    /// When goodbye was said.
    told: Option<Instant>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.caller.gone.set(true);
    }
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.say_goodbye();
        if self.pass(cx).is_err() {
            return Poll::Ready(if self.caller.active.get() > 0 { End::Broken } else { End::Done });
        }
        if self.caller.overrun.get() {
            count_refusal(&self.caller.worker, Refusal::Unread);
            return Poll::Ready(End::Broken);
        }
        if self.is_done() {
            return Poll::Ready(End::Done);
        }
        self.caller.outbox.listen(cx.waker());
        self.watch(cx)
    }

    /// Reads and writes as long as that gets anywhere.
    fn pass(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let read = self.read(cx)?;
            let written = self.caller.outbox.flush(cx, &mut self.stream, &self.caller.worker.buffers)?;
            if !read && !written {
                return Ok(());
            }
            self.touched = Instant::now();
        }
    }

    /// Whether something was read. A caller that does not take its answers is not asked for more requests.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if !self.reads || self.caller.outbox.len() > HIGH_WATER_BYTES {
            return Ok(false);
        }
        match poll_read(&mut self.stream, &mut self.unread, &self.caller.worker, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(0)) => {
                self.reads = false;
                Ok(true)
            }
            Poll::Ready(Ok(_)) => {
                self.take_frames();
                give_back(&mut self.unread, &self.caller.worker);
                Ok(true)
            }
        }
    }

    fn take_frames(&mut self) {
        while self.reads {
            match self.caller.protocol.decode(&mut self.unread, self.max_bytes) {
                Ok(Some(frame)) => self.take(frame),
                Ok(None) => return,
                Err(reject) => self.reject(reject),
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        self.like.get_or_insert_with(|| frame.head());
        match frame.kind() {
            Kind::Request => request::serve(&self.caller, frame, false),
            Kind::OneWay => request::serve(&self.caller, frame, true),
            Kind::Heartbeat => {
                self.understands_goodbye |= frame.is_hello();
                self.caller.send(frame.heartbeat_ack());
            }
            // The proxy asks callers nothing that they could answer.
            Kind::Response | Kind::HeartbeatAck | Kind::GoingAway | Kind::Staying | Kind::Other => {}
        }
    }

    /// What follows cannot be told from garbage. What is in flight is answered all the same.
    fn reject(&mut self, reject: Reject) {
        self.reads = false;
        self.unread.clear();
        match reject {
            Reject::TooLong(asked) => {
                count_refusal(&self.caller.worker, Refusal::FrameBytes);
                if let Some(asked) = asked {
                    self.caller.send(asked.failure(Failure::BadRequest, "the frame is longer than the proxy allows"));
                }
            }
            Reject::Malformed(reject) => {
                count_refusal(&self.caller.worker, Refusal::BadRequest);
                tracing::debug!(peer = %self.caller.peer, reject, "a caller sent what is no frame");
            }
        }
    }

    fn leaving(&self) -> Leaving<'_> {
        Leaving { worker: &self.caller.worker, listener: &self.caller.listener, security: self.security }
    }

    fn say_goodbye(&mut self) {
        if self.told.is_some() || !self.leaving().now() {
            return;
        }
        self.told = Some(Instant::now());
        if let Some(like) = self.like.filter(|_| self.understands_goodbye) {
            self.caller.send(like.going_away(0));
        }
    }

    fn is_quiet(&self) -> bool {
        self.caller.active.get() == 0 && self.caller.outbox.len() == 0
    }

    /// Goodbye was said, and nothing that is still to come has to be awaited.
    fn may_close(&self) -> bool {
        let refused = !self.caller.listener.accepts.get().takes(self.security);
        self.told.is_some() && self.unread.is_empty() && (refused || self.leaving().when_quiet())
    }

    fn is_done(&self) -> bool {
        let left_alone = self.told.is_some_and(|told| told.elapsed() >= AFTER_GOODBYE);
        self.is_quiet() && (!self.reads || (left_alone && self.may_close()))
    }

    /// Waits for the next moment at which something is to be done, though nothing comes.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        if self.timer.poll_until(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        if self.reads && !self.unread.is_empty() {
            count_refusal(&self.caller.worker, Refusal::HeadTimeout);
            return Poll::Ready(End::Broken);
        }
        Poll::Ready(if self.is_quiet() { End::Done } else { End::Broken })
    }

    fn deadline(&self) -> Option<Instant> {
        let frame = (self.reads && !self.unread.is_empty()).then(|| self.touched + self.frame_time);
        let stalled = (self.caller.outbox.len() > 0 || self.caller.active.get() == 0).then(|| self.touched + self.idle);
        let left = self.told.filter(|_| self.is_quiet() && self.may_close()).map(|told| told + AFTER_GOODBYE);
        [frame, stalled, left].into_iter().flatten().min()
    }
}
