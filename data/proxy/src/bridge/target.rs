//! Where a request's body goes.

use std::cell::Cell;
use std::io;

use bytes::Bytes;
use weir_h2::{Fields, SendStream};

use super::body::{BodyError, Piece, RequestBody};
use super::fields;
use crate::io::Writer;
use crate::upstream::Progress;

/// The sending side of an upstream.
pub(super) enum Target<'a> {
    /// An HTTP/2 stream.
    Http2(SendStream),
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
            Target::Http2(stream) => Ok(stream.data(data, false).await?),
            Target::Http1 { writer, chunked: false } => writer.write_all(&data, b"").await,
            Target::Http1 { .. } if data.is_empty() => Ok(()),
            Target::Http1 { writer, chunked: true } => {
                let framed = chunk(&data);
                writer.write_all(&framed, b"").await
            }
        }
    }

    async fn end(&mut self, trailers: Option<Fields>) -> io::Result<()> {
        match (self, trailers) {
            (Target::Http2(stream), Some(trailers)) => Ok(stream.trailers(&trailers)?),
            (Target::Http2(stream), None) => Ok(stream.data(Bytes::new(), true).await?),
            (Target::Http1 { chunked: false, .. }, _) => Ok(()),
            (Target::Http1 { writer, chunked: true }, trailers) => {
                writer.write_all(&last_chunk(trailers.as_ref()), b"").await
            }
        }
    }
}

/// Data as one chunk.
pub(super) fn chunk(data: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", data.len()).into_bytes();
    framed.extend_from_slice(data);
    framed.extend_from_slice(b"\r\n");
    framed
}

/// The end of a chunked body.
pub(super) fn last_chunk(trailers: Option<&Fields>) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    if let Some(trailers) = trailers {
        fields::write_http1(&mut out, trailers);
    }
    out.extend_from_slice(b"\r\n");
    out
}
