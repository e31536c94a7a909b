//! Where a response goes.

use std::io;

use bytes::Bytes;
use weir_codec::http1::Version;
use weir_h2::{Fields, Reason, SendStream};

use super::target::{chunk, last_chunk};
use super::{ResponseHead, fields, grpc};
use crate::http1::{Facts, reason_phrase, write_answer};
use crate::io::{Reader, Writer};
use crate::phases::Answer;
use crate::worker::Leaving;

/// A caller, waiting for a response.
pub(crate) enum Sink<'a> {
    /// On an HTTP/2 stream.
    Http2 { stream: SendStream, grpc: bool, to_head: bool },
    /// On an HTTP/1 connection.
    Http1(Http1Sink<'a>),
}

/// A caller on an HTTP/1 connection.
pub(crate) struct Http1Sink<'a> {
    writer: Writer<'a>,
    version: Version,
    to_head: bool,
    persists: bool,
    leaving: Leaving<'a>,
    coding: Coding,
    /// Where to see that the caller has broken off, as long as that is watched for.
    watched: Option<Reader<'a>>,
}

/// How an HTTP/1 body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// There is none, or its length was told.
    Plain,
    /// In chunks.
    Chunked,
    /// It ends when the connection is closed; reset, it has broken off.
    UntilClose,
}

impl<'a> Sink<'a> {
    pub(crate) fn http2(stream: SendStream, grpc: bool, to_head: bool) -> Self {
        Sink::Http2 { stream, grpc, to_head }
    }

    pub(crate) fn http1(writer: Writer<'a>, facts: &Facts, leaving: Leaving<'a>, watched: Option<Reader<'a>>) -> Self {
        Sink::Http1(Http1Sink {
            writer,
            version: facts.version,
            to_head: facts.to_head,
            persists: facts.persists,
            leaving,
            coding: Coding::Plain,
            watched,
        })
    }

    /// Sends the head; `over` if no body follows.
    pub(super) async fn head(&mut self, response: ResponseHead, over: bool) -> io::Result<()> {
        match self {
            Sink::Http2 { stream, .. } => Ok(stream.send_head(response.status, &response.fields, over)?),
            Sink::Http1(sink) => sink.head(response, over).await,
        }
    }

    /// Sends data; `last` if nothing follows.
    pub(super) async fn data(&mut self, data: Bytes, last: bool) -> io::Result<()> {
        match self {
            Sink::Http2 { stream, .. } => Ok(stream.data(data, last).await?),
            Sink::Http1(sink) => sink.data(&data, last).await,
        }
    }

    /// Ends a body that has not ended with data.
    pub(super) async fn end(&mut self, trailers: Option<Fields>) -> io::Result<()> {
        match (self, trailers) {
            (Sink::Http2 { stream, .. }, Some(trailers)) => Ok(stream.trailers(&trailers)?),
            (Sink::Http2 { stream, .. }, None) => Ok(stream.data(Bytes::new(), true).await?),
            (Sink::Http1(sink), trailers) => sink.end(trailers.as_ref()).await,
        }
    }

    /// Answers in the upstream's place. Nothing has been sent yet.
    pub(crate) async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        match self {
            Sink::Http2 { grpc: true, .. } => self.head(grpc::trailers_only(answer), true).await,
            Sink::Http2 { to_head, .. } => {
                let bodiless = *to_head || answer.body.is_empty() || matches!(answer.status, 204 | 304);
                let body = Bytes::copy_from_slice(answer.body.as_bytes());
                self.head(plain(answer), bodiless).await?;
                if bodiless { Ok(()) } else { self.data(body, true).await }
            }
            Sink::Http1(sink) => sink.answer(answer).await,
        }
    }

    /// Breaks a response off, in a way the caller cannot take for its end.
    pub(super) fn reset(&mut self) {
        match self {
            Sink::Http2 { stream, .. } => stream.reset(Reason::INTERNAL_ERROR),
            Sink::Http1(sink) => sink.persists = false,
        }
    }

    /// Resolves when the caller no longer wants the response.
    pub(super) fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        match self {
            Sink::Http2 { stream, .. } => stream.poll_gone(cx).is_ready(),
            Sink::Http1(sink) => sink.poll_gone(cx),
        }
    }

    /// True if the caller's connection can be used again.
    pub(super) fn persists(&self) -> bool {
        match self {
            Sink::Http2 { .. } => true,
            Sink::Http1(sink) => sink.persists,
        }
    }

    /// The body the caller sends will not be read to its end.
    pub(super) fn end_after_this(&mut self) {
        if let Sink::Http1(sink) = self {
            sink.persists = false;
        }
    }
}

fn plain(answer: &Answer) -> ResponseHead {
    let mut fields = Fields::new();
    fields.append("content-length", answer.body.len().to_string());
    if !answer.body.is_empty() {
        fields.append("content-type", "text/plain");
    }
    if let Some(location) = &answer.location {
        // Where it cannot stand in a field, the status alone has to do.
        let _ = fields.try_append(b"location", location.as_bytes());
    }
    ResponseHead { status: answer.status, fields }
}

impl Http1Sink<'_> {
    fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let Some(caller) = &mut self.watched else { return false };
        let mut watch = true;
        let gone = caller.poll_reset(cx, &mut watch);
        if !watch {
            self.watched = None;
        }
        gone
    }

    async fn head(&mut self, response: ResponseHead, over: bool) -> io::Result<()> {
        self.persists &= !self.leaving.now();
        let status = response.status;
        let bodiless = self.to_head || matches!(status, 204 | 304);
        let mut out = format!("HTTP/1.1 {} {}\r\n", status, reason_phrase(status)).into_bytes();
        fields::write_http1(&mut out, &response.fields);
        if !bodiless && !response.fields.contains("content-length") {
            self.frame(&mut out, over);
        }
        out.extend_from_slice(self.connection_field());
        out.extend_from_slice(b"\r\n");
        self.writer.write_all(&out, b"").await
    }

    fn frame(&mut self, out: &mut Vec<u8>, over: bool) {
        match self.version {
            _ if over => fields::line(out, b"content-length", b"0"),
            Version::Http11 => {
                fields::line(out, b"transfer-encoding", b"chunked");
                self.coding = Coding::Chunked;
            }
            Version::Http10 => {
                self.persists = false;
                self.coding = Coding::UntilClose;
                self.writer.reset_on_close(true);
            }
        }
    }

    fn connection_field(&self) -> &'static [u8] {
        match (self.persists, self.version) {
            (false, _) => b"connection: close\r\n",
            (true, Version::Http10) => b"connection: keep-alive\r\n",
            (true, Version::Http11) => b"",
        }
    }

    async fn data(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        match self.coding {
            _ if self.to_head => Ok(()),
            Coding::Plain => self.writer.write_all(data, b"").await,
            Coding::UntilClose => {
                self.writer.write_all(data, b"").await?;
                if last { self.end(None).await } else { Ok(()) }
            }
            Coding::Chunked => {
                let framed = if data.is_empty() { Vec::new() } else { chunk(data) };
                let end = if last { last_chunk(None) } else { Vec::new() };
                self.writer.write_all(&framed, &end).await
            }
        }
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        match self.coding {
            Coding::Chunked if !self.to_head => self.writer.write_all(&last_chunk(trailers), b"").await,
            Coding::UntilClose => {
                self.writer.reset_on_close(false);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.persists &= !self.leaving.now();
        let mut out = Vec::new();
        write_answer(&mut out, answer, self.connection_field(), self.to_head);
        self.writer.write_all(&out, b"").await
    }
}
