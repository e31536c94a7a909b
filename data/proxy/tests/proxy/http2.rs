//! HTTP/2 and gRPC.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use weir_proxy::DrainOptions;

use crate::peers::{GET, Peer, Setup, Upstream, nobody, ok, soon};

/// A caller that speaks HTTP/2.
struct Caller {
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response with all of its body.
struct Answer {
    response: Response<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Caller {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = soon(h2::client::handshake(stream)).await.unwrap();
        Caller { send, connection: tokio::spawn(connection) }
    }

    async fn ask(&mut self, request: Request<()>, body: &[&'static [u8]], trailers: Option<HeaderMap>) -> Answer {
        let mut send = soon(self.send.clone().ready()).await.unwrap();
        let over = body.is_empty() && trailers.is_none();
        let (response, mut stream) = send.send_request(request, over).unwrap();
        for (index, part) in body.iter().enumerate() {
            let last = index + 1 == body.len() && trailers.is_none();
            stream.send_data(Bytes::from_static(part), last).unwrap();
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers).unwrap();
        }
        let (parts, mut received) = soon(response).await.unwrap().into_parts();
        let mut body = Vec::new();
        while let Some(data) = soon(received.data()).await {
            let data = data.unwrap();
            body.extend_from_slice(&data);
            received.flow_control().release_capacity(data.len()).unwrap();
        }
        let trailers = soon(received.trailers()).await.unwrap();
        Answer { response: Response::from_parts(parts, ()), body, trailers }
    }
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://shop{path}")).body(()).unwrap()
}

/// An upstream that speaks HTTP/2: sends the body back with a trailer, and the head as fields.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(echo_one(request, respond));
                }
            });
        }
    });
    address
}

