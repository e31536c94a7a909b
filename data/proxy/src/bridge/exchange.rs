//! One request and its response: attempts, the upload beside the response, timeouts.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::UpstreamProtocol;
use weir_h2::{Fields, RequestLine};

use super::body::{BodyError, Http1Framing, Piece, RequestBody};
use super::sink::Sink;
use super::source::{Http1Source, Source};
use super::target::{Target, UploadError};
use super::{Outgoing, ResponseHead, fields, grpc};
use crate::http1::{explain, forward_action, write_failure};
use crate::io::{Buf, NotWritten, Timer};
use crate::phases::Answer;
use crate::snapshot::{ForwardAction, RouteEntry};
use crate::stats::{Fault, Refusal};
use crate::upstream::{
    AcquireError, Again, Attempts, ClusterState, Deadlines, EndpointState, Failure, H2Lease, InFlight, Lease, Progress,
    acquire, acquire_h2, with_endpoint,
};
use crate::worker::{Ticket, Worker};

/// When the response came before the request was whole, the rest may still come for this long.
const LATE_UPLOAD: Duration = Duration::from_secs(1);

/// A request on its way.
pub(crate) struct Exchange<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) timer: &'a mut Timer,
    pub(crate) ticket: &'a Ticket,
    pub(crate) outgoing: Outgoing,
    pub(crate) body: RequestBody<'a>,
    pub(crate) sink: Sink<'a>,
}

/// How a caller's connection goes on when the caller has had its response, or will get none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It can be used again.
    Persists,
    /// It ends with the response.
    Ends,
    /// It breaks off with the response.
    Breaks,
}

impl Finished {
    fn whole(persists: bool) -> Self {
        if persists { Finished::Persists } else { Finished::Ends }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The caller has the whole response; whether the request was sent whole, too.
    Whole { sent: bool },
    /// It failed, and nothing has reached the caller.
    Failed(Failure),
    /// A response that is to be retried.
    Retry,
    /// The response broke off.
    Broken,
    /// Nothing more came of the response.
    Stalled,
    /// The caller's body is malformed, and nothing has reached the caller.
    Malformed,
    /// HTTP/2 has no place for what the request says; nothing has reached anybody.
    Unfit,
    /// The caller broke off.
    CallerGone,
    /// The caller does not take the response.
    CallerStuck,
}

/// What an attempt needs besides its connection.
struct Attempt<'a, 'b> {
    timer: &'a mut Timer,
    ticket: &'a Ticket,
    route: &'a RouteEntry,
    times: Times<'a>,
    body: &'a mut RequestBody<'b>,
    /// The body can be read again.
    kept: &'a Cell<bool>,
    sink: &'a mut Sink<'b>,
}

/// What bounds an attempt.
#[derive(Debug, Clone, Copy)]
struct Times<'a> {
    deadlines: &'a Deadlines,
    idle: Duration,
    /// How long neither side need say anything; `None`: forever.
    silence: Option<Duration>,
}

