//! Peers and helpers: an upstream that answers as told, a caller that writes bytes and reads answers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_proxy::{Options, Proxy, Snapshot};

/// Bounds every wait; nothing takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// A message as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(':').map(|(field, _)| field.eq_ignore_ascii_case(name));
        let found = self.head.lines().find(|text| line(text) == Some(true))?;
        found.split_once(':').map(|(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One side of a connection, with what was read ahead.
pub struct Peer {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Peer { stream, ahead: Vec::new() }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Peer::new(soon(TcpStream::connect(address)).await.unwrap())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads a head up to its empty line; `None` if the connection ends before.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.ahead.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if self.more().await == 0 {
                return None;
            }
        }
    }

    /// Reads exactly this many bytes.
    pub async fn exactly(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len {
            assert_ne!(self.more().await, 0, "closed after {} of {len} bytes", self.ahead.len());
        }
        self.ahead.drain(..len).collect()
    }

    /// Reads until the text has come; the text is the end of what is returned.
    pub async fn until(&mut self, text: &str) -> Vec<u8> {
        loop {
            if let Some(at) = self.ahead.windows(text.len()).position(|window| window == text.as_bytes()) {
                return self.ahead.drain(..at + text.len()).collect();
            }
            assert_ne!(self.more().await, 0, "closed before {text:?}: {:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    /// Reads to the end of the connection, however it ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.ahead)
    }

    /// A message whose body has a length or comes in chunks, which are left as they are.
    pub async fn message(&mut self) -> Option<Message> {
        let head = self.head().await?;
        let mut message = Message { head, body: Vec::new() };
        if let Some(length) = message.field("content-length") {
            message.body = self.exactly(length.parse().unwrap()).await;
        } else if message.field("transfer-encoding").is_some() {
            message.body = self.until("0\r\n").await;
            while !message.body.ends_with(b"\r\n\r\n") {
                message.body.extend(self.until("\r\n").await);
            }
        }
        Some(message)
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).await;
        self.message().await.expect("closed without an answer")
    }

    async fn more(&mut self) -> usize {
        soon(self.stream.read_buf(&mut self.ahead)).await.unwrap_or(0)
    }
}

/// A server under the test's control.
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<Message>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Gives each connection to a function of the test's.
    pub async fn scripted<F, Fut>(serve: F) -> Self
    where
        F: Fn(Peer, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(Peer::new(stream), number));
            }
        });
        Upstream { address, requests: Arc::default(), seen: Arc::default(), task }
    }

    /// Answers every request with what the function makes of it, on connections that stay open.
    pub async fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let (requests, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (answer, count, log) = (Arc::new(answer), requests.clone(), seen.clone());
        let mut upstream = Upstream::scripted(move |mut peer, _| {
            let (answer, count, log) = (answer.clone(), count.clone(), log.clone());
            async move {
                while let Some(message) = peer.message().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let bytes = answer(&message);
                    log.lock().unwrap().push(message);
                    if peer.stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        upstream.requests = requests;
        upstream.seen = seen;
        upstream
    }

    /// Answers 200 with a fixed text.
    pub async fn saying(text: &str) -> Self {
        let bytes = ok(text);
        Upstream::answering(move |_| bytes.clone()).await
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> Message {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// A response with a text.
pub fn ok(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A configuration with the listener `in`, the cluster `up`, and further lines for either.
pub struct Setup {
    pub listener: String,
    pub forward: String,
    pub cluster: String,
}

impl Setup {
    pub fn new() -> Self {
        Setup { listener: String::new(), forward: String::new(), cluster: String::new() }
    }

    pub fn listener(mut self, text: &str) -> Self {
        self.listener = format!(", {text}");
        self
    }

    pub fn forward(mut self, text: &str) -> Self {
        self.forward = format!(", {text}");
        self
    }

    pub fn cluster(mut self, text: &str) -> Self {
        self.cluster = format!(", {text}");
        self
    }

    pub fn snapshot(&self, endpoints: &[SocketAddr]) -> Arc<Snapshot> {
        let endpoints: Vec<String> = endpoints.iter().map(|address| format!("{{address: '{address}'}}")).collect();
        let text = format!(
            "listeners: [{{name: in, bind: '127.0.0.1:0', direction: Inbound, routes: main{}}}]
routeTables:
- name: main
  hosts:
  - name: any
    domains: ['*']
    routes: [{{name: all, action: {{forward: {{clusters: [{{cluster: up}}]{}}}}}}}]
clusters: [{{name: up, endpoints: [{}]{}}}]",
            self.listener,
            self.forward,
            endpoints.join(", "),
            self.cluster
        );
        snapshot(&text)
    }

    pub async fn start(&self, endpoints: &[SocketAddr]) -> Running {
        Running::start(Options::default(), self.snapshot(endpoints)).await
    }
}

pub fn snapshot(text: &str) -> Arc<Snapshot> {
    let config = weir_config::from_yaml(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Snapshot::compile(config).unwrap()
}

/// A proxy with a listener `in`.
pub struct Running {
    pub proxy: Proxy,
    pub address: SocketAddr,
}

impl Running {
    pub async fn start(options: Options, snapshot: Arc<Snapshot>) -> Self {
        let proxy = Proxy::start(options, snapshot).await.unwrap();
        let address = proxy.local_addr("in").unwrap();
        Running { proxy, address }
    }

    pub async fn connect(&self) -> Peer {
        Peer::connect(self.address).await
    }

    /// Waits until a line of the metrics is as expected.
    pub async fn metric(&self, line: &str) {
        let seen = async {
            while !self.proxy.metrics().lines().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("no {line:?} in\n{}", self.proxy.metrics());
        }
    }
}

/// The plainest request.
pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
