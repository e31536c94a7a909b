//! A keep-alive client as every HTTP library has one.
//!
//! It keeps idle connections and uses them again. A kept connection may be closed by the peer at any time: when that
//! happens before a byte of the response came, the request (always GET here, which is safe to repeat) is sent once
//! more on a new connection, as RFC 9112 sections 9.3.1 and 9.5 describe. Such repetitions are told to the caller.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::http::{Connection, NoResponse, Response};

/// Idle connections kept for each peer.
const MAX_IDLE: usize = 256;

/// Calls one peer.
#[derive(Debug)]
pub struct Client {
    peer: SocketAddr,
    host: String,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

/// A response, and how it was come by.
#[derive(Debug)]
pub struct Answer {
    /// What came.
    pub response: Response,
    /// A kept connection had been closed, and the request was repeated on a new one.
    pub repeated: bool,
}

/// Why a call failed.
#[derive(Debug)]
pub enum Failure {
    /// No connection could be made.
    Connect(io::Error),
    /// The connection broke before the response was whole.
    Reset(io::Error),
    /// No response in time.
    Timeout,
}

impl Failure {
    /// One word, for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Connect(_) => "connect",
            Failure::Reset(_) => "reset",
            Failure::Timeout => "timeout",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Connect(error) => write!(f, "cannot connect: {error}"),
            Failure::Reset(error) => write!(f, "the connection broke: {error}"),
            Failure::Timeout => f.write_str("no response in time"),
        }
    }
}

impl Client {
    /// A client of `peer`, naming it `host`, waiting `timeout` for each response.
    pub fn new(peer: SocketAddr, host: impl Into<String>, timeout: Duration) -> Client {
        Client { peer, host: host.into(), timeout, idle: Mutex::default() }
    }

    /// GETs a path.
    ///
    /// # Errors
    /// If no whole response came in time; a status of 500 is a response.
    pub async fn get(&self, path: &str, traceparent: Option<&str>) -> Result<Answer, Failure> {
        let request = self.request(path, traceparent);
        tokio::time::timeout(self.timeout, self.call(request.as_bytes())).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn call(&self, request: &[u8]) -> Result<Answer, Failure> {
        if let Some(kept) = self.take_idle() {
            match self.exchange(kept, request).await {
                Err(NoResponse::Nothing(_)) => {}
                result => return result.map(|response| Answer { response, repeated: false }).map_err(broken),
            }
            let response = self.exchange(self.connect().await?, request).await.map_err(broken)?;
            return Ok(Answer { response, repeated: true });
        }
        let response = self.exchange(self.connect().await?, request).await.map_err(broken)?;
        Ok(Answer { response, repeated: false })
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.peer).await;
        stream.and_then(Connection::new).map_err(Failure::Connect)
    }

    async fn exchange(&self, mut connection: Connection, request: &[u8]) -> Result<Response, NoResponse> {
        connection.send(request).await.map_err(NoResponse::Nothing)?;
        let response = connection.response().await?;
        if response.keep_alive {
            self.keep(connection);
        }
        Ok(response)
    }

    fn request(&self, path: &str, traceparent: Option<&str>) -> String {
        let trace = traceparent.map(|t| format!("traceparent: {t}\r\n")).unwrap_or_default();
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{trace}\r\n", self.host)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.lock();
        loop {
            let connection = idle.pop()?;
            if connection.usable() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken(error: NoResponse) -> Failure {
    match error {
        NoResponse::Nothing(error) | NoResponse::Broken(error) => Failure::Reset(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

    /// Answers `answers[n]` requests on the n-th connection; after them it reads one more request and closes.
    async fn peer(answers: &'static [usize]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for requests in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                for _ in 0..*requests {
                    assert!(stream.read(&mut buffer).await.unwrap() > 0);
                    stream.write_all(OK).await.unwrap();
                }
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
            }
        });
        address
    }

    fn client(address: SocketAddr) -> Client {
        Client::new(address, "peer", Duration::from_secs(60))
    }

    #[tokio::test]
    async fn a_kept_connection_that_closes_is_replaced_once() {
        let client = client(peer(&[1, 1]).await);
        assert!(!client.get("/", None).await.unwrap().repeated);
        assert!(client.get("/", None).await.unwrap().repeated, "the first connection closed on the second request");
    }

    #[tokio::test]
    async fn a_new_connection_that_closes_is_a_failure() {
        let client = client(peer(&[0]).await);
        assert_eq!(client.get("/", None).await.unwrap_err().word(), "reset");
    }
}
