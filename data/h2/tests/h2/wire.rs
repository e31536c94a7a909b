//! A peer that speaks in bytes, and a server that it speaks to.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};
use weir_h2::{Config, Fields, PREFACE, Reason, Request, ServerConnection};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `GET http://a/` as a header block.
pub const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];
/// `POST http://a/`.
pub const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'a'];

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A request without a body.
pub fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// A request whose body follows.
pub fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, POST)
}

/// A literal field that is not to be remembered.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// What a client begins with, and then these frames.
pub fn hello(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat()
}

/// How a peer is told of what it did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Reset(u32, Reason),
    Goaway(Reason),
}

/// The first complaint among frames.
pub fn told(frames: &[Frame]) -> Told {
    let code = |payload: &[u8]| Reason(u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap()));
    let complaint = frames.iter().find_map(|frame| match frame.kind {
        RST_STREAM => Some(Told::Reset(frame.stream, code(&frame.payload))),
        GOAWAY => Some(Told::Goaway(code(&frame.payload))),
        _ => None,
    });
    complaint.unwrap_or(Told::Nothing)
}

/// Frames that came until the connection ended, or until a ping of ours was answered.
pub async fn frames_until_answered(peer: &mut DuplexStream) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = next_frame(peer).await {
        if frame.kind == PING && frame.flags == 1 && frame.payload == *b"the last" {
            break;
        }
        frames.push(frame);
    }
    frames
}

pub async fn next_frame(peer: &mut DuplexStream) -> Option<Frame> {
    let mut head = [0; 9];
    let read = tokio::time::timeout(Duration::from_secs(60), peer.read_exact(&mut head)).await;
    read.expect("the server answers").ok()?;
    let [a, b, c, kind, flags, d, e, f, g] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    peer.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes([d, e, f, g]), payload })
}

/// What the server makes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It reads the body and sends it back, with the trailers.
    Echo,
    /// It holds requests and does nothing.
    Hold,
}

/// Serves a connection until it ends.
pub async fn serve(mut connection: ServerConnection<DuplexStream>, does: Does) {
    let mut held = Vec::new();
    while let Some(Ok(request)) = poll_fn(|cx| connection.poll_accept(cx)).await {
        match does {
            Does::Hold => held.push(request),
            Does::Echo => {
                spawn_local(async move {
                    let _ = echo(request).await;
                });
            }
        }
    }
}

/// Sends a request's body back.
pub async fn echo(request: Request) -> Result<(), weir_h2::Error> {
    let Request { head, mut body, mut respond } = request;
    let mut fields = Fields::new();
    fields.append("x-method", head.method());
    fields.append("x-path", head.path().unwrap_or_default());
    for value in head.fields.get_all("x-mine") {
        fields.append("x-mine", value);
    }
    respond.send_head(200, &fields, false)?;
    while let Some(data) = body.data().await {
        respond.data(data?, false).await?;
    }
    match body.trailers().await? {
        Some(trailers) => respond.trailers(&trailers),
        None => respond.data(Bytes::new(), true).await,
    }
}

/// Sends bytes to a server and returns what it says, up to the end of the connection or the answer to a last ping.
pub fn say_to(config: Config, does: Does, pieces: &[&[u8]]) -> Vec<Frame> {
    let (mut peer, io) = duplex(1 << 22);
    run(async move {
        let server = spawn_local(serve(weir_h2::accept(io, config), does));
        for piece in pieces {
            // A server that has seen enough reads no more.
            let _ = peer.write_all(piece).await;
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
        // If it is over already, this is not read any more.
        let _ = peer.write_all(&frame(PING, 0, 0, b"the last")).await;
        let frames = frames_until_answered(&mut peer).await;
        server.abort();
        frames
    })
}

pub fn say(frames: &[Vec<u8>]) -> Vec<Frame> {
    say_to(Config::default(), Does::Echo, &[&hello(frames)])
}

/// Runs on one thread.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}
