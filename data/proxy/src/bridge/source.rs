//! Where a response comes from.

use std::future::poll_fn;

use weir_codec::http1::{Framing, parse_response, slots};
use weir_h2::{By, Error, Reason, RecvStream};

use super::body::{BodyError, Http1Framing, Piece, next_of_http2};
use super::{ResponseHead, fields};
use crate::http1::{MAX_RESPONSE_HEAD, MAX_RESPONSE_HEADERS};
use crate::io::{BUFFER_BYTES, Buf, Reader};
use crate::upstream::Failure;
use crate::worker::Worker;

/// The receiving side of an upstream.
pub(super) enum Source<'a> {
    /// An HTTP/2 stream.
    Http2(RecvStream),
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
    pub(super) async fn head(&mut self) -> Result<ResponseHead, Failure> {
        let mut response = match self {
            Source::Http2(stream) => {
                let head = stream.head().await.map_err(failure)?;
                ResponseHead { status: head.status(), fields: head.fields }
            }
            Source::Http1(source) => source.head().await?,
        };
        fields::remove_hop_by_hop(&mut response.fields);
        fields::content_length(&response.fields).map_err(|_| Failure::Protocol)?;
        if response.status == 204 {
            // It has no body, whatever it says (RFC 9110 section 8.6).
            response.fields.remove("content-length");
        }
        Ok(response)
    }

    /// The next piece of the body; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, BodyError> {
        match self {
            Source::Http2(stream) => next_of_http2(stream).await,
            Source::Http1(source) => source.framing.next(source.worker, source.buf, &mut source.reader).await,
        }
    }

    /// True if there is no more of the body.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Source::Http2(stream) => stream.is_end_stream(),
            Source::Http1(source) => matches!(source.framing, Http1Framing::Done),
        }
    }
}

/// What an error of an HTTP/2 stream means for the request on it.
fn failure(error: Error) -> Failure {
    match error {
        Error::Reset { reason: Reason::REFUSED_STREAM, by: By::Peer } => Failure::Refused,
        Error::NotProcessed => Failure::Unsent,
        _ => Failure::Reset,
    }
}

impl Http1Source<'_> {
    async fn head(&mut self) -> Result<ResponseHead, Failure> {
        loop {
            if !self.buf.is_empty() {
                match self.parse()? {
                    // Interim responses have no place in what follows.
                    Some(response) if response.status < 200 => continue,
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

    fn parse(&mut self) -> Result<Option<ResponseHead>, Failure> {
        let mut slots = slots::<MAX_RESPONSE_HEADERS>();
        let parsed = parse_response(self.buf.filled(), &mut slots, MAX_RESPONSE_HEAD, self.to_head);
        let Some(head) = parsed.map_err(|_| Failure::Protocol)? else { return Ok(None) };
        let status = head.status;
        if status == 101 {
            return Err(Failure::Protocol);
        }
        let fields = fields::from_http1(head.headers, head.connection.nominates).ok_or(Failure::Protocol)?;
        let (framing, persists, len) = (head.framing, head.persists(), head.len);
        self.buf.consume(len);
        self.framing = Http1Framing::new(framing);
        self.persists = persists && framing != Framing::UntilClose;
        Ok(Some(ResponseHead { status, fields }))
    }
}
