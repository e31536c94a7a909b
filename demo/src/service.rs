//! A tiny application: answers every GET after calling what it depends on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::http::{Connection, Request};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 4096;
/// How long a called service may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to finish after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A tiny service.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name in its answers.
    #[arg(long)]
    name: String,
    /// Where it listens.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// A service called for each request, as NAME=ADDR:PORT; may be repeated.
    #[arg(long = "call", value_name = "NAME=ADDR:PORT", value_parser = parse_call)]
    calls: Vec<(String, SocketAddr)>,
    /// Rounds of arithmetic for each request.
    #[arg(long, default_value_t = 2000)]
    work: u32,
}

struct Service {
    name: String,
    calls: Vec<(String, Client)>,
    work: u32,
}

fn parse_call(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("use NAME=ADDR:PORT")?;
    Ok((name.to_owned(), address.parse().map_err(|e| format!("{address:?}: {e}; use ADDR:PORT"))?))
}

/// Serves until SIGTERM or SIGINT, then finishes what it has begun.
pub async fn run(args: Args) -> io::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {}: {e}", args.listen)))?;
    let client = |(name, address): (String, SocketAddr)| (name.clone(), Client::new(address, name, CALL_TIMEOUT));
    let calls = args.calls.into_iter().map(client).collect();
    let service = Arc::new(Service { name: args.name, calls, work: args.work });
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut terminated = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let stream = accepted?.0;
                connections.spawn(serve(service.clone(), stream, stopping.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = terminated.recv() => break,
            interrupted = tokio::signal::ctrl_c() => { interrupted?; break }
        }
    }
    stop.send_replace(true);
    let finish = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STOP_TIMEOUT, finish).await;
    Ok(())
}

/// One connection, request by request. Errors end it: the peer is gone or speaks something else.
async fn serve(service: Arc<Service>, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
    let Ok(mut connection) = Connection::new(stream) else { return };
    loop {
        let more = tokio::select! {
            more = connection.readable() => more,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let Ok(true) = more else { return };
        let Ok(request) = connection.request().await else { return };
        let keep = request.keep_alive && !*stopping.borrow();
        let (status, body) = service.answer(&request).await;
        if connection.send(&response(status, &body, keep)).await.is_err() || !keep {
            return;
        }
    }
}

fn response(status: u16, body: &str, keep: bool) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Bad Gateway" };
    let close = if keep { "" } else { "connection: close\r\n" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{close}\r\n{body}"
    )
    .into_bytes()
}

impl Service {
    async fn answer(&self, request: &Request) -> (u16, String) {
        if request.path == "/healthz" {
            return (200, json!({ "service": self.name, "ok": true }).to_string());
        }
        let mut called = Vec::new();
        for (name, client) in &self.calls {
            match client.get(&request.path, request.traceparent.as_deref()).await {
                Ok(answer) if answer.response.status < 500 => called.push(name),
                Ok(answer) => return (502, self.sorry(name, &format!("it answered {}", answer.response.status))),
                Err(failure) => return (502, self.sorry(name, &failure.to_string())),
            }
        }
        let digest = work(self.work, request.path.as_bytes());
        (200, json!({ "service": self.name, "called": called, "digest": format!("{digest:016x}") }).to_string())
    }

    fn sorry(&self, called: &str, why: &str) -> String {
        json!({ "service": self.name, "error": format!("calling {called}: {why}") }).to_string()
    }
}

/// Something to compute: FNV-1a over the path, again and again.
fn work(rounds: u32, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    (0..rounds).fold(0xcbf2_9ce4_8422_2325, |hash, _| bytes.iter().fold(hash, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn start(name: &str, calls: Vec<(String, Client)>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Service { name: name.into(), calls, work: 1 });
        tokio::spawn(async move {
            let (_stop, stopping) = watch::channel(false);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(service.clone(), stream, stopping.clone()));
            }
        });
        address
    }

    fn client(address: SocketAddr) -> Client {
        Client::new(address, "test", Duration::from_secs(60))
    }

    #[tokio::test]
    async fn a_request_goes_along_the_chain() {
        let stock = start("stock", Vec::new()).await;
        let order = start("order", vec![("stock".into(), client(stock))]).await;
        let answer = client(order).get("/x", None).await.unwrap();
        let body = String::from_utf8(answer.response.body).unwrap();
        assert!(body.contains(r#""service":"order","called":["stock"]"#), "{body}");
    }

    #[tokio::test]
    async fn a_failing_dependency_is_told() {
        let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let order = start("order", vec![("stock".into(), client(nowhere))]).await;
        let answer = client(order).get("/x", None).await.unwrap();
        assert_eq!(answer.response.status, 502);
        let health = client(order).get("/healthz", None).await.unwrap();
        assert_eq!(health.response.status, 200, "its own health is its own");
    }
}
