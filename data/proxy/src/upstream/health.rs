//! Active health checks: each worker asks the endpoints of its clusters whether they are well, at intervals.
//!
//! An endpoint counts as well until it has failed so often in a row, so that one which is new gets requests at once. Then
//! it gets none until it has answered well so often, unless no endpoint is well: some answer may still come.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::timeout;
use weir_config::{GrpcProbe, HealthCheck, HttpProbe, Probe, UpstreamProtocol};
use weir_h2::{Fields, Head, RecvStream, RequestLine};

use super::cluster::{ClusterState, EndpointState};
use super::connect::open_stream;
use super::h2::acquire_h2;
use crate::io::{Buf, Stream};
use crate::tls::Alpn;

/// Method of gRPC's health service (`health.proto` in grpc/grpc).
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse { status: SERVING }`: field 1, a varint, 1.
const SERVING: [u8; 2] = [0x08, 0x01];
/// Longest answer of a health service that is read (bytes).
const MAX_GRPC_ANSWER: usize = 1024;
/// So much of an HTTP/1 answer tells its status: `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

/// What is known of an endpoint's health.
#[derive(Debug, Default)]
pub(super) struct Health {
    unhealthy: Cell<bool>,
    /// Answers in a row that contradict what is known.
    against: Cell<u32>,
    next: Cell<Option<Instant>>,
    asking: Cell<bool>,
}

impl Health {
    pub(super) fn is_unhealthy(&self) -> bool {
        self.unhealthy.get()
    }

    /// Nothing is asked any more.
    pub(super) fn forget(&self) {
        self.unhealthy.set(false);
        self.against.set(0);
        self.next.set(None);
    }

    /// Whether it is time to ask. Endpoints that come together are not asked together.
    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        match self.next.get() {
            None => {
                self.next.set(Some(now + interval.mul_f64(fastrand::f64())));
                false
            }
            Some(next) => now >= next && !self.asking.get(),
        }
    }

    /// Notes an answer; true if that changes what is known.
    fn note(&self, well: bool, check: &HealthCheck) -> bool {
        if well != self.unhealthy.get() {
            self.against.set(0);
            return false;
        }
        let enough = if well { check.healthy_threshold } else { check.unhealthy_threshold };
        self.against.set(self.against.get() + 1);
        let changes = self.against.get() >= enough;
        if changes {
            self.against.set(0);
            self.unhealthy.set(!well);
        }
        changes
    }
}

/// An endpoint is being asked.
struct Asking<'a>(&'a Health);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.set(false);
    }
}

impl ClusterState {
    /// Asks the endpoints that are due, each in a task of its own, and counts those that are not well.
    pub(crate) fn check_health(self: &Rc<Self>, now: Instant) {
        let Some(check) = &self.compiled.config.health_check else {
            self.stats.unhealthy.set(0);
            return;
        };
        let interval = Duration::from_millis(check.interval_ms);
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.health.is_due(now, interval)) {
            endpoint.health.asking.set(true);
            endpoint.health.next.set(Some(now + interval));
            let (cluster, endpoint) = (self.clone(), endpoint.clone());
            tokio::task::spawn_local(async move { ask(&cluster, &endpoint).await });
        }
        let unhealthy = self.endpoints.iter().filter(|endpoint| endpoint.health.is_unhealthy()).count();
        self.stats.unhealthy.set(unhealthy as u64);
    }
}

async fn ask(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) {
    let _asking = Asking(&endpoint.health);
    let Some(check) = &cluster.compiled.config.health_check else { return };
    let limit = Duration::from_millis(check.timeout_ms);
    let well = match timeout(limit, Box::pin(probe(cluster, endpoint, &check.probe))).await {
        Ok(Ok(well)) => well,
        Ok(Err(_)) | Err(_) => false,
    };
    if endpoint.health.note(well, check) {
        let (cluster, address) = (&cluster.compiled.name, endpoint.address);
        tracing::info!(%cluster, endpoint = %address, healthy = well, "the health of an endpoint has changed");
    }
}

async fn probe(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>, probe: &Probe) -> io::Result<bool> {
    let by_http2 = cluster.compiled.config.protocol == UpstreamProtocol::Http2;
    match probe {
        Probe::Tcp => open_stream(cluster, endpoint, Alpn::Unnamed).await.map(|_| true),
        Probe::Http(http) if by_http2 => by_h2(cluster, endpoint, http).await,
        Probe::Http(http) => {
            let (mut stream, _open) = open_stream(cluster, endpoint, Alpn::Unnamed).await?;
            by_http1(cluster, &mut stream, http).await
        }
        Probe::Grpc(grpc) => by_grpc(cluster, endpoint, grpc).await,
    }
}

fn host<'a>(cluster: &'a ClusterState, host: &'a Option<String>) -> &'a str {
    host.as_deref().unwrap_or(&cluster.compiled.name)
}

