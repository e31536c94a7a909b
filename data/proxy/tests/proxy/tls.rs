//! Encrypted connections, both sides: who is let in, who is turned away and why, and what passes.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::Snapshot;

use crate::peers::*;
use crate::pki::*;

/// A configuration text: listener `in`, cluster `up`.
pub struct Mesh<'a> {
    pub pki: &'a Pki,
    /// `mode: strict` and the like; empty: no TLS on the listener.
    pub listener: &'a str,
    /// Secret with the listener's and the cluster's certificate.
    pub me: &'a str,
    /// Whom the cluster's endpoints must be; empty: no TLS to them.
    pub expects: &'a str,
    /// What both speak, as a field; empty: HTTP.
    pub protocol: &'a str,
    /// Further fields of the cluster.
    pub cluster: &'a str,
    pub tls_endpoints: bool,
}

impl Mesh<'_> {
    pub fn snapshot(&self, endpoints: &[SocketAddr]) -> Arc<Snapshot> {
        let at = |address: &SocketAddr| format!("{{address: '{address}', tls: {}}}", self.tls_endpoints);
        let endpoints: Vec<String> = endpoints.iter().map(at).collect();
        let (me, protocol) = (self.me, self.protocol);
        let listener = match self.listener {
            "" => String::new(),
            fields => format!(", tls: {{certificate: {me}, trust: roots, {fields}}}"),
        };
        let cluster = match self.expects {
            "" => String::new(),
            prefix => {
                format!(", tls: {{sni: up, certificate: {me}, trust: roots, identities: [{{prefix: '{prefix}'}}]}}")
            }
        };
        snapshot(&format!(
            "listeners: [{{name: in, bind: '127.0.0.1:0', direction: Inbound, routes: main{listener}{protocol}}}]
routeTables:
- name: main
  hosts: [{{name: any, domains: ['*'], routes: [{{name: all, action: {{forward: {{clusters: [{{cluster: up}}]}}}}}}]}}]
clusters: [{{name: up, endpoints: [{}]{cluster}{protocol}{}}}]
secrets: {}",
            endpoints.join(", "),
            self.cluster,
            self.pki.secrets()
        ))
    }

    pub async fn start(&self, endpoints: &[SocketAddr]) -> Running {
        Running::start(Default::default(), self.snapshot(endpoints)).await
    }
}

/// A server that takes TLS from those `roots` vouch for: a proxy in front of `to`.
pub async fn server(pki: &Pki, fields: &str, to: SocketAddr) -> Running {
    Mesh { pki, listener: fields, me: "stock", expects: "", protocol: "", cluster: "", tls_endpoints: false }
        .start(&[to])
        .await
}

/// A caller's proxy: plaintext in, TLS out to `to`, which must be `expects`.
pub async fn caller(pki: &Pki, me: &str, expects: &str, to: SocketAddr) -> Running {
    Mesh { pki, listener: "", me, expects, protocol: "", cluster: "", tls_endpoints: true }.start(&[to]).await
}

pub const STOCK: &str = "spiffe://weir/app/stock/";

async fn get(proxy: &Running) -> Message {
    proxy.connect().await.ask(GET).await
}

#[tokio::test]
async fn two_proxies_speak_tls_and_know_each_other() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: strict", upstream.address).await;
    let caller = caller(&pki, "order", STOCK, server.address).await;
    let mut peer = caller.connect().await;
    for _ in 0..3 {
        assert_eq!(peer.ask(GET).await.text(), "hello");
    }
    let order = "peer=\"spiffe://weir/app/order/unit/a\"";
    server
        .metric(&format!("weir_peer_connections{{direction=\"inbound\",cluster=\"\",{order},security=\"tls\"}} 1"))
        .await;
    server.metric(&format!("weir_peer_handshakes_total{{direction=\"inbound\",cluster=\"\",{order}}} 1")).await;
    let stock = "cluster=\"up\",peer=\"spiffe://weir/app/stock/unit/a\"";
    caller.metric(&format!("weir_peer_connections{{direction=\"outbound\",{stock},security=\"tls\"}} 1")).await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let pki = Pki::new();
    let upstream = Upstream::answering(|message| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", message.body.len());
        [head.as_bytes(), &message.body].concat()
    })
    .await;
    let server = server(&pki, "mode: strict", upstream.address).await;
    let caller = caller(&pki, "order", STOCK, server.address).await;
    let mut peer = caller.connect().await;
    for size in [1, 16_319, 16_320, 16_321, 16_384, 100_000, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        let sending = [head.as_bytes(), &body].concat();
        let answer = peer.ask(sending).await;
        assert!(answer.status() == 200 && answer.body == body, "{size}");
    }
}

