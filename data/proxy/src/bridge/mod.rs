//! Exchanges where at least one side speaks HTTP/2: between messages rather than bytes.
//!
//! A request is a method, a host, a path, fields and a [body](body::RequestBody); a response goes piece by piece into a
//! [`Sink`](sink::Sink). Which protocol stands behind each is an enum, so that one account of an exchange serves HTTP/2
//! to HTTP/1, HTTP/2 to HTTP/2 and HTTP/1 to HTTP/2. HTTP/1 to HTTP/1 has a way of its own in [`crate::http1`].

mod body;
mod exchange;
mod fields;
mod grpc;
mod sink;
mod source;
mod target;

use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use weir_codec::http1::{Framing, RequestHead};
use weir_h2::Fields;

pub(crate) use body::RequestBody;
pub(crate) use exchange::{Exchange, Finished};
pub(crate) use fields::{MapFields, content_length};
pub(crate) use grpc::is_grpc;
pub(crate) use sink::Sink;

use crate::http1::{After, Facts, is_idempotent};
use crate::io::Buf;
use crate::phases::{Answer, Destination};
use crate::snapshot::{ForwardAction, RouteEntry};
use crate::stats::Refusal;
use crate::trace::TraceContext;
use crate::worker::{Connection, Leaving, Ticket};

/// Told where a request's method, path or fields have no place in HTTP/2.
const UNFIT: &str = "the request cannot be sent by HTTP/2\n";

/// A request for an upstream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) host: String,
    /// With query.
    pub(crate) path: String,
    /// Without what frames the body.
    pub(crate) headers: Fields,
    /// Length of the body, if the caller has told it.
    pub(crate) content_length: Option<u64>,
    pub(crate) to: Destination,
}

/// A response's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
}

/// What was decided about a request's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided<'a> {
    pub(crate) to: Destination,
    pub(crate) route: &'a RouteEntry,
    pub(crate) action: &'a ForwardAction,
    pub(crate) trace: Option<&'a TraceContext>,
    pub(crate) forwarded_for: Option<IpAddr>,
}

impl Outgoing {
    /// `content_length`: what the caller has told of the body's length.
    pub(crate) fn new(
        method: Method,
        (host, path): (&str, &str),
        mut headers: Fields,
        content_length: Option<u64>,
        decided: Decided<'_>,
    ) -> Self {
        fields::remove_hop_by_hop(&mut headers);
        headers.remove("host");
        headers.remove("expect");
        fields::add_forwarded(&mut headers, decided.forwarded_for);
        if let Some(trace) = decided.trace {
            headers.set("traceparent", trace.value());
        }
        fields::edit(&mut headers, &decided.route.request_edits);
        // How the body is framed is written once, by who sends it.
        headers.remove("content-length");
        headers.remove("transfer-encoding");
        let host = decided.action.host_rewrite.as_deref().unwrap_or(host).to_owned();
        Outgoing { method, host, path: path.to_owned(), headers, content_length, to: decided.to }
    }

    pub(crate) fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        is_idempotent(self.method.as_str())
    }
}

/// A request of an HTTP/1 caller for an HTTP/2 upstream; `host` is what it is for.
///
/// # Errors
/// The answer to a head that HTTP/2 cannot express.
pub(crate) fn outgoing_from_http1(
    head: &RequestHead<'_, '_>,
    (host, path): (&str, &str),
    decided: Decided<'_>,
) -> Result<Outgoing, Answer> {
    let unfit = || Answer::refuse(Refusal::BadRequest, 400, UNFIT);
    let method = Method::from_bytes(head.method.as_bytes()).map_err(|_| unfit())?;
    let headers = fields::from_http1(head.headers, head.connection.nominates).ok_or_else(unfit)?;
    let content_length = match head.framing {
        Framing::Length(length) => Some(length),
        _ => None,
    };
    Ok(Outgoing::new(method, (host, path), headers, content_length, decided))
}

/// Sends an HTTP/1 caller's request to an HTTP/2 upstream, and the response back.
pub(crate) async fn from_http1(
    connection: &mut Connection,
    buf: &mut Buf,
    facts: &Facts,
    ticket: Ticket,
    outgoing: Outgoing,
) -> After {
    let Connection { worker, listener, stream, timer, security, .. } = connection;
    let limits = &ticket.listener.compiled.config.limits;
    let idle = Duration::from_millis(limits.idle_timeout_ms);
    let (reader, mut writer) = stream.split();
    if facts.expects_continue && buf.is_empty() {
        // The body is read here whatever the upstream thinks of it, so the caller may as well send it.
        let _ = timer.within(idle, writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n", b"")).await;
    }
    let leaving = Leaving { worker, listener, security: *security };
    let (body, sink) = match facts.framing {
        // Nothing is read until the answer is there, so that whether the caller is still there has to be watched.
        Framing::None | Framing::Length(0) => (RequestBody::none(), Sink::http1(writer, facts, leaving, Some(reader))),
        framing => {
            let body = RequestBody::from_http1(framing, limits.buffer_bytes, worker, buf, reader);
            (body, Sink::http1(writer, facts, leaving, None))
        }
    };
    let exchange = Exchange { worker, timer, ticket: &ticket, outgoing, body, sink };
    match exchange.run().await {
        Finished::Persists => After::KeepAlive,
        Finished::Ends => After::Linger,
        Finished::Breaks => After::Close,
    }
}
