//! SOFABolt and Dubbo: load and upstream of our own, since no common generator speaks them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cases::SMALL;
use crate::load::Counted;

/// As many as of HTTP/1.1, each with one request in flight, so that a frame is compared with a request.
const CONNECTIONS: usize = 64;
/// A frame is not longer than this (bytes).
const MAX_FRAME: usize = 8 * 1024;
/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Service and method make the path of the route that matches, `/api/small`.
const SERVICE: &str = "api";
const METHOD: &str = "small";

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// SOFABolt, version 1.
    Bolt,
    /// Dubbo 2.
    Dubbo,
}

impl Protocol {
    /// A frame up to its variable part: 22 bytes of a Bolt request, 20 of its answer, 16 of Dubbo's either way.
    fn head(self, request: bool) -> usize {
        match (self, request) {
            (Protocol::Bolt, true) => 22,
            (Protocol::Bolt, false) => 20,
            (Protocol::Dubbo, _) => 16,
        }
    }

    /// Length of the frame that begins so; `None` while its head is not there.
    fn frame(self, bytes: &[u8], request: bool) -> Option<usize> {
        let head = self.head(request);
        let short = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let long = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        (bytes.len() >= head).then(|| match self {
            Protocol::Bolt => head + short(head - 8) + short(head - 6) + long(head - 4),
            Protocol::Dubbo => head + long(12),
        })
    }

    /// Where a frame's id lies.
    fn id(self) -> std::ops::Range<usize> {
        match self {
            Protocol::Bolt => 5..9,
            Protocol::Dubbo => 4..12,
        }
    }

    /// A request with an id of zero.
    fn request(self) -> Vec<u8> {
        match self {
            Protocol::Bolt => bolt_request(),
            Protocol::Dubbo => dubbo_request(),
        }
    }

    /// The answer to a request with an id of zero.
    fn answer(self) -> Vec<u8> {
        match self {
            Protocol::Bolt => {
                let class = b"com.alipay.sofa.rpc.core.response.SofaResponse";
                let head = [&[1, 0, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0][..], &lengths(class.len(), 0, SMALL)].concat();
                [&head[..], class, &[b'x'; SMALL]].concat()
            }
            Protocol::Dubbo => {
                let body = [&[0x91][..], &text(&"x".repeat(SMALL))].concat();
                dubbo(0x02, 20, &body)
            }
        }
    }

    /// Whether it is an answer that says that all is well.
    fn is_ok(self, frame: &[u8]) -> bool {
        match self {
            Protocol::Bolt => frame[..5] == [1, 0, 0, 2, 1] && frame[10..12] == [0, 0],
            Protocol::Dubbo => frame[..2] == [0xda, 0xbb] && frame[2] & 0x80 == 0 && frame[3] == 20,
        }
    }
}

/// Lengths of class, header and content, as they end a Bolt head.
fn lengths(class: usize, header: usize, content: usize) -> Vec<u8> {
    [&(class as u16).to_be_bytes()[..], &(header as u16).to_be_bytes(), &(content as u32).to_be_bytes()].concat()
}

fn bolt_request() -> Vec<u8> {
    let class = b"com.alipay.sofa.rpc.core.request.SofaRequest";
    let pairs = [("service", SERVICE), ("sofa_head_target_service", SERVICE), ("sofa_head_method_name", METHOD)];
    let counted = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let header = pairs.map(|(key, value)| [counted(key), counted(value)].concat()).concat();
    let timeout = 10_000_u32.to_be_bytes();
    let start = [&[1, 1, 0, 1, 1, 0, 0, 0, 0, 1][..], &timeout].concat();
    [&start[..], &lengths(class.len(), header.len(), SMALL), class, &header, &[b'x'; SMALL]].concat()
}

