//! From received bytes to a decided request, in one step.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use weir_codec::http1::{Framing, Known, Reject, RequestHead, Slots, Version, known, parse_request, slots};
use weir_config::{Direction, UpstreamProtocol};

use super::fields::HeaderFields;
use super::head::{RequestEdits, write_request};
use crate::bridge;
use crate::io::Buf;
use crate::phases::{self, Answer, Destination, decide};
use crate::snapshot::{self, Action, Family, ForwardAction, rewritten};
use crate::stats::Link;
use crate::trace::TraceContext;
use crate::worker::{Connection, Details, ListenerView, Ticket};

/// Heads with more fields than this are parsed with a larger table.
const USUAL_HEADERS: usize = 128;
/// The most that validation allows.
const MAX_HEADERS: usize = 1000;

/// A request, decided about.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ticket: Ticket,
    pub(super) facts: Facts,
    pub(super) next: Next,
}

/// What the rest of the exchange must know of the request's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) version: Version,
    /// The caller would use the connection again.
    pub(crate) persists: bool,
    pub(crate) to_head: bool,
    pub(crate) framing: Framing,
    pub(crate) expects_continue: bool,
    /// May be sent twice without harm (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
}

/// What happens to it.
#[derive(Debug)]
pub(super) enum Next {
    /// The proxy answers.
    Answer(Answer),
    /// To an HTTP/1 upstream.
    Forward(Outgoing),
    /// To an HTTP/2 upstream.
    Bridge(Box<bridge::Outgoing>),
}

/// A request for an HTTP/1 upstream.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Its head, complete.
    pub(super) head: Vec<u8>,
    pub(super) to: Destination,
    pub(super) upgrade: bool,
}

/// Parses the head at the front of the buffer, decides about it and takes it out; `None` if it is not complete.
pub(super) fn prepare(connection: &Connection, buf: &mut Buf) -> Result<Option<Request>, Reject> {
    let view = connection.listener.view();
    let prepared = match view.compiled.config.limits.max_headers {
        ..=USUAL_HEADERS => prepare_with(connection, view, buf.filled(), &mut slots::<USUAL_HEADERS>()),
        _ => prepare_large(connection, view, buf.filled()),
    };
    Ok(prepared?.map(|(request, len)| {
        buf.consume(len);
        request
    }))
}

/// A request and the length of its head.
type Prepared = Result<Option<(Request, usize)>, Reject>;

#[cold]
fn prepare_large(connection: &Connection, view: Rc<ListenerView>, bytes: &[u8]) -> Prepared {
    prepare_with(connection, view, bytes, &mut slots::<MAX_HEADERS>())
}

#[inline]
fn prepare_with<'b>(
    connection: &Connection,
    view: Rc<ListenerView>,
    bytes: &'b [u8],
    slots: &mut Slots<'b>,
) -> Prepared {
    let limits = &view.compiled.config.limits;
    let most = limits.max_headers.min(slots.len());
    let head = parse_request(bytes, &mut slots[..most], limits.max_head_bytes)?;
    Ok(head.map(|head| (decided(connection, view.clone(), bytes, &head), head.len)))
}

fn decided(connection: &Connection, view: Rc<ListenerView>, bytes: &[u8], head: &RequestHead<'_, '_>) -> Request {
    let mut ticket = Ticket::new(&connection.worker, &view);
    let fields = HeaderFields(head.headers);
    let request = snapshot::Request {
        family: Family::Http,
        method: head.method,
        host: head.host,
        path: head.path,
        fields: &fields,
        has_certificate: Link::has_certificate(connection.link.as_ref()),
    };
    let decision = decide(&connection.worker, &view, connection.ends(), &request);
    ticket.decided(&decision);
    let trace = trace(connection, &view, head);
    ticket.keep_details(trace, || details(connection, head));
    let next = match decision.next {
        phases::Next::Answer(answer) => Next::Answer(answer),
        phases::Next::Forward(to) => forward(connection, &view, bytes, head, to, trace.as_ref()),
    };
    Request { ticket, facts: Facts::of(head), next }
}

impl Facts {
    fn of(head: &RequestHead<'_, '_>) -> Self {
        Facts {
            version: head.version,
            persists: head.connection.persists(head.version),
            to_head: head.method == "HEAD",
            framing: head.framing,
            expects_continue: head.expects_continue,
            idempotent: is_idempotent(head.method),
        }
    }
}

impl Facts {
    /// The same of a request whose body's end is lost: its connection cannot go on.
    pub(crate) fn broken(&self) -> Self {
        Facts { persists: false, framing: Framing::None, ..*self }
    }
}

/// RFC 9110 section 9.2.2.
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

fn trace(connection: &Connection, view: &ListenerView, head: &RequestHead<'_, '_>) -> Option<TraceContext> {
    if !view.compiled.config.trace {
        return None;
    }
    let received = head.headers.iter().find(|header| known(header.name) == Known::Traceparent);
    Some(TraceContext::next(received.map(|header| header.value), || connection.worker.samples()))
}

fn details(connection: &Connection, head: &RequestHead<'_, '_>) -> Details {
    Details {
        peer: connection.peer.to_string(),
        identity: connection.link.as_ref().map(|link| link.identity.clone()),
        protocol: None,
        method: head.method.to_owned(),
        host: head.host.to_owned(),
        path: head.path.to_owned(),
        trace: None,
    }
}

fn forward(
    connection: &Connection,
    view: &ListenerView,
    bytes: &[u8],
    head: &RequestHead<'_, '_>,
    to: Destination,
    trace: Option<&TraceContext>,
) -> Next {
    let Some((route, action)) = forward_action(view, to) else {
        return Next::Answer(Answer::refuse(crate::stats::Refusal::NoRoute, 404, "no route matches\n"));
    };
    let cluster = &view.view.clusters[to.cluster].compiled;
    let path = rewritten(head.path, &action.prefix_rewrite);
    let forwarded_for = forwarded_for(connection.peer, view);
    if cluster.config.protocol == UpstreamProtocol::Http2 {
        let decided = bridge::Decided { to, route, action, trace, forwarded_for };
        let host = if head.host.is_empty() { &*cluster.name } else { head.host };
        let bridged = bridge::outgoing_from_http1(head, (host, &path), decided);
        return bridged.map_or_else(Next::Answer, |outgoing| Next::Bridge(Box::new(outgoing)));
    }
    let upgrade = action.upgrades && head.upgrade.is_some();
    let mut out = connection.worker.buffers.take_vec();
    let edits = RequestEdits {
        path: &path,
        host_rewrite: action.host_rewrite.as_deref(),
        default_host: &cluster.name,
        edits: &route.request_edits,
        trace,
        forwarded_for,
        upgrade,
    };
    write_request(&mut out, bytes, head, &edits);
    Next::Forward(Outgoing { head: out, to, upgrade })
}

/// The route and action that a destination was decided by.
pub(crate) fn forward_action(view: &ListenerView, to: Destination) -> Option<(&snapshot::RouteEntry, &ForwardAction)> {
    let route = view.route(to.route)?;
    match &route.action {
        Action::Forward(forward) => Some((route, forward)),
        Action::Redirect(_) | Action::Respond(_) => None,
    }
}

/// The local application is no hop worth naming; any other caller is.
pub(crate) fn forwarded_for(peer: SocketAddr, view: &ListenerView) -> Option<IpAddr> {
    let ip = peer.ip();
    let from_application = view.compiled.config.direction == Direction::Outbound && ip.is_loopback();
    (!from_application).then_some(ip)
}