#[tokio::test]
async fn http2_passes_through_two_proxies() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: strict", upstream.address).await;
    let mesh = Mesh {
        pki: &pki,
        listener: "",
        me: "order",
        expects: STOCK,
        protocol: "",
        cluster: ", protocol: Http2",
        tls_endpoints: true,
    };
    let caller = mesh.start(&[server.address]).await;
    let mut peer = caller.connect().await;
    for _ in 0..10 {
        assert_eq!(peer.ask(GET).await.text(), "hello");
    }
    server.metric("weir_connections_total 1").await;
}

#[tokio::test]
async fn a_permissive_listener_takes_both_and_a_strict_one_does_not() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let permissive = server(&pki, "mode: permissive", upstream.address).await;
    assert_eq!(get(&permissive).await.text(), "hello");
    assert_eq!(get(&caller(&pki, "order", STOCK, permissive.address).await).await.text(), "hello");
    let strict = server(&pki, "mode: strict", upstream.address).await;
    let mut peer = strict.connect().await;
    peer.send(GET).await;
    assert!(peer.rest().await.is_empty());
    strict.metric("weir_refused_total{reason=\"plaintext_refused\"} 1").await;
    assert_eq!(upstream.count(), 2);
}

/// What a caller's proxy makes of a server it must not trust: 503, and the reason in its metrics.
async fn refuses(pki: &Pki, me: &str, expects: &str, server: &Running, reason: &str) {
    let caller = caller(pki, me, expects, server.address).await;
    assert_eq!(get(&caller).await.status(), 503);
    let line = format!("weir_tls_handshake_failures_total{{direction=\"outbound\",reason=\"{reason}\"}} 1");
    caller.metric(&line).await;
}

#[tokio::test]
async fn a_server_of_another_identity_is_not_called() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: strict", upstream.address).await;
    refuses(&pki, "order", "spiffe://weir/app/pay/", &server, "identity").await;
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn servers_with_bad_certificates_are_not_called() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    for (me, reason) in [("expired", "expired"), ("foreign", "unknown_issuer"), ("nameless", "identity")] {
        let mesh = Mesh {
            pki: &pki,
            listener: "mode: strict",
            me,
            expects: "",
            protocol: "",
            cluster: "",
            tls_endpoints: false,
        };
        let server = mesh.start(&[upstream.address]).await;
        refuses(&pki, "order", STOCK, &server, reason).await;
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn callers_with_bad_certificates_are_turned_away() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    for (me, reason) in [("expired", "expired"), ("foreign", "unknown_issuer"), ("nameless", "identity")] {
        let server = server(&pki, "mode: strict", upstream.address).await;
        // The caller learns of it with its first answer: its own handshake is done by then.
        let status = get(&caller(&pki, me, STOCK, server.address).await).await.status();
        assert!((502..=503).contains(&status), "{status}");
        let line = format!("weir_tls_handshake_failures_total{{direction=\"inbound\",reason=\"{reason}\"}} 1");
        server.metric(&line).await;
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_turned_away() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: strict", upstream.address).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let config = pki.client(None);
    let mut session = rustls::ClientConnection::new(config, ServerName::try_from("up").unwrap()).unwrap();
    soon(shake(&mut stream, &mut session)).await;
    server.metric("weir_tls_handshake_failures_total{direction=\"inbound\",reason=\"no_certificate\"} 1").await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_ended() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "handshakeTimeoutMs: 50", upstream.address).await;
    let mut peer = server.connect().await;
    peer.send([0x16, 3, 1]).await;
    assert!(peer.rest().await.is_empty());
    server.metric("weir_tls_handshake_failures_total{direction=\"inbound\",reason=\"timeout\"} 1").await;
}