fn dubbo_request() -> Vec<u8> {
    let told = ["2.0.2", SERVICE, "0.0.0", METHOD, "Ljava/lang/String;"].map(text).concat();
    let attachments = [&b"H"[..], &text("path"), &text(SERVICE), &text("interface"), &text(SERVICE), b"Z"].concat();
    dubbo(0xc2, 0, &[told, text(&"x".repeat(SMALL)), attachments].concat())
}

/// 0xdabb, flags, status, an id of zero, the length, the body.
fn dubbo(flags: u8, status: u8, body: &[u8]) -> Vec<u8> {
    [&[0xda, 0xbb, flags, status][..], &[0; 8], &(body.len() as u32).to_be_bytes(), body].concat()
}

/// A string of Hessian 2, of up to 1,023 characters.
fn text(text: &str) -> Vec<u8> {
    let length = match text.len() {
        short @ 0..32 => vec![short as u8],
        long => vec![0x30 + (long >> 8) as u8, long as u8],
    };
    [&length[..], text.as_bytes()].concat()
}

/// Calls for so many seconds.
///
/// # Errors
/// The first call that fails, is answered with an error, or is not answered.
pub fn run(protocol: Protocol, address: SocketAddr, seconds: u32) -> Result<Counted, String> {
    let failed = |error: io::Error| format!("{protocol:?} calls: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let requests = runtime.block_on(async {
        let mut callers = JoinSet::new();
        (0..CONNECTIONS).for_each(|_| drop(callers.spawn(call(protocol, address, until))));
        let mut requests = 0;
        while let Some(called) = callers.join_next().await {
            requests += called.map_err(io::Error::other)??;
        }
        Ok(requests)
    });
    let requests = requests.map_err(failed)?;
    Ok(Counted { requests, rps: requests as f64 / f64::from(seconds) })
}

async fn call(protocol: Protocol, address: SocketAddr, until: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut request, mut answer, mut calls) = (protocol.request(), Vec::new(), 0_u64);
    while Instant::now() < until {
        let id = protocol.id();
        request[id.end - 4..id.end].copy_from_slice(&(calls as u32).to_be_bytes());
        stream.write_all(&request).await?;
        tokio::time::timeout(PATIENCE, read_frame(&mut stream, &mut answer, protocol, false)).await??;
        if !protocol.is_ok(&answer) || answer[id.clone()] != request[id] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an error, or another's answer"));
        }
        answer.clear();
        calls += 1;
    }
    Ok(calls)
}

/// Reads one frame, and nothing behind it: there is none before it is answered.
async fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>, protocol: Protocol, request: bool) -> io::Result<()> {
    while protocol.frame(frame, request).is_none_or(|length| frame.len() < length) {
        if stream.read_buf(frame).await? == 0 || frame.len() > MAX_FRAME {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Answers frames, of which many may come at once, each with its own id.
///
/// # Errors
/// If the connection breaks, or a frame is too long.
pub async fn answer(mut stream: TcpStream, protocol: Protocol) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (template, id) = (protocol.answer(), protocol.id());
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    loop {
        read_frame(&mut stream, &mut received, protocol, true).await?;
        let mut used = 0;
        while let Some(length) = protocol.frame(&received[used..], true)
            && received.len() - used >= length
        {
            let from = answers.len();
            answers.extend_from_slice(&template);
            answers[from + id.start..from + id.end].copy_from_slice(&received[used + id.start..used + id.end]);
            used += length;
        }
        stream.write_all(&answers).await?;
        answers.clear();
        received.drain(..used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_they_say() {
        for protocol in [Protocol::Bolt, Protocol::Dubbo] {
            let (request, answer) = (protocol.request(), protocol.answer());
            assert_eq!(protocol.frame(&request, true), Some(request.len()));
            assert_eq!(protocol.frame(&answer, false), Some(answer.len()));
            assert_eq!(protocol.frame(&answer[..10], false), None);
            assert!(protocol.is_ok(&answer) && !protocol.is_ok(&request));
        }
    }
}
