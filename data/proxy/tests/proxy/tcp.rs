//! Bytes that are passed on as they are: which cluster gets them, and what is told of them.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use weir_proxy::{AccessLog, Options};

use crate::peers::*;
use crate::pki::*;

/// A server that says its name once it has read something, then echoes.
async fn naming(name: &'static str) -> Upstream {
    Upstream::scripted(move |mut peer, _| async move {
        let first = peer.exactly(1).await;
        peer.send(name).await;
        let rest = peer.rest().await;
        peer.send([first, rest].concat()).await;
    })
    .await
}

/// A server that speaks first, as MySQL's and SMTP's do, then echoes.
async fn greeting() -> Upstream {
    Upstream::scripted(|mut peer, _| async move {
        peer.send("220 welcome\r\n").await;
        let all = peer.rest().await;
        peer.send(all).await;
    })
    .await
}

/// What a TLS client says first when it wants this server.
fn hello(server: Option<&str>) -> Vec<u8> {
    let mut config = Arc::unwrap_or_clone(Pki::new().client(None));
    config.enable_sni = server.is_some();
    let name = ServerName::try_from(server.unwrap_or("none.example").to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

fn cluster(name: &str, at: SocketAddr) -> String {
    format!("{{name: {name}, endpoints: [{{address: '{at}'}}]}}")
}

#[tokio::test]
async fn tls_goes_to_the_server_it_asks_for() {
    let (one, two, rest) = (naming("one").await, naming("two").await, naming("rest").await);
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', protocol: Tcp, routes: rest, \
         serverNames: [{{names: [a.example, b.example], cluster: one}}, {{names: ['*.example'], cluster: two}}]}}]
clusters: [{}, {}, {}]",
        cluster("one", one.address),
        cluster("two", two.address),
        cluster("rest", rest.address)
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    for (bytes, server) in [
        (hello(Some("a.example")), "one"),
        (hello(Some("B.example")), "one"),
        (hello(Some("c.d.example")), "two"),
        (hello(Some("a.example.org")), "rest"),
        (hello(None), "rest"),
        (b"\x16\x03\x01 no hello".to_vec(), "rest"),
        (b"no TLS at all".to_vec(), "rest"),
    ] {
        let mut caller = running.connect().await;
        // However it arrives, it is read to the end, and goes on unchanged.
        for piece in bytes.chunks(100) {
            caller.send(piece).await;
        }
        caller.stream.shutdown().await.unwrap();
        assert_eq!(caller.exactly(server.len()).await, server.as_bytes());
        assert_eq!(caller.rest().await, bytes, "{server}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_refused_and_counted() {
    let one = naming("one").await;
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', protocol: Tcp, \
         serverNames: [{{names: [a.example], cluster: one}}], limits: {{headTimeoutMs: 50}}}}]
clusters: [{}]",
        cluster("one", one.address)
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    for bytes in [hello(Some("b.example")), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut caller = running.connect().await;
        caller.send(bytes).await;
        assert_eq!(caller.rest().await, b"");
    }
    running.metric("weir_refused_total{reason=\"no_route\"} 2").await;
    let mut caller = running.connect().await;
    caller.send(&hello(Some("a.example"))[..100]).await;
    assert_eq!(caller.rest().await, b"", "a beginning that does not go on is no connection");
    running.metric("weir_refused_total{reason=\"head_timeout\"} 1").await;
}

#[tokio::test]
async fn what_is_for_others_passes_and_the_rest_is_decrypted_here() {
    let (pki, app, other) = (Pki::new(), Upstream::saying("app").await, naming("other").await);
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: main, serverNames: [{{names: [other.example], cluster: other}}], \
         tls: {{certificate: stock, mode: strict}}}}]
routeTables: [{{name: main, hosts: [{{name: a, domains: ['*'], routes: [{{action: {{forward: {{clusters: [{{cluster: app}}]}}}}}}]}}]}}]
clusters: [{}, {}]
secrets: {}",
        cluster("app", app.address),
        cluster("other", other.address),
        pki.secrets()
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    let mut caller = running.connect().await;
    caller.send(hello(Some("other.example"))).await;
    assert_eq!(caller.exactly(5).await, b"other");
    let mut stream = running.connect().await.stream;
    let name = ServerName::try_from("app.example").unwrap();
    let mut session = ClientConnection::new(pki.client(None), name).unwrap();
    shake(&mut stream, &mut session).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, _) = ask(&mut stream, &mut session, request).await;
    assert!(answer.ends_with("app"), "{answer}");
}