#[tokio::test]
async fn what_only_looks_like_tls_is_ended() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: permissive", upstream.address).await;
    for (number, garbage) in
        [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16GET / HTTP/1.1\r\n\r\n", &[0x16; 40_000]].iter().enumerate()
    {
        let mut peer = server.connect().await;
        // The proxy may have closed before all of it is written.
        let _ = peer.stream.write_all(garbage).await;
        peer.rest().await;
        let count = number + 1;
        let line = format!("weir_tls_handshake_failures_total{{direction=\"inbound\",reason=\"protocol\"}} {count}");
        server.metric(&line).await;
    }
}

#[tokio::test]
async fn handshakes_are_bounded() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "maxHandshakes: 1", upstream.address).await;
    let mut stalling = server.connect().await;
    stalling.send([0x16]).await;
    let mut second = server.connect().await;
    loop {
        // Until the first is counted as under way, the second is just another.
        second.send([0x16]).await;
        let line = "weir_tls_handshake_failures_total{direction=\"inbound\",reason=\"limit\"} 1";
        if soon(second.stream.read_u8()).await.is_err() && server.proxy.metrics().contains(line) {
            break;
        }
        second = server.connect().await;
    }
    drop(stalling);
}

#[tokio::test]
async fn a_response_cut_off_does_not_look_complete() {
    let pki = Pki::new();
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await;
        // An upstream that has more to say, and is cut.
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let server = server(&pki, "mode: strict", upstream.address).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut session =
        rustls::ClientConnection::new(pki.client(Some("order")), ServerName::try_from("up").unwrap()).unwrap();
    soon(shake(&mut stream, &mut session)).await;
    assert_eq!(soon(ask(&mut stream, &mut session, GET)).await.1, Ended::Broken);
}

#[tokio::test]
async fn a_response_that_ends_with_the_connection_says_so() {
    let pki = Pki::new();
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall").await;
    })
    .await;
    let server = server(&pki, "mode: strict", upstream.address).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut session =
        rustls::ClientConnection::new(pki.client(Some("order")), ServerName::try_from("up").unwrap()).unwrap();
    soon(shake(&mut stream, &mut session)).await;
    let (text, ended) = soon(ask(&mut stream, &mut session, GET)).await;
    assert!(text.ends_with("all") && ended == Ended::InOrder, "{text} {ended:?}");
}

#[tokio::test]
async fn an_upstream_cut_off_on_the_way_is_no_whole_response() {
    let pki = Pki::new();
    // The server between cuts the TCP connection in the middle of a response that ends with the connection.
    let cutting = pki.tls_upstream("stock", |_| b"HTTP/1.1 200 OK\r\n\r\nhalf".to_vec(), false).await;
    let caller = caller(&pki, "order", STOCK, cutting).await;
    let mut peer = caller.connect().await;
    peer.send(GET).await;
    peer.rest().await;
    caller.metric("weir_proxy_faults_total{reason=\"upstream_reset\"} 1").await;
}

#[tokio::test]
async fn what_names_a_certificate_without_showing_one_is_not_passed_on() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: permissive", upstream.address).await;
    let claim = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=me\r\n\r\n";
    server.connect().await.ask(claim).await;
    assert_eq!(upstream.last().field("x-forwarded-client-cert"), None);
}

#[tokio::test]
async fn keys_are_shown_nowhere() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let server = server(&pki, "mode: strict", upstream.address).await;
    let caller = caller(&pki, "order", STOCK, server.address).await;
    get(&caller).await;
    let snapshot = server.proxy.snapshot();
    let shown = format!(
        "{:?} {} {} {:?}",
        snapshot,
        serde_json::to_string(snapshot.config()).unwrap(),
        server.proxy.metrics(),
        server.proxy
    );
    for key in pki.key_texts() {
        assert!(!shown.contains(&key), "{key}");
    }
    assert_eq!(snapshot.certificates()["stock"].identity, "spiffe://weir/app/stock/unit/a");
}
