//! Request bodies, piece by piece.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;

use bytes::Bytes;
use weir_codec::http1::{ChunkDecoder, Framing, Reject, Step};
use weir_h2::{Fields, RecvStream};

use super::fields;
use crate::io::{BUFFER_BYTES, Buf, Reader};
use crate::worker::Worker;

/// Trailer sections are bounded like heads (bytes).
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// A piece costs this much besides its bytes: many small ones are not free.
const PIECE_BYTES: usize = size_of::<Piece>();

/// A part of a body.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// Data.
    Data(Bytes),
    /// Its end, if there are trailers.
    Trailers(Fields),
}

impl Piece {
    /// What keeping it costs at least, bytes.
    fn len(&self) -> usize {
        let of_fields = |trailers: &Fields| trailers.iter().map(|(name, value)| name.len() + value.len()).sum();
        PIECE_BYTES
            + match self {
                Piece::Data(data) => data.len(),
                Piece::Trailers(trailers) => of_fields(trailers),
            }
    }
}

/// Why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Whoever sends it broke off.
    Gone,
    /// It is malformed.
    Malformed,
}

impl std::convert::From<Reject> for BodyError {
    fn from(_: Reject) -> Self {
        BodyError::Malformed
    }
}

/// The body of a caller's request. Its beginning is kept, so that an attempt that came to nothing can be repeated.
///
/// ```text
/// ## Kept    => (Kept | Not kept)   more came than may be kept, or the request has been answered
/// ## Not kept                       what is kept is read for the last time
/// ```
#[derive(Debug)]
pub(crate) struct RequestBody<'a> {
    from: From<'a>,
    kept: VecDeque<Piece>,
    /// How many of the kept pieces this attempt has read.
    read: usize,
    /// Bytes that may still be kept.
    room: usize,
}

#[derive(Debug)]
enum From<'a> {
    Nowhere,
    Http2(RecvStream),
    Http1(Http1Body<'a>),
}

impl<'a> RequestBody<'a> {
    fn new(from: From<'a>, room: usize) -> Self {
        RequestBody { from, kept: VecDeque::new(), read: 0, room }
    }

    /// From an HTTP/2 stream; at most `room` bytes of it are kept.
    pub(crate) fn from_http2(stream: RecvStream, room: usize) -> Self {
        RequestBody::new(if stream.is_end_stream() { From::Nowhere } else { From::Http2(stream) }, room)
    }

    /// From an HTTP/1 connection.
    pub(crate) fn from_http1(
        framing: Framing,
        room: usize,
        worker: &'a Worker,
        buf: &'a mut Buf,
        reader: Reader<'a>,
    ) -> Self {
        let from = match Http1Framing::new(framing) {
            Http1Framing::Done => From::Nowhere,
            framing => From::Http1(Http1Body { framing, worker, buf, reader }),
        };
        RequestBody::new(from, room)
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        RequestBody::new(From::Nowhere, 0)
    }

    /// True if the caller has sent all of it.
    pub(super) fn is_over(&self) -> bool {
        match &self.from {
            From::Nowhere => true,
            From::Http2(stream) => stream.is_end_stream(),
            From::Http1(body) => matches!(body.framing, Http1Framing::Done),
        }
    }

    /// True if there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.is_over() && self.kept.is_empty()
    }

    /// Begins again, for another attempt.
    pub(super) fn rewind(&mut self) {
        self.read = 0;
    }

    /// The next piece; `None` at the end. `kept` is cleared once the body cannot be read again; cleared by another, it
    /// need not.
    pub(super) async fn next(&mut self, kept: &Cell<bool>) -> Result<Option<Piece>, BodyError> {
        if !kept.get() {
            self.kept.drain(..std::mem::take(&mut self.read));
        }
        if let Some(piece) = self.kept.get(self.read) {
            self.read += 1;
            return Ok(Some(piece.clone()));
        }
        let piece = match &mut self.from {
            From::Nowhere => Ok(None),
            From::Http2(stream) => next_of_http2(stream).await,
            From::Http1(body) => body.framing.next(body.worker, body.buf, &mut body.reader).await,
        }?;
        if let Some(piece) = &piece {
            self.keep(piece, kept);
        }
        Ok(piece)
    }

    fn keep(&mut self, piece: &Piece, kept: &Cell<bool>) {
        let left = self.room.checked_sub(piece.len());
        match left.filter(|_| kept.get()) {
            Some(left) => {
                self.room = left;
                self.kept.push_back(piece.clone());
                self.read += 1;
            }
            None => {
                kept.set(false);
                self.kept.clear();
                self.read = 0;
            }
        }
    }
}

