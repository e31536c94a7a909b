//! HTTP/1 on both sides.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers::{GET, Message, Running, Setup, Upstream, nobody, ok, snapshot, soon};

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let upstream = Upstream::saying("hello").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    for _ in 0..3 {
        let answer = caller.ask(GET).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    }
    assert_eq!(upstream.count(), 3);
    running.metric("weir_upstream_connects_total{cluster=\"up\"} 1").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::answering(|request| ok(request.head.split(' ').nth(1).unwrap())).await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    caller.send(requests).await;
    for n in 0..20 {
        assert_eq!(caller.message().await.unwrap().text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let upstream = Upstream::answering(|request| ok(&request.text())).await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    for byte in b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" {
        caller.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(caller.message().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn what_concerns_one_hop_stays_and_the_rest_goes_on() {
    let upstream = Upstream::saying("").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller
        .ask("GET /p?q=1 HTTP/1.1\r\nHost: a.b\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\nX-Kept: Yes\r\n\r\n")
        .await;
    let seen = upstream.last();
    assert!(seen.head.starts_with("GET /p?q=1 HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!((seen.field("host"), seen.field("x-kept")), (Some("a.b"), Some("Yes")));
    for absent in ["connection", "x-hop", "te"] {
        assert_eq!(seen.field(absent), None, "{}", seen.head);
    }
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("traceparent").map(str::len), Some(55));
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways_unchanged() {
    let body = "5;ext=1\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let upstream = Upstream::answering(move |_| answer.clone().into_bytes()).await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for _ in 0..2 {
        assert_eq!(caller.ask(&request).await.text(), body);
        assert_eq!(upstream.last().text(), body);
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n").await;
        for _ in 0..4000 {
            let part = peer.exactly(1000).await;
            peer.send(part).await;
        }
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n / 7) as u8).collect();
    let stream = running.connect().await.stream;
    let (mut reader, mut writer) = stream.into_split();
    let body = sent.clone();
    let sending = tokio::spawn(async move {
        writer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").await.unwrap();
        writer.write_all(&body).await.unwrap();
        writer
    });
    let mut received = Vec::new();
    while !received.ends_with(&sent[sent.len() - 64..]) || received.len() < sent.len() {
        assert_ne!(soon(reader.read_buf(&mut received)).await.unwrap(), 0);
    }
    let head = received.len() - sent.len();
    assert!(received[..head].ends_with(b"\r\n\r\n") && received[head..] == sent[..]);
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let upstream = Upstream::answering(|request| {
        let path = request.head.split(' ').nth(1).unwrap();
        match path {
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec(),
        }
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    for (request, status) in [("GET /204", "204"), ("GET /304", "304"), ("HEAD /", "200"), ("GET /204", "204")] {
        caller.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(caller.head().await.unwrap().contains(status));
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_ends_the_callers_too() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await;
        peer.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    assert!(caller.head().await.unwrap().contains("connection: close"));
    assert_eq!(caller.rest().await, b"all of it");
}

#[tokio::test]
async fn http_1_0_callers_get_no_chunks() {
    let upstream =
        Upstream::answering(|_| b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec())
            .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = caller.head().await.unwrap();
    assert!(!head.to_lowercase().contains("chunked") && head.contains("connection: close"), "{head}");
    assert_eq!(caller.rest().await, b"abc");
}

#[tokio::test]
async fn http_1_0_callers_may_keep_their_connection() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    for _ in 0..2 {
        let answer = caller.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
    let answer = caller.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn a_caller_that_asks_before_it_sends_is_told_to_go_on() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        let head = peer.head().await.unwrap();
        assert!(head.contains("100-continue"));
        peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = peer.exactly(5).await;
        peer.send(ok(&String::from_utf8(body).unwrap())).await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert!(caller.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    caller.send("hello").await;
    assert_eq!(caller.message().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_refused_expectation_ends_the_connection() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        peer.rest().await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    let answer = caller.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("connection")), (403, Some("close")));
}

#[tokio::test]
async fn an_early_answer_reaches_a_caller_that_is_still_sending() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
        peer.stream.shutdown().await.unwrap();
        peer.rest().await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst").await;
    let answer = caller.message().await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
}

#[tokio::test]
async fn a_caller_that_has_finished_sending_still_gets_its_answer() {
    let upstream = Upstream::saying("late").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.message().await.unwrap().text(), "late");
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn upgrades_become_tunnels() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        let head = peer.head().await.unwrap();
        let request = Message { head, body: Vec::new() };
        assert_eq!((request.field("upgrade"), request.field("connection")), (Some("websocket"), Some("upgrade")));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi ").await;
        let said = peer.exactly(4).await;
        peer.send([b"you said ", &said[..]].concat()).await;
        assert!(peer.rest().await.is_empty());
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let head = caller.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("upgrade: websocket"), "{head}");
    caller.send("ping").await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.rest().await, b"hi you said ping");
}

#[tokio::test]
async fn an_upstream_that_nobody_asked_to_switch_may_not() {
    let upstream = Upstream::answering(|_| b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_vec()).await;
    let running = Setup::new().start(&[upstream.address]).await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 502);
}

#[tokio::test]
async fn a_malformed_answer_is_not_passed_on() {
    let upstream =
        Upstream::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec()).await;
    let running = Setup::new().start(&[upstream.address]).await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 502);
    running.metric("weir_refused_total{reason=\"upstream_protocol\"} 1").await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_caller() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    caller.head().await.unwrap();
    assert_eq!(caller.rest().await, b"half");
    running.metric("weir_proxy_faults_total{reason=\"upstream_reset\"} 1").await;
}

