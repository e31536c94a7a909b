//! Whatever a peer sends, either end of a connection stays within its bounds and says only whole frames.
#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weir_h2::{Config, Fields, PREFACE, RecvStream, Request, RequestLine, SendStream};

/// A client's or a server's first frame: SETTINGS that say nothing.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What the peer sends, in pieces of a size, and what it is told.
struct Pipe<'a> {
    input: &'a [u8],
    piece: usize,
    output: Vec<u8>,
}

impl AsyncRead for Pipe<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (piece, rest) = self.input.split_at(self.piece.min(self.input.len()).min(out.remaining()));
        out.put_slice(piece);
        self.input = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        let mut output = self.output.strip_prefix(PREFACE).unwrap_or(&self.output);
        while let Some((head, rest)) = output.split_first_chunk::<9>() {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            assert!(head[3] <= 9 && len <= 16_384);
            output = &rest[len..];
        }
        assert!(output.is_empty());
    }
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (server, piece, bytes) = input;
    let piece = usize::from(piece) + 1;
    let config = Config { max_streams: 8, max_header_list_bytes: 2000, ..Config::default() };
    let mut cx = Context::from_waker(Waker::noop());
    match server {
        true => serve(&[PREFACE, &SETTINGS, bytes].concat(), piece, config, &mut cx),
        false => ask(&[&SETTINGS, bytes].concat(), piece, config, &mut cx),
    }
});

fn serve(input: &[u8], piece: usize, config: Config, cx: &mut Context<'_>) {
    let mut connection = weir_h2::accept(Pipe { input, piece, output: Vec::new() }, config);
    let mut requests: Vec<Request> = Vec::new();
    for turn in 0..input.len() {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(request))) => {
                assert!(!request.head.method().is_empty());
                requests.push(request);
            }
            Poll::Ready(_) => break,
            Poll::Pending => {}
        }
        assert!(requests.len() <= 8, "more streams than allowed");
        // Some are answered, some kept, some let go.
        requests.retain_mut(|request| turn % 3 != 0 || answer(request, turn, cx));
    }
}

fn answer(request: &mut Request, turn: usize, cx: &mut Context<'_>) -> bool {
    let _ = request.body.poll_data(cx);
    if turn % 5 == 0 {
        let _ = request.respond.send_head(200, &request.head.fields, false);
        let _ = request.respond.poll_data(cx, &mut Bytes::from_static(&[7; 20_000]), true);
    }
    turn % 4 != 0
}

fn ask(input: &[u8], piece: usize, config: Config, cx: &mut Context<'_>) {
    let (send, mut connection) = weir_h2::connect(Pipe { input, piece, output: Vec::new() }, config);
    let line = RequestLine { method: "PUT", scheme: "http", authority: "a", path: "/", content_length: None };
    let mut streams: Vec<(SendStream, RecvStream)> = Vec::new();
    for turn in 0..input.len() {
        if turn % 4 == 0 && streams.len() < 20 {
            streams.extend(send.send(&line, &Fields::new(), false));
        }
        for (sending, receiving) in &mut streams {
            let _ = sending.poll_data(cx, &mut Bytes::from_static(&[7; 1000]), false);
            let _ = receiving.poll_head(cx);
            let _ = receiving.poll_data(cx);
        }
        if turn % 7 == 0 {
            streams.pop();
        }
        if std::pin::pin!(&mut connection).poll(cx).is_ready() {
            break;
        }
    }
}