async fn echo_one(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-path", parts.uri.path())
        .header("x-authority", parts.uri.authority().unwrap().as_str())
        .header("x-te", header("te"))
        .body(())
        .unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        stream.send_data(data, false).unwrap();
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn http2_callers_reach_http1_upstreams() {
    let upstream = Upstream::answering(|request| ok(&request.text())).await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    let answer = caller.ask(request("GET", "/p?q"), &[], None).await;
    assert_eq!((answer.response.status().as_u16(), answer.body.as_slice()), (200, &b""[..]));
    let seen = upstream.last();
    assert!(seen.head.starts_with("GET /p?q HTTP/1.1\r\nhost: shop\r\n"), "{}", seen.head);
    assert_eq!(seen.field("transfer-encoding"), None);
    let mut with_length = request("POST", "/");
    with_length.headers_mut().insert("content-length", 5.into());
    assert_eq!(caller.ask(with_length, &[b"he", b"llo"], None).await.body, b"hello");
    assert_eq!(upstream.last().field("content-length"), Some("5"));
    let answer = caller.ask(request("POST", "/"), &[b"he", b"llo"], None).await;
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("he") && body.ends_with("0\r\n\r\n"), "the upstream saw chunks: {body:?}");
    assert_eq!(upstream.last().field("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn many_streams_share_few_upstream_connections() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let caller = Caller::connect(running.address).await;
    let asks = (0..50).map(|_| {
        let send = caller.send.clone();
        tokio::spawn(async move {
            let (response, _) = send.ready().await.unwrap().send_request(request("GET", "/"), true).unwrap();
            response.await.unwrap().status().as_u16()
        })
    });
    for ask in asks.collect::<Vec<_>>() {
        assert_eq!(soon(ask).await.unwrap(), 200);
    }
    assert_eq!(upstream.count(), 50);
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let running = Setup::new().cluster("protocol: Http2").start(&[echo().await]).await;
    let mut caller = Caller::connect(running.address).await;
    let mut call = request("POST", "/shop.Stock/Get");
    call.headers_mut().insert("te", "trailers".parse().unwrap());
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-mine", "1".parse().unwrap());
    let answer = caller.ask(call, &[b"message"], Some(trailers)).await;
    assert_eq!(answer.body, b"message");
    let field = |name: &str| answer.response.headers()[name].to_str().unwrap();
    assert_eq!((field("x-path"), field("x-authority"), field("x-te")), ("/shop.Stock/Get", "shop", "trailers"));
    let trailers = answer.trailers.unwrap();
    assert_eq!((trailers["grpc-status"].as_bytes(), trailers["x-mine"].as_bytes()), (&b"0"[..], &b"1"[..]));
}

#[tokio::test]
async fn http1_callers_reach_http2_upstreams() {
    let running = Setup::new().cluster("protocol: Http2").start(&[echo().await]).await;
    let mut caller = running.connect().await;
    for _ in 0..2 {
        let answer = caller.ask("POST /p HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!((answer.status(), answer.field("x-path")), (200, Some("/p")));
        assert!(answer.text().starts_with("5\r\nhello\r\n0\r\n"), "{}", answer.text());
        assert!(answer.text().contains("grpc-status: 0"), "trailers pass: {}", answer.text());
    }
    let answer =
        caller.ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    assert!(answer.text().starts_with("2\r\nhi\r\n"));
    let head = caller.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(head);
    running.metric("weir_upstream_connects_total{cluster=\"up\"} 1").await;
}

#[tokio::test]
async fn grpc_callers_get_the_proxys_errors_as_grpc_status() {
    let running = Setup::new().start(&[nobody()]).await;
    let mut caller = Caller::connect(running.address).await;
    let mut call = request("POST", "/x");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = caller.ask(call, &[b"message"], None).await;
    assert_eq!(answer.response.status().as_u16(), 200);
    assert_eq!(answer.response.headers()["grpc-status"], "14");
    let plain = caller.ask(request("GET", "/x"), &[], None).await;
    assert_eq!(plain.response.status().as_u16(), 503);
}

#[tokio::test]
async fn large_bodies_pass_under_flow_control() {
    static LARGE: [u8; 1_000_000] = [7; 1_000_000];
    let running = Setup::new().cluster("protocol: Http2").start(&[echo().await]).await;
    let mut caller = Caller::connect(running.address).await;
    let answer = caller.ask(request("POST", "/"), &[&LARGE], None).await;
    assert!(answer.body == LARGE);
    let upstream = Upstream::answering(|request| ok(&request.text())).await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    let mut with_length = request("POST", "/");
    with_length.headers_mut().insert("content-length", LARGE.len().into());
    assert!(caller.ask(with_length, &[&LARGE], None).await.body == LARGE);
}

#[tokio::test]
async fn a_drain_says_goaway_and_streams_finish() {
    let (let_go, gate) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            peer.head().await;
            gate.wait_for(|open| *open).await.unwrap();
            peer.send(ok("done")).await;
        }
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let caller = Caller::connect(running.address).await;
    let (response, _) = caller.send.clone().ready().await.unwrap().send_request(request("GET", "/"), true).unwrap();
    running.metric("weir_active_requests 1").await;
    let proxy = running.proxy.clone();
    let drain = tokio::spawn(async move { proxy.drain(DrainOptions::default()).await });
    let_go.send(true).unwrap();
    assert_eq!(soon(response).await.unwrap().status().as_u16(), 200);
    let report = soon(drain).await.unwrap();
    assert_eq!((report.finished, report.cut), (1, 0), "{report:?}");
    soon(caller.connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_that_are_cut_are_counted_each() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.rest().await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let caller = Caller::connect(running.address).await;
    let ask = async || caller.send.clone().ready().await.unwrap().send_request(request("GET", "/"), true).unwrap().0;
    let responses = [ask().await, ask().await, ask().await];
    running.metric("weir_active_requests 3").await;
    let options = DrainOptions { deadline: std::time::Duration::from_millis(50), ..Default::default() };
    assert_eq!(soon(running.proxy.drain(options)).await.cut, 3);
    for response in responses {
        assert!(soon(response).await.is_err());
    }
    let window = running.proxy.take_health_window();
    assert_eq!((window.inbound.errors, window.faults["cut"], window.faults.len()), (3, 3, 1), "{window:?}");
}

#[tokio::test]
async fn streams_wait_for_the_only_endpoint_to_come_back() {
    let upstream = Upstream::saying("back").await;
    let running = Setup::new().cluster("returning: true").start(&[]).await;
    let mut caller = Caller::connect(running.address).await;
    let proxy = running.proxy.clone();
    let (answer, ()) = tokio::join!(caller.ask(request("GET", "/"), &[], None), async {
        running.metric("weir_active_requests 1").await;
        proxy.apply(Setup::new().snapshot(&[upstream.address])).await.unwrap();
    });
    assert_eq!(answer.body, b"back");
}

#[tokio::test]
async fn a_grpc_call_may_be_silent_and_another_request_may_not() {
    let (let_go, gate) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
            gate.wait_for(|open| *open).await.unwrap();
            peer.send("lf").await;
        }
    })
    .await;
    let running = Setup::new().listener("limits: {idleTimeoutMs: 50}").start(&[upstream.address]).await;
    let (mut grpc, caller) = (Caller::connect(running.address).await, Caller::connect(running.address).await);
    let mut call = request("GET", "/");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let called = tokio::spawn(async move { grpc.ask(call, &[], None).await.body });
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 1").await;
    let mut send = caller.send.clone().ready().await.unwrap();
    let (response, _) = send.send_request(request("GET", "/"), true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    while let Some(Ok(_)) = soon(body.data()).await {}
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 1").await;
    let window = running.proxy.take_health_window();
    assert_eq!((window.inbound.errors, window.faults.len()), (1, 0), "silence is no fault of the proxy's: {window:?}");
    let_go.send(true).unwrap();
    assert_eq!(soon(called).await.unwrap(), b"half");
}

#[tokio::test]
async fn an_http1_caller_that_resets_ends_the_upstream_stream() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.rest().await;
    })
    .await;
    let running = Setup::new().cluster("protocol: Http2").start(&[upstream.address]).await;
    let mut caller = Peer::connect(running.address).await;
    caller.send(GET).await;
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 1").await;
    caller.stream.set_zero_linger().unwrap();
    drop(caller);
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 0").await;
    running.metric("weir_proxy_faults_total{reason=\"downstream_reset\"} 1").await;
}