impl Exchange<'_> {
    /// Tries until one attempt brings a response, or none is left.
    pub(crate) async fn run(mut self) -> Finished {
        let listener = self.ticket.listener.clone();
        let Some((route, action)) = forward_action(&listener, self.outgoing.to) else {
            return Finished::Breaks;
        };
        let mut cluster = listener.view.clusters[self.outgoing.to.cluster].clone();
        let deadlines = Deadlines::new(action);
        let limits = &listener.compiled.config.limits;
        let times =
            Times { deadlines: &deadlines, idle: self.idle(), silence: limits.silence(self.outgoing.is_grpc()) };
        if cluster.is_awaited() {
            let until = deadlines.connection(times.idle);
            cluster = Box::pin(with_endpoint(self.worker, cluster, Some(until))).await;
        }
        let (mut attempts, kept) = (Attempts::default(), Cell::new(true));
        loop {
            let Some(endpoint) = cluster.choose(self.outgoing.to.by, &attempts.tried) else {
                return self.answer(Refusal::NoEndpoint, 503, "the upstream has no endpoint\n").await;
            };
            self.body.rewind();
            self.ticket.set_endpoint(endpoint.address);
            let in_flight = InFlight::new(&endpoint);
            let ended = self.attempt(&cluster, &endpoint, (route, action), times, &mut attempts, &kept).await;
            let ended = match ended {
                Ok(ended) => ended,
                Err(refusal) => return self.answer(refusal, 503, "no connection to the upstream is free\n").await,
            };
            in_flight.finish(self.is_endpoints_error(ended));
            let failure = match ended {
                Ended::Retry => continue,
                Ended::Failed(failure) => failure,
                ended => return self.end(ended).await,
            };
            if !kept.get() || deadlines.are_over() {
                return self.fail(failure).await;
            }
            let (retry, idempotent) = (action.retry.as_ref(), self.outgoing.is_idempotent());
            match attempts.after(failure, idempotent, retry, &cluster, Some(endpoint.address)) {
                Again::Yes => {}
                Again::No => return self.fail(failure).await,
                Again::OverBudget => {
                    self.worker.stats.refuse(Refusal::RetryBudget);
                    return self.fail(failure).await;
                }
            }
        }
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(self.ticket.listener.compiled.config.limits.idle_timeout_ms)
    }

    fn is_endpoints_error(&self, ended: Ended) -> bool {
        match ended {
            Ended::Whole { .. } => self.ticket.status() >= 500 || self.ticket.is_error(),
            Ended::Failed(failure) => !matches!(failure, Failure::Stale | Failure::Unsent),
            Ended::Retry | Ended::Broken | Ended::Stalled => true,
            Ended::Malformed | Ended::Unfit | Ended::CallerGone | Ended::CallerStuck => false,
        }
    }

    async fn attempt(
        &mut self,
        cluster: &Rc<ClusterState>,
        endpoint: &Rc<EndpointState>,
        (route, action): (&RouteEntry, &ForwardAction),
        times: Times<'_>,
        attempts: &mut Attempts,
        kept: &Cell<bool>,
    ) -> Result<Ended, Refusal> {
        let wait = Some(times.deadlines.connection(times.idle));
        let by_http2 = match cluster.compiled.config.protocol {
            // Requests to Bolt and Dubbo clusters have been refused already.
            UpstreamProtocol::Http1 | UpstreamProtocol::Bolt | UpstreamProtocol::Dubbo => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::SameAsDownstream => matches!(self.sink, Sink::Http2 { .. }),
        };
        let idempotent = self.outgoing.is_idempotent();
        let retries = |status| {
            let failure = Failure::Status(status);
            let retry = action.retry.as_ref();
            kept.get() && attempts.after(failure, idempotent, retry, cluster, Some(endpoint.address)) == Again::Yes
        };
        let (outgoing, worker) = (&self.outgoing, self.worker);
        let attempt = Attempt {
            timer: self.timer,
            ticket: self.ticket,
            route,
            times,
            body: &mut self.body,
            kept,
            sink: &mut self.sink,
        };
        if by_http2 {
            let lease = attempt.timer.limit(wait, acquire_h2(cluster, endpoint)).await;
            match acquired(lease)? {
                Some(lease) => Ok(attempt.by_http2(outgoing, lease, retries).await),
                None => Ok(Ended::Failed(Failure::Connect)),
            }
        } else {
            let lease = attempt.timer.limit(wait, acquire(cluster, endpoint)).await;
            match acquired(lease)? {
                Some(lease) => Ok(attempt.by_http1(worker, outgoing, lease, retries).await),
                None => Ok(Ended::Failed(Failure::Connect)),
            }
        }
    }

    async fn end(mut self, ended: Ended) -> Finished {
        match ended {
            Ended::Whole { sent } => return Finished::whole(sent && self.sink.persists()),
            Ended::Malformed => {
                return self.answer(Refusal::BadRequest, 400, "the request's body is malformed\n").await;
            }
            Ended::Unfit => return self.answer(Refusal::BadRequest, 400, super::UNFIT).await,
            Ended::Broken | Ended::Stalled => {
                self.ticket.set_error();
                // That both sides are silent is no fault of the proxy's.
                if ended == Ended::Broken {
                    self.worker.stats.fault(Fault::UpstreamReset);
                }
                self.sink.reset();
            }
            Ended::CallerStuck => {
                self.worker.stats.fault(Fault::DownstreamTimeout);
                self.sink.reset();
            }
            // The caller is cut off by the proxy itself, which counts that.
            _ if self.worker.is_cutting() => {}
            _ => self.worker.stats.fault(Fault::DownstreamReset),
        }
        Finished::Breaks
    }

    async fn fail(self, failure: Failure) -> Finished {
        let (refusal, status, text) = explain(failure);
        self.answer(refusal, status, text).await
    }

    async fn answer(mut self, refusal: Refusal, status: u16, text: &'static str) -> Finished {
        let answer = Answer::refuse(refusal, status, text);
        self.ticket.answered(&answer);
        if !self.body.is_over() {
            self.sink.end_after_this();
        }
        let idle = self.idle();
        let sent = self.timer.within(idle, self.sink.answer(&answer)).await;
        if sent.is_err() {
            self.worker.stats.fault(Fault::DownstreamTimeout);
            self.sink.reset();
        }
        Finished::whole(matches!(sent, Ok(Ok(()))) && self.sink.persists())
    }
}

