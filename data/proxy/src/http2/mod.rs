//! HTTP/2 from callers: many requests side by side on a connection, each in a task of its own.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;
use weir_h2::{Config, Fields, Head, Request};

use crate::bridge::{Decided, Exchange, MapFields, Outgoing, RequestBody, Sink, content_length, is_grpc};
use crate::http1::{forward_action, forwarded_for};
use crate::io::{Buf, Prefixed, Timer};
use crate::phases::{Answer, Ends, Next, decide};
use crate::snapshot::{self, Family, rewritten};
use crate::stats::{Fault, Link, Refusal};
use crate::trace::TraceContext;
use crate::upstream::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::worker::{Connection, Details, Leaving, ListenerState, ListenerView, Ticket, Worker};

/// What the streams of a connection share.
struct Shared {
    worker: Rc<Worker>,
    listener: Rc<ListenerState>,
    peer: SocketAddr,
    destination: Option<SocketAddr>,
    link: Option<Link>,
    active: Cell<usize>,
    quiet_since: Cell<Instant>,
}

/// Serves a connection; `first` holds what was read from it already.
pub(crate) async fn serve(connection: Box<Connection>, first: Buf) {
    let Connection { worker, listener, control, stream, peer, destination, mut timer, security, link } = *connection;
    let limits = listener.view().compiled.config.limits.clone();
    let idle = Duration::from_millis(limits.idle_timeout_ms);
    let config = Config {
        max_streams: limits.max_streams as usize,
        max_header_list_bytes: limits.max_head_bytes,
        stream_window_bytes: STREAM_WINDOW,
        connection_window_bytes: CONNECTION_WINDOW,
    };
    let head_deadline = Instant::now() + Duration::from_millis(limits.head_timeout_ms);
    let mut http2 = weir_h2::accept(Prefixed::new(first, stream), config);
    let quiet_since = Cell::new(Instant::now());
    let shared = Rc::new(Shared {
        worker,
        listener,
        peer,
        destination: destination.map(|boxed| *boxed),
        link,
        active: Cell::new(0),
        quiet_since,
    });
    let mut told = None;
    loop {
        let accepted = poll_fn(|cx| {
            control.listen(cx.waker());
            let leaving = Leaving { worker: &shared.worker, listener: &shared.listener, security };
            if told.is_none() && leaving.now() {
                http2.graceful_shutdown();
                told = Some(Instant::now());
            }
            let accepted = http2.poll_accept(cx);
            if accepted.is_ready() || shared.active.get() > 0 {
                return accepted;
            }
            if !http2.has_begun() {
                return timer.poll_until(cx, head_deadline).map(|_| None);
            }
            let quiet = told.map_or(shared.quiet_since.get(), |told| told.max(shared.quiet_since.get()));
            match (timer.poll_until(cx, quiet + idle), told) {
                (Poll::Pending, _) => Poll::Pending,
                // When the time is up, the connection is told to go, and polled once more for that.
                (Poll::Ready(_), None) => {
                    http2.graceful_shutdown();
                    told = Some(Instant::now());
                    http2.poll_accept(cx)
                }
                // All is sent, but the caller does not take it.
                (Poll::Ready(_), Some(_)) => {
                    shared.worker.stats.fault(Fault::DownstreamTimeout);
                    Poll::Ready(None)
                }
            }
        })
        .await;
        match accepted {
            Some(Ok(request)) => shared.spawn(request),
            Some(Err(error)) => return shared.note_end(error),
            None if http2.has_begun() => return,
            None => return shared.worker.stats.fault(Fault::Protocol),
        }
    }
}

/// Counts a stream as active; dropped while its task panics, it counts the panic.
struct Active(Rc<Shared>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.quiet_since.set(Instant::now());
        if std::thread::panicking() {
            self.0.worker.stats.fault(Fault::Panic);
        }
    }
}

impl Shared {
    fn ends(&self) -> Ends {
        Ends { peer: self.peer.ip(), destination: self.destination }
    }

    fn note_end(&self, error: weir_h2::Error) {
        let fault = if error.is_io() { Fault::DownstreamReset } else { Fault::Protocol };
        if !error.is_io() || self.active.get() > 0 {
            self.worker.stats.fault(fault);
        }
        tracing::debug!(peer = %self.peer, %error, "HTTP/2 connection ended");
    }

    fn spawn(self: &Rc<Self>, request: Request) {
        self.active.set(self.active.get() + 1);
        let active = Active(self.clone());
        tokio::task::spawn_local(async move {
            handle(&active.0, request).await;
        });
    }
}

