//! The smallest HTTP/1.1 client that serves a test: one request, one connection, the whole answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer within this is an answer too.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Larger answers are refused: no test needs them.
const MAX_BYTES: u64 = 64 << 20;

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// E.g. 200.
    pub status: u16,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded if it was chunked.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// `GET path`.
///
/// # Errors
/// What the socket says, or [`io::ErrorKind::InvalidData`] if the answer is no HTTP.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    send(address, "GET", path, &[], b"")
}

/// Any request. `Host`, `Content-Length` and `Connection: close` are added unless given.
///
/// # Errors
/// As [`get`].
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&request(address, method, path, headers, body))?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer)?;
    parse(&answer)
}

fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let given = |name: &str| headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let own =
        [("Host", address.to_string()), ("Connection", "close".into()), ("Content-Length", body.len().to_string())];
    for (name, value) in own.iter().filter(|(name, _)| !given(name)) {
        head += &format!("{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn parse(answer: &[u8]) -> io::Result<Response> {
    let (head, rest) = split(answer, b"\r\n\r\n").ok_or_else(|| broken("no complete head", answer))?;
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| broken("no status", answer))?;
    if (100..200).contains(&status) && status != 101 {
        return parse(rest);
    }
    let headers: Vec<_> = lines.filter_map(header).collect();
    let body = body(&headers, rest)?;
    Ok(Response { status, headers, body })
}

fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn body(headers: &[(String, String)], rest: &[u8]) -> io::Result<Vec<u8>> {
    let value = |name: &str| headers.iter().find(|(have, _)| have == name).map(|(_, value)| value);
    if value("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        return chunks(rest);
    }
    match value("content-length").map(|length| length.parse::<usize>()) {
        Some(Ok(length)) if length <= rest.len() => Ok(rest[..length].to_vec()),
        // An answer to HEAD has a length and no body; a body that broke off is the caller's to see.
        Some(Ok(_)) if rest.is_empty() => Ok(Vec::new()),
        Some(_) => Err(broken("the body broke off", rest)),
        None => Ok(rest.to_vec()),
    }
}

fn chunks(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (size, after) = split(rest, b"\r\n").ok_or_else(|| broken("no chunk size", rest))?;
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|size| usize::from_str_radix(size.split(';').next()?.trim(), 16).ok())
            .ok_or_else(|| broken("bad chunk size", rest))?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = after.get(..size).ok_or_else(|| broken("the chunk broke off", after))?;
        body.extend_from_slice(chunk);
        rest = after.get(size + 2..).ok_or_else(|| broken("no end of chunk", after))?;
    }
}

fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

fn broken(why: &str, bytes: &[u8]) -> io::Error {
    let seen = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    io::Error::new(io::ErrorKind::InvalidData, format!("{why} in {seen:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_chunks_and_interim_answers() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!((plain.status, plain.text()), (200, "hi".to_owned()));
        let chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\n\r\n";
        let chunked = parse(chunked).unwrap();
        assert_eq!((chunked.status, chunked.text()), (201, "hi!".to_owned()));
        assert_eq!(chunked.header("transfer-encoding"), Some("chunked"));
    }

    #[test]
    fn a_body_that_broke_off_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"").is_err());
    }
}