/// `None`: the endpoint could not be connected to.
fn acquired<T>(lease: Result<Result<T, AcquireError>, crate::io::Elapsed>) -> Result<Option<T>, Refusal> {
    match lease {
        Ok(Ok(lease)) => Ok(Some(lease)),
        Ok(Err(AcquireError::Connect(error))) => {
            tracing::debug!(%error, "cannot connect");
            Ok(None)
        }
        Ok(Err(AcquireError::Refused(refusal))) => Err(refusal),
        Err(_) => Err(Refusal::Pending),
    }
}

impl Attempt<'_, '_> {
    async fn by_http2(self, outgoing: &Outgoing, lease: H2Lease, retries: impl FnMut(u16) -> bool) -> Ended {
        let Some(line) = request_line(outgoing) else { return Ended::Unfit };
        let over = self.body.is_empty();
        match lease.send().send(&line, &outgoing.headers, over) {
            Ok((sending, receiving)) => {
                let mut source = Source::Http2(receiving);
                let ended = self.exchange(Target::Http2(sending), &mut source, over, retries).await;
                if matches!(ended, Ended::Stalled | Ended::Failed(Failure::Timeout)) {
                    lease.note_silence();
                }
                ended
            }
            Err(_) => {
                lease.note_gone();
                Ended::Failed(Failure::Unsent)
            }
        }
    }

    async fn by_http1(
        self,
        worker: &Rc<Worker>,
        outgoing: &Outgoing,
        mut lease: Lease,
        retries: impl FnMut(u16) -> bool,
    ) -> Ended {
        let over = self.body.is_empty();
        let length = outgoing.content_length;
        let mut head = worker.buffers.take_vec();
        write_http1_head(&mut head, outgoing, over);
        let mut received = Buf::default();
        let (reader, mut writer) = lease.stream.split();
        let written = self.timer.within(self.times.idle, writer.write_all_or_tell(&head, b"")).await;
        worker.buffers.put_vec(head);
        match written {
            Ok(Ok(())) => {}
            Ok(Err(NotWritten { nothing })) => return Ended::Failed(write_failure(nothing, lease.reused)),
            Err(_) => return Ended::Failed(Failure::Timeout),
        }
        let mut source = Source::Http1(Http1Source {
            worker,
            reader,
            buf: &mut received,
            framing: Http1Framing::Done,
            to_head: outgoing.method == http::Method::HEAD,
            reused: lease.reused,
            persists: false,
        });
        let target = Target::Http1 { writer, chunked: length.is_none() };
        let ended = self.exchange(target, &mut source, over, retries).await;
        let persists = matches!(&source, Source::Http1(source) if source.persists);
        let in_step = received.is_empty();
        worker.buffers.discard(&mut received);
        if persists && in_step && ended == (Ended::Whole { sent: true }) {
            lease.give_back();
        }
        ended
    }

    /// Sends the body and passes the response on, side by side.
    async fn exchange(
        self,
        mut target: Target<'_>,
        source: &mut Source<'_>,
        over: bool,
        retries: impl FnMut(u16) -> bool,
    ) -> Ended {
        let Attempt { timer, ticket, route, times, body, kept, sink } = self;
        let now = Instant::now();
        let progress = if over { Progress::sent(now) } else { Progress::begun(now) };
        let response = Response { ticket, route, timer, times, kept, progress: &progress };
        if over {
            return response.pass(source, sink, retries).await;
        }
        let mut uploading = Box::pin(target.send(body, &progress, kept));
        let mut uploaded = None;
        let mut passing = pin!(response.pass(source, sink, retries));
        let ended = poll_fn(|cx| {
            if uploaded.is_none()
                && let Poll::Ready(result) = uploading.as_mut().poll(cx)
            {
                progress.sent_at.set(Some(Instant::now()));
                uploaded = Some(result);
                match result {
                    Err(UploadError::Body(BodyError::Gone)) => return Poll::Ready(Ended::CallerGone),
                    Err(UploadError::Body(BodyError::Malformed)) => return Poll::Ready(Ended::Malformed),
                    // The upstream may have answered before it closed.
                    Err(UploadError::Upstream) | Ok(()) => {}
                }
            }
            passing.as_mut().poll(cx)
        })
        .await;
        match (ended, uploaded) {
            (Ended::Whole { .. }, Some(result)) => Ended::Whole { sent: result.is_ok() },
            (Ended::Whole { .. }, None) => {
                let late = tokio::time::timeout(LATE_UPLOAD, uploading).await;
                Ended::Whole { sent: matches!(late, Ok(Ok(()))) }
            }
            (ended, _) => ended,
        }
    }
}

/// What passing a response on needs.
struct Response<'a> {
    ticket: &'a Ticket,
    route: &'a RouteEntry,
    timer: &'a mut Timer,
    times: Times<'a>,
    kept: &'a Cell<bool>,
    progress: &'a Progress,
}

