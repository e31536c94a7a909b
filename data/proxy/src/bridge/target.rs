//! Where a request's body goes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use super::body::{BodyError, Piece, RequestBody};
use super::fields;
use crate::io::Writer;
use crate::upstream::Progress;

/// The sending side of an upstream.
pub(super) enum Target<'a> {
    /// An HTTP/2 stream.
    Http2(SendStream<Bytes>),
    /// An HTTP/1 connection; in chunks, unless the length was announced.
    Http1 { writer: Writer<'a>, chunked: bool },
}

/// Why an upload ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadError {
    /// For the body's sake.
    Body(BodyError),
    /// The upstream takes no more.
    Upstream,
}

impl Target<'_> {
    /// Sends a body. `kept`: see [`RequestBody::next`].
    pub(super) async fn send(
        &mut self,
        body: &mut RequestBody<'_>,
        progress: &Progress,
        kept: &Cell<bool>,
    ) -> Result<(), UploadError> {
        while let Some(piece) = body.next(kept).await.map_err(UploadError::Body)? {
            progress.note();
            match piece {
                Piece::Data(data) => self.data(data).await.map_err(|_| UploadError::Upstream)?,
                Piece::Trailers(trailers) => return self.end(Some(trailers)).await.map_err(|_| UploadError::Upstream),
            }
            progress.note();
        }
        self.end(None).await.map_err(|_| UploadError::Upstream)
    }

    async fn data(&mut self, data: Bytes) -> io::Result<()> {
        match self {
            Target::Http2(stream) => send_http2(stream, data).await,
            Target::Http1 { writer, chunked: false } => writer.write_all(&data, b"").await,
            Target::Http1 { .. } if data.is_empty() => Ok(()),
            Target::Http1 { writer, chunked: true } => {
                let framed = chunk(&data);
                writer.write_all(&framed, b"").await
            }
        }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match (self, trailers) {
            (Target::Http2(stream), Some(trailers)) => stream.send_trailers(trailers).map_err(io::Error::other),
            (Target::Http2(stream), None) => stream.send_data(Bytes::new(), true).map_err(io::Error::other),
            (Target::Http1 { chunked: false, .. }, _) => Ok(()),
            (Target::Http1 { writer, chunked: true }, trailers) => {
                writer.write_all(&last_chunk(trailers.as_ref()), b"").await
            }
        }
    }
}

/// Sends data as far as the peer's window allows, and waits for more room.
pub(super) async fn send_http2(stream: &mut SendStream<Bytes>, mut data: Bytes) -> io::Result<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            },
            room => room,
        };
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, false).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Data as one chunk.
pub(super) fn chunk(data: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", data.len()).into_bytes();
    framed.extend_from_slice(data);
    framed.extend_from_slice(b"\r\n");
    framed
}

/// The end of a chunked body.
pub(super) fn last_chunk(trailers: Option<&HeaderMap>) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    if let Some(trailers) = trailers {
        fields::write_http1(&mut out, trailers);
    }
    out.extend_from_slice(b"\r\n");
    out
}