async fn by_http1(cluster: &ClusterState, stream: &mut Stream, http: &HttpProbe) -> io::Result<bool> {
    let host = host(cluster, &http.host);
    let head = format!("GET {} HTTP/1.1\r\nhost: {host}\r\nuser-agent: weir\r\nconnection: close\r\n\r\n", http.path);
    let (mut reader, mut writer) = stream.split();
    writer.write_all(head.as_bytes(), b"").await?;
    let mut buf = Buf::default();
    while buf.len() < STATUS_LINE && poll_fn(|cx| reader.poll_fill(cx, &cluster.shared.buffers, &mut buf)).await? > 0 {}
    let line = buf.filled().get(..STATUS_LINE).unwrap_or_default();
    let well = line.starts_with(b"HTTP/1.") && line[8..10] == *b" 2";
    cluster.shared.buffers.discard(&mut buf);
    Ok(well)
}

async fn by_h2(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>, http: &HttpProbe) -> io::Result<bool> {
    let line = request_line("GET", host(cluster, &http.host), &http.path);
    let (response, _) = send(cluster, endpoint, (line, &Fields::new()), None).await?;
    Ok((200..300).contains(&response.status()))
}

async fn by_grpc(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>, grpc: &GrpcProbe) -> io::Result<bool> {
    let line = request_line("POST", host(cluster, &grpc.host), GRPC_CHECK);
    let mut fields = Fields::new();
    fields.append("content-type", "application/grpc");
    fields.append("te", "trailers");
    let question = grpc_question(&grpc.service);
    let (response, mut body) = send(cluster, endpoint, (line, &fields), Some(question)).await?;
    if response.status() != 200 {
        return Ok(false);
    }
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        answer.extend_from_slice(&data?);
        if answer.len() > MAX_GRPC_ANSWER {
            return Ok(false);
        }
    }
    let trailers = body.trailers().await?;
    Ok(is_ok(trailers.as_ref()) && tells_serving(&answer))
}

fn request_line<'a>(method: &'a str, host: &'a str, path: &'a str) -> RequestLine<'a> {
    RequestLine { method, scheme: "http", authority: host, path, content_length: None }
}

async fn send(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    (line, fields): (RequestLine<'_>, &Fields),
    body: Option<Bytes>,
) -> io::Result<(Head, RecvStream)> {
    let lease = acquire_h2(cluster, endpoint).await;
    let lease = lease.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
    let (mut stream, mut response) = lease.send().send(&line, fields, body.is_none())?;
    if let Some(body) = body {
        stream.data(body, true).await?;
    }
    let head = response.head().await?;
    Ok((head, response))
}

/// `HealthCheckRequest { service }` as gRPC frames a message: not compressed, its length, then field 1 as text.
fn grpc_question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        // A varint in at most two bytes: validation bounds the name.
        let (low, high) = ((service.len() & 0x7f) as u8, (service.len() >> 7) as u8);
        if high > 0 {
            message.put_u8(low | 0x80);
            message.put_u8(high);
        } else {
            message.put_u8(low);
        }
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

fn is_ok(trailers: Option<&Fields>) -> bool {
    trailers.and_then(|trailers| trailers.get("grpc-status")).is_some_and(|status| status == b"0")
}

/// Whether a framed answer says SERVING, and nothing else: services do not add to it.
fn tells_serving(answer: &[u8]) -> bool {
    matches!(answer, [0, 0, 0, 0, 2, message @ ..] if *message == SERVING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck { unhealthy_threshold: 3, healthy_threshold: 2, ..HealthCheck::new(Probe::Tcp) }
    }

    #[test]
    fn only_answers_in_a_row_change_what_is_known() {
        let (health, check) = (Health::default(), check());
        let mut known = Vec::new();
        for well in [false, false, true, false, false, false, true, false, true, true] {
            health.note(well, &check);
            known.push(health.is_unhealthy());
        }
        let unhealthy = [false, false, false, false, false, true, true, true, true, false];
        assert_eq!(known, unhealthy);
        (0..3).for_each(|_| _ = health.note(false, &check));
        health.forget();
        assert!(!health.is_unhealthy());
    }

    #[test]
    fn an_endpoint_is_asked_once_an_interval_and_not_while_it_is_asked() {
        let (health, now, interval) = (Health::default(), Instant::now(), Duration::from_secs(5));
        assert!(!health.is_due(now, interval), "first at some time within the interval");
        assert!(health.is_due(now + interval, interval));
        health.asking.set(true);
        assert!(!health.is_due(now + interval, interval));
    }

    #[test]
    fn the_health_service_is_asked_in_its_own_words() {
        assert_eq!(&grpc_question("")[..], b"\0\0\0\0\0");
        assert_eq!(&grpc_question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "a".repeat(200);
        assert_eq!(&grpc_question(&long)[..9], b"\0\0\0\0\xcb\x0a\xc8\x01a");
        assert!(tells_serving(b"\0\0\0\0\x02\x08\x01"));
        for other in [&b""[..], b"\0\0\0\0\0", b"\0\0\0\0\x02\x08\x02", b"\x01\0\0\0\x02\x08\x01"] {
            assert!(!tells_serving(other), "{other:?}");
        }
    }
}