#[tokio::test]
async fn a_caller_that_names_no_host_is_for_the_cluster() {
    let running = Setup::new().cluster("protocol: Http2").start(&[echo().await]).await;
    let answer = Peer::connect(running.address).await.ask("GET /p HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("x-authority")), (200, Some("up")));
    let unfit = Peer::connect(running.address).await.ask("GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((unfit.status(), unfit.text().as_str()), (400, "the request cannot be sent by HTTP/2\n"));
}

#[tokio::test]
async fn trailers_that_route_or_frame_go_no_further() {
    let running = Setup::new().cluster("protocol: Http2").start(&[echo().await]).await;
    let mut caller = Caller::connect(running.address).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "1".parse().unwrap());
    trailers.insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
    let answer = caller.ask(request("POST", "/"), &[b"x"], Some(trailers)).await;
    let back = answer.trailers.unwrap();
    assert!(back.contains_key("checksum") && !back.contains_key("x-forwarded-for"), "{back:?}");
}

#[tokio::test]
async fn a_host_that_contradicts_the_authority_is_refused() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    let mut two_hosts = request("GET", "/");
    two_hosts.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(caller.ask(two_hosts, &[], None).await.response.status().as_u16(), 400);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn one_listener_takes_both_protocols() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut http2 = Caller::connect(running.address).await;
    assert_eq!(http2.ask(request("GET", "/"), &[], None).await.body, b"x");
    assert_eq!(running.connect().await.ask(GET).await.text(), "x");
    // A method that begins like the HTTP/2 preface.
    let answer = running.connect().await.ask("PRINT / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_caller_that_never_reads_is_reset_and_holds_no_upstream() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n").await;
        let _ = peer.stream.write_all(&vec![7; 10_000_000]).await;
    })
    .await;
    let running = Setup::new().listener("limits: {idleTimeoutMs: 1000}").start(&[upstream.address]).await;
    let caller = Caller::connect(running.address).await;
    let (response, _) = caller.send.clone().ready().await.unwrap().send_request(request("GET", "/"), true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    running.metric("weir_proxy_faults_total{reason=\"downstream_timeout\"} 1").await;
    running.metric("weir_upstream_connections{cluster=\"up\"} 0").await;
    let error = loop {
        if let Err(error) = soon(body.data()).await.expect("the response must not look complete") {
            break error;
        }
    };
    assert!(error.is_reset(), "{error}");
}

