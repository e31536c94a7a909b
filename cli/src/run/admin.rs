//! Asking a proxy whether it is ready.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Between two questions while it starts: a few per human blink, so that a swap is short.
const WHILE_STARTING: Duration = Duration::from_millis(20);
/// Between two questions once it is ready.
const WHILE_READY: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// Longest part of it that is kept as a message.
const MAX_MESSAGE: usize = 1000;

/// What a proxy says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// `/ready` answered 200.
    pub ready: bool,
    /// It says that its self-check failed.
    pub failed: bool,
    /// Its words.
    pub message: String,
    /// How long it takes at most to leave when it is told to, if it says so.
    pub leaves_within: Option<Duration>,
}

/// Asks again and again and reports what changed; ends when nobody listens.
pub async fn watch(admin: SocketAddr, reports: mpsc::Sender<Ready>) {
    let mut last = None;
    loop {
        let ready = ask(admin).await;
        let pause = if ready.ready { WHILE_READY } else { WHILE_STARTING };
        if last.as_ref() != Some(&ready) {
            last = Some(ready.clone());
            if reports.send(ready).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn ask(admin: SocketAddr) -> Ready {
    let timeout = io::Error::new(io::ErrorKind::TimedOut, "no answer");
    match tokio::time::timeout(PATIENCE, get(admin)).await.unwrap_or(Err(timeout)) {
        Ok((status, body)) => read(status, &body),
        Err(error) => Ready { message: format!("its admin interface at {admin}: {error}"), ..Ready::default() },
    }
}

async fn get(admin: SocketAddr) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// Understands the proxy's JSON with `state` and `detail`, as well as another's plain words.
fn read(status: u16, body: &str) -> Ready {
    let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let state = json["state"].as_str().unwrap_or(body);
    let words = json["detail"].as_str().unwrap_or(body).trim();
    Ready {
        ready: status == 200,
        failed: status != 200 && state.starts_with("failed"),
        message: words.chars().take(MAX_MESSAGE).collect(),
        leaves_within: json["leavesWithinMs"].as_u64().map(Duration::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_in_json_and_in_words() {
        let failed = read(503, r#"{"ready":false,"state":"failed","detail":"self-check: descriptors"}"#);
        assert!(failed.failed && !failed.ready && failed.message == "self-check: descriptors", "{failed:?}");
        assert!(read(200, "ready\n").ready);
        let starting = read(503, "starting: no configuration yet");
        assert!(!starting.ready && !starting.failed, "{starting:?}");
        assert!(read(503, "failed: descriptors").failed);
        let leaves = read(200, r#"{"state":"ready","leavesWithinMs":42000}"#).leaves_within;
        assert_eq!((leaves, starting.leaves_within), (Some(Duration::from_secs(42)), None));
    }
}
