//! One request and its response: attempts, the upload beside the response, timeouts.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Uri, Version};
use tokio::time::Instant;
use weir_config::UpstreamProtocol;

use super::body::{BodyError, Http1Framing, Piece, RequestBody};
use super::sink::Sink;
use super::source::{Http1Source, Source};
use super::target::{Target, UploadError};
use super::{Outgoing, fields, grpc};
use crate::http1::{explain, forward_action, write_failure};
use crate::io::{Buf, NotWritten, Timer};
use crate::phases::Answer;
use crate::snapshot::{ForwardAction, RouteEntry};
use crate::stats::{Fault, Refusal};
use crate::upstream::{
    AcquireError, Again, Attempts, ClusterState, EndpointState, Failure, H2Lease, InFlight, Lease, acquire, acquire_h2,
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

/// The caller has had its response, or will get none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    /// The caller's connection can be used again.
    pub(crate) persists: bool,
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
    /// The caller's body is malformed, and nothing has reached the caller.
    Malformed,
    /// The caller broke off.
    CallerGone,
}

/// What an attempt needs besides its connection.
struct Attempt<'a, 'b> {
    timer: &'a mut Timer,
    ticket: &'a Ticket,
    route: &'a RouteEntry,
    timeout: Option<Duration>,
    idle: Duration,
    body: &'a mut RequestBody<'b>,
    sink: &'a mut Sink<'b>,
}

