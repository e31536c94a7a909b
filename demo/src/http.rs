//! The little HTTP/1.1 (RFC 9112) that the demo needs: GET, bodies with a Content-Length, keep-alive.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest head that is read, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest body that is read, bytes.
const MAX_BODY: usize = 1024 * 1024;
/// Most header fields in a head.
const MAX_HEADERS: usize = 64;

/// A connection, and what was read from it and not used yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request's head; its body has been read and dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// `traceparent` as it came: an application passes it on, so that its calls belong to the same trace.
    pub traceparent: Option<String>,
    /// The peer will send another request on this connection.
    pub keep_alive: bool,
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// The connection may be used again.
    pub keep_alive: bool,
}

/// Why no response came.
#[derive(Debug)]
pub enum NoResponse {
    /// The connection ended before the first byte: the request may be sent again elsewhere (RFC 9112, 9.3.1).
    Nothing(io::Error),
    /// It ended in the middle, or what came is not HTTP.
    Broken(io::Error),
}

/// What the heads of requests and responses share.
struct Head {
    length: usize,
    content_length: usize,
    keep_alive: bool,
    traceparent: Option<String>,
}

impl Connection {
    /// Wraps a connected stream.
    pub fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(2048) })
    }

    /// False if the peer has closed the idle connection, or has sent what nobody asked for.
    pub fn usable(&self) -> bool {
        let mut byte = [0];
        let quiet = self.stream.try_read(&mut byte).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        quiet && self.buffer.is_empty()
    }

    /// Waits for bytes of a next message; false at the end of the stream. Loses nothing when dropped.
    pub async fn readable(&mut self) -> io::Result<bool> {
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads a request whole.
    pub async fn request(&mut self) -> io::Result<Request> {
        let (head, path) = self.head(parse_request).await?;
        self.body(&head).await?;
        Ok(Request { path, traceparent: head.traceparent, keep_alive: head.keep_alive })
    }

    /// Reads a response whole.
    pub async fn response(&mut self) -> Result<Response, NoResponse> {
        match self.readable().await {
            Ok(true) => {}
            Ok(false) => return Err(NoResponse::Nothing(ended())),
            Err(error) => return Err(NoResponse::Nothing(error)),
        }
        let (head, status) = self.head(parse_response).await.map_err(NoResponse::Broken)?;
        let body = self.body(&head).await.map_err(NoResponse::Broken)?;
        Ok(Response { status, body, keep_alive: head.keep_alive })
    }

    async fn head<T>(&mut self, parse: impl Fn(&[u8]) -> io::Result<Option<(Head, T)>>) -> io::Result<(Head, T)> {
        loop {
            if let Some(parsed) = parse(&self.buffer)? {
                return Ok(parsed);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(invalid("the head is longer than 16 KiB"));
            }
            self.fill().await?;
        }
    }

    async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if head.content_length > MAX_BODY {
            return Err(invalid("the body is longer than 1 MiB"));
        }
        let end = head.length + head.content_length;
        while self.buffer.len() < end {
            self.fill().await?;
        }
        let body = self.buffer[head.length..end].to_vec();
        self.buffer.drain(..end);
        Ok(body)
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 { Err(ended()) } else { Ok(()) }
    }
}

fn parse_request(bytes: &[u8]) -> io::Result<Option<(Head, String)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(invalid)? else { return Ok(None) };
    let path = request.path.unwrap_or("/").to_owned();
    let minor = request.version.unwrap_or(0);
    Ok(Some((head_of(length, minor, request.headers)?, path)))
}

fn parse_response(bytes: &[u8]) -> io::Result<Option<(Head, u16)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(invalid)? else { return Ok(None) };
    let status = response.code.unwrap_or(0);
    let minor = response.version.unwrap_or(0);
    Ok(Some((head_of(length, minor, response.headers)?, status)))
}

fn head_of(length: usize, minor: u8, fields: &[httparse::Header<'_>]) -> io::Result<Head> {
    let mut head = Head { length, content_length: 0, keep_alive: minor == 1, traceparent: None };
    for field in fields {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            head.content_length = value.parse().map_err(invalid)?;
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.keep_alive &= !value.eq_ignore_ascii_case("close");
        } else if field.name.eq_ignore_ascii_case("traceparent") {
            head.traceparent = Some(value.to_owned());
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("chunked bodies are more than the demo understands"));
        }
    }
    Ok(head)
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_whether_the_connection_stays() {
        let keeps = |text: &str| parse_response(text.as_bytes()).unwrap().unwrap().0.keep_alive;
        assert!(keeps("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\n\r\n"));
    }

    #[test]
    fn an_unfinished_head_asks_for_more_and_nonsense_is_refused() {
        assert!(parse_request(b"GET / HTTP/1.1\r\nHost: a").unwrap().is_none());
        assert!(parse_request(b"\x00\x01\x02\r\n\r\n").is_err());
        assert!(parse_response(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
    }
}
