//! Where a response comes from.

use std::future::poll_fn;

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, Response, StatusCode, header};
use weir_codec::http1::{Framing, parse_response, slots};

use super::body::{BodyError, Http1Framing, Piece, next_of_http2};
use super::fields;
use crate::http1::{MAX_RESPONSE_HEAD, MAX_RESPONSE_HEADERS};
use crate::io::{BUFFER_BYTES, Buf, Reader};
use crate::upstream::Failure;
use crate::worker::Worker;

/// The receiving side of an upstream.
pub(super) enum Source<'a> {
    /// An HTTP/2 stream; its body once the head is there.
    Http2 { head: Option<ResponseFuture>, body: Option<RecvStream> },
    /// An HTTP/1 connection.
    Http1(Http1Source<'a>),
}

/// The receiving side of an HTTP/1 connection.
pub(super) struct Http1Source<'a> {
    pub(super) worker: &'a Worker,
    pub(super) reader: Reader<'a>,
    pub(super) buf: &'a mut Buf,
    pub(super) framing: Http1Framing,
    pub(super) to_head: bool,
    pub(super) reused: bool,
    /// The connection can be used again once the body has been read.
    pub(super) persists: bool,
}

impl Source<'_> {
    /// The response's head, without fields of one hop.
    pub(super) async fn head(&mut self) -> Result<Response<()>, Failure> {
        let mut response = match self {
            Source::Http2 { head, body } => {
                let Some(future) = head.as_mut() else { return Err(Failure::Protocol) };
                let (parts, received) = future.await.map_err(|error| failure(&error))?.into_parts();
                *body = Some(received);
                Response::from_parts(parts, ())
            }
            Source::Http1(source) => source.head().await?,
        };
        fields::remove_hop_by_hop(response.headers_mut());
        fields::content_length(response.headers()).map_err(|_| Failure::Protocol)?;
        if response.status() == StatusCode::NO_CONTENT {
            // It has no body, whatever it says (RFC 9110 section 8.6).
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        Ok(response)
    }

    /// The next piece of the body; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, BodyError> {
        match self {
            Source::Http2 { body: Some(body), .. } => next_of_http2(body).await,
            Source::Http2 { body: None, .. } => Ok(None),
            Source::Http1(source) => source.framing.next(source.worker, source.buf, &mut source.reader).await,
        }
    }

    /// True if there is no more of the body.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Source::Http2 { body, .. } => body.as_ref().is_none_or(RecvStream::is_end_stream),
            Source::Http1(source) => matches!(source.framing, Http1Framing::Done),
        }
    }
}

/// What an error of an HTTP/2 stream means for the request on it.
fn failure(error: &h2::Error) -> Failure {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Failure::Refused,
        // h2 tells this only to streams above the last that the peer has looked at.
        Some(h2::Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Failure::Unsent,
        _ => Failure::Reset,
    }
}

impl Http1Source<'_> {
    async fn head(&mut self) -> Result<Response<()>, Failure> {
        loop {
            if !self.buf.is_empty() {
                match self.parse()? {
                    // Interim responses have no place in what follows.
                    Some(response) if response.status().is_informational() => continue,
                    Some(response) => return Ok(response),
                    None => {}
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Failure> {
        if self.buf.is_allocated() && !self.buf.make_room(MAX_RESPONSE_HEAD.max(BUFFER_BYTES)) {
            return Err(Failure::Protocol);
        }
        let pool = &self.worker.buffers;
        match poll_fn(|cx| self.reader.poll_fill(cx, pool, self.buf)).await {
            Ok(read) if read > 0 => Ok(()),
            _ if self.reused && self.buf.is_empty() => Err(Failure::Stale),
            _ => Err(Failure::Reset),
        }
    }

    fn parse(&mut self) -> Result<Option<Response<()>>, Failure> {
        let mut slots = slots::<MAX_RESPONSE_HEADERS>();
        let parsed = parse_response(self.buf.filled(), &mut slots, MAX_RESPONSE_HEAD, self.to_head);
        let Some(head) = parsed.map_err(|_| Failure::Protocol)? else { return Ok(None) };
        let status = StatusCode::from_u16(head.status).map_err(|_| Failure::Protocol)?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::Protocol);
        }
        let headers = fields::from_http1(head.headers, head.connection.nominates).ok_or(Failure::Protocol)?;
        let (framing, persists, len) = (head.framing, head.persists(), head.len);
        self.buf.consume(len);
        self.framing = Http1Framing::new(framing);
        self.persists = persists && framing != Framing::UntilClose;
        Ok(Some(response(status, headers)))
    }
}

fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
