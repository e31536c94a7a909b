//! A connection to an upstream: requests of many callers out under ids of its own, answers back to each.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use foldhash::fast::RandomState;
use tokio::time::Instant;
use weir_codec::rpc::Failure;

use super::call::Call;
use super::frame::{Frame, Head, Kind, Protocol, Reject};
use super::outbox::Outbox;
use super::{give_back, poll_read, request};
use crate::io::{Buf, Prefixed, Stream, Timer};
use crate::stats::Refusal;
use crate::tls::Security;
use crate::upstream::{ClusterState, OpenConnection};
use crate::worker::{Worker, count_refusal};

/// Requests in flight on a connection before another is opened.
const MAX_IN_FLIGHT: usize = 1_024;
/// While more than this waits to be written to an upstream (bytes), the connection takes no further request.
const HIGH_WATER_BYTES: usize = 1024 * 1024;
/// A connection on which nothing came in return for so many heartbeats is closed.
const MAX_MISSED: u32 = 3;

/// A connection as those see it who send requests over it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) protocol: Protocol,
    pub(super) security: Security,
    outbox: Outbox,
    /// Requests that wait for their answers, by their ids on this connection.
    calls: RefCell<HashMap<u64, Call, RandomState>>,
    /// One-way requests that were not written whole yet, in their order.
    one_way: RefCell<VecDeque<Call>>,
    next_id: Cell<u64>,
    /// No call's deadline is before this one.
    earliest: Cell<Option<Instant>>,
    state: Cell<State>,
}

/// Whether a connection takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// -> GoingAway | Retired | Gone
    Open,
    /// The upstream wants no more requests: another connection takes them, even if it changes its mind. -> Retired | Gone
    GoingAway,
    /// It is to go when it carries nothing any more, and is asked no more whether it lives. -> Gone
    Retired,
    /// Nothing can be sent.
    Gone,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing is left to do.
    Done,
    /// It was lost.
    Lost,
    /// The upstream sent what is no frame.
    Malformed,
}

impl Link {
    /// Begins to serve a new connection. What is said on it is said as in `like`.
    pub(super) fn start(
        worker: &Rc<Worker>,
        cluster: &ClusterState,
        stream: Stream,
        open: OpenConnection,
        protocol: Protocol,
        like: Head,
    ) -> Rc<Self> {
        let link = Rc::new(Link {
            protocol,
            security: open.security,
            outbox: Outbox::default(),
            calls: RefCell::default(),
            one_way: RefCell::default(),
            next_id: Cell::new(1),
            earliest: Cell::new(None),
            state: Cell::new(State::Open),
        });
        if let Some(hello) = like.hello() {
            link.outbox.push(hello, &worker.buffers);
        }
        let interval = cluster.compiled.config.limits.heartbeat_interval_ms;
        let mut driver = Driver {
            worker: worker.clone(),
            link: link.clone(),
            stream: Prefixed::new(Buf::default(), stream),
            unread: BytesMut::new(),
            timer: Timer::new(),
            max_bytes: cluster.compiled.config.limits.max_frame_bytes,
            like,
            interval: interval.map_or_else(|| protocol.heartbeat_interval(), Duration::from_millis),
            heard: Instant::now(),
            missed: 0,
        };
        tokio::task::spawn_local(async move {
            let end = poll_fn(|cx| driver.poll(cx)).await;
            driver.link.finish(&driver.worker, end);
            drop(open);
        });
        link
    }

    /// Whether it may take further requests, now or when others have ended.
    pub(super) fn takes_requests(&self) -> bool {
        self.state.get() == State::Open
    }

    pub(super) fn has_room(&self) -> bool {
        self.takes_requests() && self.in_flight() < MAX_IN_FLIGHT && self.outbox.len() < HIGH_WATER_BYTES
    }