impl Response<'_> {
    async fn pass(
        mut self,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        mut retries: impl FnMut(u16) -> bool,
    ) -> Ended {
        let mut response = match self.head(source, sink).await {
            Ok(response) => response,
            Err(ended) => return ended,
        };
        if retries(response.status) {
            return Ended::Retry;
        }
        // There will be no other attempt.
        self.kept.set(false);
        self.ticket.set_status(response.status);
        self.note_grpc(&response.fields);
        fields::edit(&mut response.fields, &self.route.response_edits);
        let over = source.is_over();
        if let Err(ended) = self.told(sink.head(response, over)).await {
            return ended;
        }
        if over { Ended::Whole { sent: true } } else { self.body(source, sink).await }
    }

    fn note_grpc(&self, headers: &Fields) {
        if grpc::tells_server_error(headers) {
            self.ticket.set_error();
        }
    }

    async fn head(&mut self, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<ResponseHead, Ended> {
        let mut head = pin!(source.head());
        poll_fn(|cx| {
            if let Poll::Ready(head) = head.as_mut().poll(cx) {
                return Poll::Ready(head.map_err(Ended::Failed));
            }
            if sink.poll_gone(cx) {
                return Poll::Ready(Err(Ended::CallerGone));
            }
            match self.progress.deadline(self.times.deadlines, self.times.silence) {
                Some(deadline) => self.timer.poll_until(cx, deadline).map(|_| Err(Ended::Failed(Failure::Timeout))),
                None => Poll::Pending,
            }
        })
        .await
    }

    async fn body(&mut self, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Ended {
        loop {
            let piece = match self.piece(source, sink).await {
                Ok(piece) => piece,
                Err(ended) => return ended,
            };
            let last = source.is_over();
            let passed = match piece {
                Some(Piece::Data(data)) => self.told(sink.data(data, last)).await.map(|()| last),
                Some(Piece::Trailers(trailers)) => {
                    self.note_grpc(&trailers);
                    self.told(sink.end(Some(trailers))).await.map(|()| true)
                }
                None => self.told(sink.end(None)).await.map(|()| true),
            };
            match passed {
                Ok(true) => return Ended::Whole { sent: true },
                Ok(false) => {}
                Err(ended) => return ended,
            }
        }
    }

    /// The next piece of the body. The exchange is idle when neither the response nor the request moves.
    async fn piece(&mut self, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<Option<Piece>, Ended> {
        let mut next = pin!(source.next());
        let mut since = None;
        poll_fn(|cx| {
            if let Poll::Ready(piece) = next.as_mut().poll(cx) {
                return Poll::Ready(piece.map_err(|_| Ended::Broken));
            }
            if sink.poll_gone(cx) {
                return Poll::Ready(Err(Ended::CallerGone));
            }
            let Some(silence) = self.times.silence else { return Poll::Pending };
            let since = *since.get_or_insert_with(Instant::now);
            let deadline = since.max(self.progress.moved.get()) + silence;
            self.timer.poll_until(cx, deadline).map(|_| Err(Ended::Stalled))
        })
        .await
    }

    /// The caller must take what it is told within the idle time.
    async fn told(&mut self, telling: impl Future<Output = io::Result<()>>) -> Result<(), Ended> {
        match self.timer.within(self.times.idle, telling).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::CallerGone),
            Err(_) => Err(Ended::CallerStuck),
        }
    }
}

/// `None` if the request cannot be expressed in HTTP/2.
fn request_line(outgoing: &Outgoing) -> Option<RequestLine<'_>> {
    let Outgoing { method, host, path, content_length, .. } = outgoing;
    let (before, query) = path.split_once('?').unwrap_or((path, ""));
    // Servers are strict about what has no place in a URI (RFC 3986), though HTTP/1 lets it pass.
    let is_uri = !before.contains(['<', '>', '`']) && !query.contains(['<', '>']);
    let whole = !host.is_empty() && (path.starts_with('/') || path == "*") && is_uri;
    let line =
        RequestLine { method: method.as_str(), scheme: "http", authority: host, path, content_length: *content_length };
    whole.then_some(line)
}

/// A request's head for HTTP/1. A body whose length nobody knows goes in chunks.
fn write_http1_head(out: &mut Vec<u8>, outgoing: &Outgoing, over: bool) {
    for part in [outgoing.method.as_str(), " ", &outgoing.path, " HTTP/1.1\r\nhost: ", &outgoing.host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    fields::write_http1(out, &outgoing.headers);
    if let Some(length) = outgoing.content_length {
        fields::line(out, b"content-length", length.to_string().as_bytes());
    } else if !over {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