/// One request, from its head to the end of its answer.
async fn handle(shared: &Shared, request: Request) {
    let view = shared.listener.view();
    let Request { head, body, respond } = request;
    let mut sink = Sink::http2(respond, is_grpc(&head.fields), head.method() == "HEAD");
    let limits = &view.compiled.config.limits;
    let mut timer = Timer::new();
    let mut ticket = Ticket::new(&shared.worker, &view);
    let outgoing = match decided(shared, &view, &mut ticket, head) {
        Ok(outgoing) => outgoing,
        Err(answer) => {
            ticket.answered(&answer);
            // A caller that is gone does not miss the answer, and one that does not take it gets none.
            let idle = Duration::from_millis(limits.idle_timeout_ms);
            if timer.within(idle, sink.answer(&answer)).await.is_err() {
                shared.worker.stats.fault(Fault::DownstreamTimeout);
            }
            return;
        }
    };
    let body = RequestBody::from_http2(body, limits.buffer_bytes);
    let exchange = Exchange { worker: &shared.worker, timer: &mut timer, ticket: &ticket, outgoing, body, sink };
    exchange.run().await;
}

/// Decides about a request's head: what goes to the upstream, or the answer.
fn decided(shared: &Shared, view: &Rc<ListenerView>, ticket: &mut Ticket, head: Head) -> Result<Outgoing, Answer> {
    let method = Method::from_bytes(head.method().as_bytes())
        .map_err(|_| Answer::refuse(Refusal::BadRequest, 400, "the method is malformed\n"))?;
    let (host, path) = destination(&head)?;
    check_count(view, &head.fields)?;
    let bad_length = |_| Answer::refuse(Refusal::BadRequest, 400, "content-length is not one number\n");
    let length = content_length(&head.fields).map_err(bad_length)?;
    let fields = MapFields(&head.fields);
    let request = snapshot::Request {
        family: Family::Http,
        method: method.as_str(),
        host: &host,
        path,
        fields: &fields,
        has_certificate: Link::has_certificate(shared.link.as_ref()),
    };
    let decision = decide(&shared.worker, view, shared.ends(), &request);
    ticket.decided(&decision);
    let trace = trace(shared, view, &head.fields);
    ticket.keep_details(trace, || Details {
        peer: shared.peer.to_string(),
        protocol: None,
        method: method.to_string(),
        host: host.clone(),
        path: path.to_owned(),
        trace: None,
        identity: shared.link.as_ref().map(|link| link.identity.clone()),
    });
    let to = match decision.next {
        Next::Answer(answer) => return Err(answer),
        Next::Forward(to) => to,
    };
    let Some((route, action)) = forward_action(view, to) else {
        return Err(Answer::refuse(Refusal::NoRoute, 404, "no route matches\n"));
    };
    let path = rewritten(path, &action.prefix_rewrite).into_owned();
    let forwarded_for = forwarded_for(shared.peer, view);
    let decided = Decided { to, route, action, trace: trace.as_ref(), forwarded_for };
    Ok(Outgoing::new(method, (&host, &path), head.fields, length, decided))
}

/// Host and path of a request. Whatever could be read in two ways is refused, as in HTTP/1.
fn destination(head: &Head) -> Result<(String, &str), Answer> {
    let bad = |text| Answer::refuse(Refusal::BadRequest, 400, text);
    if head.method() == "CONNECT" {
        return Err(Answer::refuse(Refusal::Unsupported, 501, "CONNECT is not supported\n"));
    }
    let authority = head.authority();
    let mut hosts = head.fields.get_all("host");
    let host =
        hosts.next().map(|host| std::str::from_utf8(host).map_err(|_| bad("host is malformed\n"))).transpose()?;
    if hosts.next().is_some() {
        return Err(bad("host is there more than once\n"));
    }
    let chosen = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(bad(":authority and host differ\n"));
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(bad("host is missing\n")),
    };
    if !weir_codec::http1::is_authority(chosen.as_bytes()) {
        return Err(bad("host is malformed\n"));
    }
    let path = head.path().unwrap_or("/");
    if !weir_codec::http1::is_target(path.as_bytes()) {
        return Err(bad("the path holds a character that may not stand there\n"));
    }
    Ok((chosen.to_owned(), path))
}

fn check_count(view: &ListenerView, headers: &Fields) -> Result<(), Answer> {
    let over = headers.len() > view.compiled.config.limits.max_headers;
    if over { Err(Answer::refuse(Refusal::HeaderCount, 431, "too many header fields\n")) } else { Ok(()) }
}

fn trace(shared: &Shared, view: &ListenerView, headers: &Fields) -> Option<TraceContext> {
    let received = headers.get("traceparent");
    view.compiled.config.trace.then(|| TraceContext::next(received, || shared.worker.samples()))
}