    /// Requests that wait for their answers.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.borrow().len()
    }

    /// Takes no more requests and closes when it carries none.
    pub(super) fn retire(&self) {
        if self.state.get() != State::Gone {
            self.state.set(State::Retired);
            self.outbox.wake();
        }
    }

    /// Sends a request.
    pub(super) fn submit(&self, worker: &Worker, mut frame: Frame, mut call: Call) {
        let id = self.fresh_id();
        frame.set_id(id);
        call.place = Some(self.outbox.push(frame, &worker.buffers));
        if call.one_way {
            self.one_way.borrow_mut().push_back(call);
            return;
        }
        if let Some(deadline) = call.deadline {
            self.earliest.set(Some(self.earliest.get().map_or(deadline, |earliest| earliest.min(deadline))));
        }
        self.calls.borrow_mut().insert(id, call);
    }

    /// Ids are used in turn over all 32 bits, so that an answer that comes too late meets nobody else's request.
    fn fresh_id(&self) -> u64 {
        loop {
            let id = self.next_id.get();
            self.next_id.set(if id >= u64::from(u32::MAX) { 1 } else { id + 1 });
            if !self.calls.borrow().contains_key(&id) {
                return id;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.state.get() != State::Open
            && self.in_flight() == 0
            && self.one_way.borrow().is_empty()
            && self.outbox.len() == 0
    }

    fn next_one_way(&self) -> Option<Call> {
        let written = self.outbox.written();
        let mut waiting = self.one_way.borrow_mut();
        waiting.pop_front_if(|call| call.place.is_some_and(|place| place.is_within(written)))
    }

    /// Answers the calls whose time is up.
    fn expire(&self, now: Instant) {
        let expired = |call: &mut Call| call.deadline.is_some_and(|deadline| deadline <= now);
        let mut calls = self.calls.borrow_mut();
        let late: Vec<Call> = calls.extract_if(|_, call| expired(call)).map(|(_, call)| call).collect();
        self.earliest.set(calls.values().filter_map(|call| call.deadline).min());
        drop(calls);
        for call in late {
            call.fail(Refusal::RouteTimeout, Failure::Timeout, "the upstream did not answer in time");
        }
    }

    /// Nothing comes any more: whoever waits is answered, or sent on another way if the upstream surely got nothing.
    fn finish(&self, worker: &Rc<Worker>, end: End) {
        self.state.set(State::Gone);
        let calls: Vec<Call> = self.calls.take().into_values().chain(self.one_way.take()).collect();
        for call in calls {
            let unwritten = call.place.and_then(|place| self.outbox.unwritten(place));
            match unwritten {
                Some(bytes) => request::send_again(worker, self.protocol, bytes, call),
                None => {
                    let (refusal, message) = end.explain();
                    call.fail(refusal, Failure::ConnectionLost, message);
                }
            }
        }
    }
}

impl End {
    fn explain(self) -> (Refusal, &'static str) {
        match self {
            End::Malformed => (Refusal::UpstreamProtocol, "the upstream's answers were malformed"),
            End::Lost | End::Done => (Refusal::UpstreamReset, "the upstream broke the connection before its answer"),
        }
    }
}

/// The task's own part of a connection.
struct Driver {
    worker: Rc<Worker>,
    link: Rc<Link>,
    stream: Prefixed,
    /// The beginning of a frame.
    unread: BytesMut,
    timer: Timer,
    max_bytes: usize,
    /// How the request looked for which the connection was opened.
    like: Head,
    /// Between heartbeats, as long as nothing comes.
    interval: Duration,
    /// When something last came.
    heard: Instant,
    /// Heartbeats sent since.
    missed: u32,
}

/// Calls hold their callers, and those the worker, which holds the connection: with the task the circle must end.
impl Drop for Driver {
    fn drop(&mut self) {
        self.link.state.set(State::Gone);
        self.link.calls.take();
        self.link.one_way.take();
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.pass(cx) {
            Ok(None) => {}
            Ok(Some(end)) => return Poll::Ready(end),
            Err(_) => return Poll::Ready(End::Lost),
        }
        if self.link.is_done() {
            return Poll::Ready(End::Done);
        }
        self.watch(cx)
    }

    /// Reads and writes as long as that gets anywhere; reads first, since a connection that is known to be closed must not
    /// be given requests that could go another way.
    fn pass(&mut self, cx: &mut Context<'_>) -> io::Result<Option<End>> {
        loop {
            let read = poll_read(&mut self.stream, &mut self.unread, &self.worker, cx);
            match read {
                Poll::Ready(Ok(0)) => return Ok(Some(End::Lost)),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(_)) if self.take_frames().is_err() => return Ok(Some(End::Malformed)),
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
            let written = self.link.outbox.flush(cx, &mut self.stream, &self.worker.buffers)?;
            while let Some(call) = self.link.next_one_way() {
                call.sent();
            }
            if read.is_pending() && !written {
                return Ok(None);
            }
        }
    }

    fn take_frames(&mut self) -> Result<(), Reject> {
        self.heard = Instant::now();
        self.missed = 0;
        while let Some(frame) = self.link.protocol.decode(&mut self.unread, self.max_bytes)? {
            self.take(frame);
        }
        give_back(&mut self.unread, &self.worker);
        Ok(())
    }

    fn take(&self, frame: Frame) {
        let link = &self.link;
        match frame.kind() {
            Kind::Response => self.answer(frame),
            Kind::Heartbeat => _ = link.outbox.push(frame.heartbeat_ack(), &self.worker.buffers),
            Kind::GoingAway if link.state.get() == State::Open => link.state.set(State::GoingAway),
            // A server that calls its clients is answered, since it waits; there is nobody here to be called.
            Kind::Request => {
                count_refusal(&self.worker, Refusal::Unsupported);
                let failure =
                    frame.head().failure(Failure::NoService, "calls from servers to clients are not passed on");
                link.outbox.push(failure, &self.worker.buffers);
            }
            Kind::OneWay | Kind::HeartbeatAck | Kind::GoingAway | Kind::Staying | Kind::Other => {}
        }
    }

    fn answer(&self, frame: Frame) {
        // The borrow ends before the call does, which may wake others.
        let call = self.link.calls.borrow_mut().remove(&frame.id());
        match call {
            Some(call) if call.kept.is_some() && frame.is_busy() => {
                request::after_busy(&self.worker, self.link.protocol, frame, call);
            }
            Some(call) => call.answer(frame),
            None => self.worker.stats.late_answers.inc(),
        }
    }

    /// Waits for the next deadline or heartbeat.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while let Some(next) = [self.next_heartbeat(), self.link.earliest.get()].into_iter().flatten().min()
            && self.timer.poll_until(cx, next).is_ready()
        {
            let now = Instant::now();
            if self.link.earliest.get().is_some_and(|earliest| earliest <= now) {
                self.link.expire(now);
            }
            if self.next_heartbeat().is_some_and(|ask| ask <= now) {
                if self.missed >= MAX_MISSED {
                    return Poll::Ready(End::Lost);
                }
                self.ask();
                cx.waker().wake_by_ref();
            }
        }
        self.link.outbox.listen(cx.waker());
        Poll::Pending
    }

    fn ask(&mut self) {
        self.missed += 1;
        self.link.outbox.push(self.like.heartbeat(self.link.fresh_id()), &self.worker.buffers);
    }

    fn next_heartbeat(&self) -> Option<Instant> {
        let wait = self.interval * (self.missed + 1);
        (self.link.state.get() != State::Retired).then(|| self.heard + wait)
    }
}