/// A proxy before an upstream whose answer ends with its connection, and which breaks off in the middle once told.
async fn breaking_off() -> (Running, tokio::sync::watch::Sender<bool>) {
    let (break_off, told) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut told = told.clone();
        async move {
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
            told.wait_for(|told| *told).await.unwrap();
            peer.stream.set_zero_linger().unwrap();
        }
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    // It lives as long as the test.
    std::mem::forget(upstream);
    (running, break_off)
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_does_not_look_complete_when_it_breaks_off() {
    let (running, break_off) = breaking_off().await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    caller.until("half").await;
    break_off.send(true).unwrap();
    let error = soon(caller.stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nor_does_it_when_the_proxy_cuts_it() {
    let (running, _never) = breaking_off().await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    caller.until("half").await;
    let options = weir_proxy::DrainOptions { deadline: Duration::from_millis(50), ..Default::default() };
    assert_eq!(soon(running.proxy.drain(options)).await.cut, 1);
    let error = soon(caller.stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_told_as_503() {
    let running = Setup::new().start(&[nobody()]).await;
    let mut caller = running.connect().await;
    assert_eq!(caller.ask(GET).await.status(), 503);
    assert_eq!(caller.ask(GET).await.status(), 503, "the connection goes on");
}

#[tokio::test]
async fn configured_answers_and_rewrites() {
    let upstream = Upstream::saying("x").await;
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: main}}]
routeTables:
- name: main
  hosts:
  - name: any
    domains: ['*']
    routes:
    - {{matches: {{path: {{exact: /hello}}}}, action: {{respond: {{status: 418, body: tea}}}}}}
    - {{matches: {{path: {{prefix: /old}}}}, action: {{redirect: {{status: 308, path: /new}}}}}}
    - matches: {{path: {{segments: /api}}}}
      action: {{forward: {{clusters: [{{cluster: up}}], prefixRewrite: /v1, hostRewrite: inner}}}}
      requestHeaders: {{set: [[x-set, '1']], remove: [x-secret]}}
      responseHeaders: {{add: [[x-added, '2']]}}
clusters: [{{name: up, endpoints: [{{address: '{}'}}]}}]",
        upstream.address
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    let mut caller = running.connect().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nX-Set: 0\r\n\r\n");
    let tea = caller.ask(get("/hello?x")).await;
    assert_eq!((tea.status(), tea.text().as_str()), (418, "tea"));
    let moved = caller.ask(get("/older")).await;
    assert_eq!((moved.status(), moved.field("location")), (308, Some("http://a/new")));
    assert_eq!(caller.ask(get("/apis")).await.status(), 404);
    assert_eq!(caller.ask(get("/api/x?y")).await.field("x-added"), Some("2"));
    let seen = upstream.last();
    assert!(seen.head.starts_with("GET /v1/x?y HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!((seen.field("host"), seen.field("x-set"), seen.field("x-secret")), (Some("inner"), Some("1"), None));
}

#[tokio::test]
async fn plain_tcp_passes_bytes_both_ways() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        let all = peer.rest().await;
        peer.send(all).await;
    })
    .await;
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', protocol: Tcp, routes: up}}]
clusters: [{{name: up, endpoints: [{{address: '{}'}}]}}]",
        upstream.address
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    let mut caller = running.connect().await;
    caller.send(b"\0any bytes\xff").await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.rest().await, b"\0any bytes\xff");
}