#[tokio::test]
async fn what_is_no_known_protocol_is_passed_on_where_there_is_a_cluster_for_it() {
    let (http, tcp) = (Upstream::saying("http").await, greeting().await);
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: main, tcpCluster: tcp, limits: {{detectTimeoutMs: 50}}}}]
routeTables: [{{name: main, hosts: [{{name: a, domains: ['*'], routes: [{{action: {{forward: {{clusters: [{{cluster: http}}]}}}}}}]}}]}}]
clusters: [{}, {}]",
        cluster("http", http.address),
        cluster("tcp", tcp.address)
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    assert_eq!(running.connect().await.ask(GET).await.text(), "http");
    // Told by its first bytes, or by saying nothing until the server does, or by never getting to its end.
    for first in ["EHLO a\r\n", "", "GET "] {
        let mut caller = running.connect().await;
        caller.send(first).await;
        assert_eq!(caller.until("\r\n").await, b"220 welcome\r\n", "{first:?}");
        caller.send("more").await;
        caller.stream.shutdown().await.unwrap();
        assert_eq!(caller.rest().await, format!("{first}more").as_bytes());
    }
}

#[tokio::test]
async fn a_connection_leaves_its_bytes_in_metrics_and_log() {
    let (one, folder) = (naming("one").await, tempfile::tempdir().unwrap());
    let file = folder.path().join("log");
    let options = Options { access_log: AccessLog::File(file.clone()), ..Default::default() };
    let gone = nobody();
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', protocol: Tcp, accessLog: true, routes: gone, \
         serverNames: [{{names: [a.example], cluster: one}}]}}]
clusters: [{}, {}]",
        cluster("one", one.address),
        cluster("gone", gone)
    );
    let running = Running::start(options, snapshot(&text)).await;
    let bytes = hello(Some("a.example"));
    let mut caller = running.connect().await;
    caller.send(&bytes).await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.rest().await.len(), 3 + bytes.len());
    let sent = bytes.len();
    running.metric(&format!("weir_upstream_sent_bytes_total{{cluster=\"one\"}} {sent}")).await;
    running.metric(&format!("weir_upstream_received_bytes_total{{cluster=\"one\"}} {}", sent + 3)).await;
    let mut caller = running.connect().await;
    caller.send("anything").await;
    assert_eq!(caller.rest().await, b"");
    running.metric("weir_refused_total{reason=\"upstream_connect\"} 1").await;
    running.metric("weir_active_connections 0").await;
    assert!(running.proxy.flush(std::time::Duration::from_secs(10)).await);
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [passed, refused] = &lines[..] else { panic!("{text}") };
    assert_eq!((&passed["protocol"], &passed["host"]), (&"tcp".into(), &"a.example".into()));
    assert_eq!((&passed["bytes_received"], &passed["bytes_sent"]), (&sent.into(), &(sent + 3).into()));
    assert_eq!((&passed["cluster"], &passed["endpoint"]), (&"one".into(), &one.address.to_string().into()));
    assert_eq!((&refused["refused"], &refused["bytes_sent"]), (&"upstream_connect".into(), &0.into()));
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let upstream = greeting().await;
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', protocol: Tcp, routes: up, limits: {{idleTimeoutMs: 50}}}}]
clusters: [{}]",
        cluster("up", upstream.address)
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    assert_eq!(running.connect().await.rest().await, b"220 welcome\r\n");
    running.metric("weir_active_connections 0").await;
}

/// Nobody was turned round on the way here, so there is nowhere else to go.
#[tokio::test]
async fn a_caller_that_came_straight_is_served_by_the_listener_itself() {
    let (http, listener) = (Upstream::saying("http").await, "name: in, bind: '127.0.0.1:0', routes: main");
    let text = format!(
        "listeners: [{{{listener}, tcpCluster: passthrough, originalDestination: true}}]
routeTables: [{{name: main, hosts: [{{name: a, domains: ['*'], routes: [{{action: {{forward: {{clusters: [{{cluster: http}}]}}}}}}]}}]}}]
clusters: [{}, {{name: passthrough, originalDestination: true}}]",
        cluster("http", http.address)
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    assert_eq!(running.connect().await.ask(GET).await.text(), "http");
    let mut caller = running.connect().await;
    caller.send("\0").await;
    assert_eq!(caller.rest().await, b"");
    running.metric("weir_refused_total{reason=\"no_endpoint\"} 1").await;
}