impl Exchange<'_> {
    /// Tries until one attempt brings a response, or none is left.
    pub(crate) async fn run(mut self) -> Finished {
        let listener = self.ticket.listener.clone();
        let Some((route, action)) = forward_action(&listener, self.outgoing.to) else {
            return Finished { persists: false };
        };
        let cluster = listener.view.clusters[self.outgoing.to.cluster].clone();
        let idle = Duration::from_millis(listener.compiled.config.limits.idle_timeout_ms);
        let mut attempts = Attempts::default();
        let mut whole = self.body.is_over();
        loop {
            let Some(endpoint) = cluster.choose(self.outgoing.to.hash, &attempts.tried) else {
                return self.answer(Refusal::NoEndpoint, 503, "the upstream has no endpoint\n").await;
            };
            self.ticket.set_endpoint(endpoint.address);
            let in_flight = InFlight::new(&endpoint);
            let ended = self.attempt(&cluster, &endpoint, route, action, idle, &mut attempts).await;
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
            // Nothing was taken of a body before there was a connection.
            whole |= failure == Failure::Connect;
            let retry = action.retry.as_ref();
            let idempotent = self.outgoing.is_idempotent();
            match attempts.after(failure, idempotent, retry, &cluster, Some(endpoint.address)) {
                Again::Yes if whole => whole = self.body.is_over() || failure == Failure::Connect,
                Again::OverBudget => {
                    self.worker.stats.refuse(Refusal::RetryBudget);
                    return self.fail(failure).await;
                }
                Again::Yes | Again::No => return self.fail(failure).await,
            }
        }
    }

    fn is_endpoints_error(&self, ended: Ended) -> bool {
        match ended {
            Ended::Whole { .. } => self.ticket.status() >= 500 || self.ticket.is_error(),
            Ended::Failed(failure) => !matches!(failure, Failure::Stale | Failure::Unsent),
            Ended::Retry | Ended::Broken => true,
            Ended::Malformed | Ended::CallerGone => false,
        }
    }

    async fn attempt(
        &mut self,
        cluster: &Rc<ClusterState>,
        endpoint: &Rc<EndpointState>,
        route: &RouteEntry,
        action: &ForwardAction,
        idle: Duration,
        attempts: &mut Attempts,
    ) -> Result<Ended, Refusal> {
        let wait = Some(Instant::now() + action.timeout.unwrap_or(idle));
        let by_http2 = match cluster.compiled.config.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::SameAsDownstream => matches!(self.sink, Sink::Http2 { .. }),
        };
        let idempotent = self.outgoing.is_idempotent();
        let over = self.body.is_over();
        let retries = |status| {
            let failure = Failure::Status(status);
            let retry = action.retry.as_ref();
            over && attempts.after(failure, idempotent, retry, cluster, Some(endpoint.address)) == Again::Yes
        };
        let (outgoing, worker) = (&self.outgoing, self.worker);
        let attempt = Attempt {
            timer: self.timer,
            ticket: self.ticket,
            route,
            timeout: action.timeout_per_try(),
            idle,
            body: &mut self.body,
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
            Ended::Whole { sent } => return Finished { persists: sent && self.sink.persists() },
            Ended::Malformed => {
                return self.answer(Refusal::BadRequest, 400, "the request's body is malformed\n").await;
            }
            Ended::Broken => {
                self.ticket.set_error();
                self.worker.stats.fault(Fault::UpstreamReset);
                self.sink.reset();
            }
            _ => self.worker.stats.fault(Fault::DownstreamReset),
        }
        Finished { persists: false }
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
        let sent = self.sink.answer(&answer).await.is_ok();
        Finished { persists: sent && self.sink.persists() }
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
    async fn by_http2(self, outgoing: &Outgoing, mut lease: H2Lease, retries: impl FnMut(u16) -> bool) -> Ended {
        let Some(request) = http2_request(outgoing) else { return Ended::Malformed };
        let over = self.body.is_over();
        match lease.send.send_request(request, over) {
            Ok((head, stream)) => {
                let mut source = Source::Http2 { head: Some(head), body: None };
                self.exchange(Target::Http2(stream), &mut source, over, retries).await
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
        let over = self.body.is_over();
        let length = fields::content_length(&outgoing.headers);
        let mut head = worker.buffers.take_vec();
        write_http1_head(&mut head, outgoing, over, length);
        let mut received = Buf::default();
        let (reader, mut writer) = lease.stream.split();
        let written = writer.write_all_or_tell(&head, b"").await;
        worker.buffers.put_vec(head);
        if let Err(NotWritten { nothing }) = written {
            return Ended::Failed(write_failure(nothing, lease.reused));
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
        let Attempt { timer, ticket, route, timeout, idle, body, sink } = self;
        let sent_at = Cell::new(over.then(Instant::now));
        let begun = Instant::now();
        let response = Response { ticket, route, timer, timeout, idle, sent_at: &sent_at, begun };
        if over {
            return response.pass(source, sink, retries).await;
        }
        let mut uploading = Box::pin(target.send(body));
        let mut uploaded = None;
        let mut passing = pin!(response.pass(source, sink, retries));
        let ended = poll_fn(|cx| {
            if uploaded.is_none()
                && let Poll::Ready(result) = uploading.as_mut().poll(cx)
            {
                sent_at.set(Some(Instant::now()));
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
    timeout: Option<Duration>,
    idle: Duration,
    sent_at: &'a Cell<Option<Instant>>,
    begun: Instant,
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
        if retries(response.status().as_u16()) {
            return Ended::Retry;
        }
        self.ticket.set_status(response.status().as_u16());
        self.note_grpc(response.headers());
        fields::edit(response.headers_mut(), &self.route.response_edits);
        let over = source.is_over();
        if sink.head(response, over).await.is_err() {
            return Ended::CallerGone;
        }
        if over { Ended::Whole { sent: true } } else { self.body(source, sink).await }
    }

    fn note_grpc(&self, headers: &http::HeaderMap) {
        if grpc::tells_server_error(headers) {
            self.ticket.set_error();
        }
    }

    async fn head(&mut self, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<http::Response<()>, Ended> {
        let mut head = pin!(source.head());
        poll_fn(|cx| {
            if let Poll::Ready(head) = head.as_mut().poll(cx) {
                return Poll::Ready(head.map_err(Ended::Failed));
            }
            if sink.poll_gone(cx) {
                return Poll::Ready(Err(Ended::CallerGone));
            }
            let deadline = match self.sent_at.get() {
                Some(sent) => self.timeout.map(|timeout| sent + timeout),
                None => Some(self.begun + self.idle),
            };
            match deadline {
                Some(deadline) => self.timer.poll_until(cx, deadline).map(|_| Err(Ended::Failed(Failure::Timeout))),
                None => Poll::Pending,
            }
        })
        .await
    }

    async fn body(&mut self, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Ended {
        loop {
            let piece = match self.timer.limit(Some(Instant::now() + self.idle), source.next()).await {
                Ok(Ok(piece)) => piece,
                _ => return Ended::Broken,
            };
            let last = source.is_over();
            let passed = match piece {
                Some(Piece::Data(data)) => sink.data(data, last).await.map(|()| last),
                Some(Piece::Trailers(trailers)) => {
                    self.note_grpc(&trailers);
                    sink.end(Some(trailers)).await.map(|()| true)
                }
                None => sink.end(None).await.map(|()| true),
            };
            match passed {
                Ok(true) => return Ended::Whole { sent: true },
                Ok(false) => {}
                Err(_) => return Ended::CallerGone,
            }
        }
    }
}

fn http2_request(outgoing: &Outgoing) -> Option<Request<()>> {
    let uri = Uri::builder().scheme("http").authority(outgoing.host.as_str()).path_and_query(outgoing.path.as_str());
    let mut request = Request::new(());
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = outgoing.headers.clone();
    Some(request)
}

/// A request's head for HTTP/1. A body whose length nobody knows goes in chunks.
fn write_http1_head(out: &mut Vec<u8>, outgoing: &Outgoing, over: bool, length: Option<u64>) {
    for part in [outgoing.method.as_str(), " ", &outgoing.path, " HTTP/1.1\r\nhost: ", &outgoing.host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let te = outgoing.headers.contains_key(http::header::TE);
    match te {
        // The field concerns one hop, and this one is HTTP/1.
        true => {
            let mut headers = outgoing.headers.clone();
            headers.remove(http::header::TE);
            fields::write_http1(out, &headers);
        }
        false => fields::write_http1(out, &outgoing.headers),
    }
    if !over && length.is_none() {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