#[tokio::test]
async fn a_length_told_in_more_than_one_way_is_refused() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    for lengths in [&[""][..], &["0", "0"], &["0", "5"], &["0, 0"]] {
        let mut ambiguous = request("POST", "/");
        for length in lengths {
            ambiguous.headers_mut().append("content-length", length.parse().unwrap());
        }
        let mut send = soon(caller.send.clone().ready()).await.unwrap();
        // The HTTP/2 library refuses some by itself, by a reset.
        match soon(send.send_request(ambiguous, true).unwrap().0).await {
            Ok(answer) => assert_eq!(answer.status().as_u16(), 400, "{lengths:?}"),
            Err(error) => assert!(error.is_reset(), "{lengths:?}: {error}"),
        }
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(caller.ask(request("GET", "/"), &[], None).await.body, b"x");
}

/// An empty SETTINGS frame, and a GOAWAY that says that no request was looked at (RFC 9113 sections 6.5 and 6.8).
const SETTINGS_AND_GOAWAY: [u8; 26] = {
    let mut frames = [0; 26];
    frames[3] = 4;
    frames[9 + 2] = 8;
    frames[9 + 3] = 7;
    frames
};

#[tokio::test]
async fn a_request_with_a_body_is_repeated_when_the_upstream_did_not_look_at_it() {
    let upstream = Upstream::scripted(|mut peer, number| async move {
        if number == 0 {
            peer.until("hello").await;
            peer.send(SETTINGS_AND_GOAWAY).await;
            peer.rest().await;
            return;
        }
        let mut connection = h2::server::handshake(peer.stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(echo_one(request, respond));
        }
    })
    .await;
    let running = Setup::new().cluster("protocol: Http2").start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    let answer = caller.ask(request("POST", "/"), &[b"hello"], None).await;
    assert_eq!((answer.response.status().as_u16(), answer.body.as_slice()), (200, &b"hello"[..]));
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_repeated() {
    static LARGE: [u8; 10_000] = [7; 10_000];
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.until("hello").await;
        peer.send(SETTINGS_AND_GOAWAY).await;
        peer.rest().await;
    })
    .await;
    let setup = Setup::new().cluster("protocol: Http2").listener("limits: {bufferBytes: 4096}");
    let running = setup.start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    let answer = caller.ask(request("POST", "/"), &[&LARGE, b"hello"], None).await;
    assert_eq!(answer.response.status().as_u16(), 502);
    running.metric("weir_upstream_connects_total{cluster=\"up\"} 1").await;
}

#[tokio::test]
async fn a_connection_that_went_silent_gets_no_other_request_and_is_closed() {
    let upstream = Upstream::scripted(|peer, number| async move {
        let mut connection = h2::server::handshake(peer.stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            if number == 0 {
                // Nothing is read any more, pings neither.
                std::future::pending::<()>().await;
            }
            tokio::spawn(echo_one(request, respond));
        }
    })
    .await;
    let setup = Setup::new().cluster("protocol: Http2").forward("timeoutMs: 200");
    let running = setup.start(&[upstream.address]).await;
    let mut caller = Caller::connect(running.address).await;
    assert_eq!(caller.ask(request("GET", "/"), &[], None).await.response.status().as_u16(), 504);
    assert_eq!(caller.ask(request("GET", "/"), &[], None).await.response.status().as_u16(), 200);
    running.metric("weir_upstream_connects_total{cluster=\"up\"} 2").await;
    running.metric("weir_upstream_connections{cluster=\"up\"} 1").await;
}
