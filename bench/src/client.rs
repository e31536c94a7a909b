//! Connections of our own: those that stay idle, those that only shake hands.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::cases::{Case, Idle};
use crate::certificate::server_name;

/// Nobody waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer longer than this is none of ours (bytes).
const MAX_ANSWER: usize = 64 * 1024;
/// Threads that shake hands at a time.
const HANDSHAKERS: usize = 8;

/// A connection that carried one request and is kept open.
pub struct Kept(#[expect(dead_code, reason = "holds the connection open")] Box<dyn Send>);

/// Opens a connection and lets it carry one request.
///
/// # Errors
/// If it is not answered, or not with 200.
pub fn one(kind: Idle, address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<Kept> {
    Ok(match kind {
        Idle::Plain => Kept(Box::new(asked(connect(address)?)?)),
        Idle::Tls => Kept(Box::new(asked(encrypted(address, tls)?)?)),
        Idle::H2 => Kept(Box::new(asked_h2(connect(address)?)?)),
    })
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn encrypted(address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let connection = ClientConnection::new(tls.clone(), server_name()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, connect(address)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn asked<S: Read + Write>(mut stream: S) -> io::Result<S> {
    let request = format!("GET {} HTTP/1.1\r\nhost: bench\r\n\r\n", Case::H1Small.path());
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    read_until(&mut stream, &mut answer, |answer| answer.ends_with(&[b'x'; crate::cases::SMALL]))?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(stream) } else { Err(odd("another status than 200")) }
}

fn read_until(stream: &mut impl Read, answer: &mut Vec<u8>, done: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let mut chunk = [0; 4096];
    while !done(answer) {
        let read = stream.read(&mut chunk)?;
        if read == 0 || answer.len() > MAX_ANSWER {
            return Err(odd("no whole answer"));
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    Ok(())
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the target sent {what}"))
}

/// HTTP/2 by hand, as far as one request needs it (RFC 9113; header fields as literals, RFC 7541 section 6.2.2).
fn asked_h2(mut stream: TcpStream) -> io::Result<TcpStream> {
    let mut fields = vec![0x82, 0x86]; // :method GET, :scheme http
    for (name, value) in [(4_u8, Case::H1Small.path()), (1, "bench")] {
        fields.extend([name, value.len() as u8]); // :path, :authority by their index, values not indexed
        fields.extend_from_slice(value.as_bytes());
    }
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields))?;
    let mut received = Vec::new();
    read_until(&mut stream, &mut received, ended)?;
    stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
    Ok(stream)
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Whether the answer on stream 1 is whole: a frame of it (HEADERS or DATA) that ends the stream.
fn ended(received: &[u8]) -> bool {
    let mut rest = received;
    while let [a, b, c, kind, flags, _, _, _, stream, ..] = *rest {
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        if rest.len() < end {
            return false;
        }
        if stream == 1 && kind <= HEADERS && flags & END_STREAM != 0 {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

/// Shakes hands on one new connection after the other for so long; how often.
///
/// # Errors
/// The first handshake that fails.
pub fn shake_hands(address: SocketAddr, tls: &Arc<ClientConfig>, seconds: u32) -> Result<u64, String> {
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let run = || -> io::Result<u64> {
        let mut count = 0;
        while Instant::now() < until {
            let mut stream = encrypted(address, tls)?;
            stream.conn.send_close_notify();
            stream.conn.complete_io(&mut stream.sock)?;
            count += 1;
        }
        Ok(count)
    };
    let counts: io::Result<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..HANDSHAKERS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(odd("a panic")))).collect()
    });
    counts.map(|counts| counts.iter().sum()).map_err(|error| format!("handshake: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_the_flag_that_says_so() {
        let head = frame(HEADERS, END_HEADERS, 1, b"abc");
        let data = frame(0, END_STREAM, 1, b"xyz");
        let whole = [frame(SETTINGS, 0, 0, &[0; 6]), head.clone(), data.clone()].concat();
        assert!(ended(&whole));
        assert!(!ended(&whole[..whole.len() - 1]));
        assert!(!ended(&head));
        assert!(!ended(&frame(SETTINGS, ACK, 0, &[])));
    }
}