/// A request's body on an HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Http1Body<'a> {
    framing: Http1Framing,
    worker: &'a Worker,
    buf: &'a mut Buf,
    reader: Reader<'a>,
}

/// The next piece of an HTTP/2 message. The peer may send as much again once it was taken.
pub(super) async fn next_of_http2(stream: &mut RecvStream) -> Result<Option<Piece>, BodyError> {
    match stream.data().await {
        Some(Ok(data)) => Ok(Some(Piece::Data(data))),
        Some(Err(_)) => Err(BodyError::Gone),
        None => match stream.trailers().await {
            Ok(trailers) => Ok(trailers.map(fields::may_trail).filter(|left| !left.is_empty()).map(Piece::Trailers)),
            Err(_) => Err(BodyError::Gone),
        },
    }
}

/// What is left of an HTTP/1 body whose framing is taken off.
#[derive(Debug)]
pub(super) enum Http1Framing {
    Done,
    Length(u64),
    Chunked(Box<ChunkDecoder>),
    UntilClose,
}

impl Http1Framing {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Http1Framing::Done,
            Framing::Length(length) => Http1Framing::Length(length),
            Framing::Chunked => Http1Framing::Chunked(Box::new(ChunkDecoder::new(MAX_TRAILER_BYTES))),
            Framing::UntilClose => Http1Framing::UntilClose,
        }
    }

    /// The next piece, read from the connection if nothing is in the buffer.
    pub(super) async fn next(
        &mut self,
        worker: &Worker,
        buf: &mut Buf,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Piece>, BodyError> {
        loop {
            if matches!(self, Http1Framing::Done) {
                return Ok(None);
            }
            if !buf.is_empty()
                && let Some(piece) = self.take(buf)?
            {
                return Ok(Some(piece));
            }
            if matches!(self, Http1Framing::Done) {
                return Ok(None);
            }
            buf.make_room(BUFFER_BYTES);
            match poll_fn(|cx| reader.poll_fill(cx, &worker.buffers, buf)).await {
                Ok(read) if read > 0 => {}
                Ok(_) if matches!(self, Http1Framing::UntilClose) => *self = Http1Framing::Done,
                _ => return Err(BodyError::Gone),
            }
        }
    }

    fn take(&mut self, buf: &mut Buf) -> Result<Option<Piece>, Reject> {
        let (piece, used, done) = match self {
            Http1Framing::Done => (None, 0, true),
            Http1Framing::UntilClose => (Some(copy(buf.filled())), buf.len(), false),
            Http1Framing::Length(left) => {
                let len = (*left).min(buf.len() as u64) as usize;
                *left -= len as u64;
                (Some(copy(&buf.filled()[..len])), len, *left == 0)
            }
            Http1Framing::Chunked(decoder) => match decoder.step(buf.filled())? {
                Step::Data(data, used) => (Some(copy(data)), used, false),
                Step::More => (None, buf.len(), false),
                Step::End(used) => (trailers(decoder), used, true),
            },
        };
        buf.consume(used);
        if done {
            *self = Http1Framing::Done;
        }
        Ok(piece)
    }
}

fn copy(bytes: &[u8]) -> Piece {
    Piece::Data(Bytes::copy_from_slice(bytes))
}

fn trailers(decoder: &ChunkDecoder) -> Option<Piece> {
    let mut trailers = Fields::new();
    decoder.trailers(|name, value| {
        // What cannot stand in HTTP/2 does not cross.
        let _ = trailers.try_append(name.as_bytes(), value);
    });
    (!trailers.is_empty()).then_some(Piece::Trailers(trailers))
}
