//! The request-smuggling list over a socket: answered 400 (or what fits better) and closed, never forwarded.

use crate::peers::{GET, Setup, Upstream};

#[tokio::test]
async fn ambiguous_requests_are_answered_and_the_connection_closed() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let chunked = |body: &str| format!("{}{body}", post("Transfer-Encoding: chunked"));
    let cases = [
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (post("Content-Length: 5\r\nContent-Length: 5"), 400),
        (post("Content-Length: 5\r\nContent-Length: 6"), 400),
        (post("Content-Length: 5, 6"), 400),
        (post("Content-Length: +5"), 400),
        (post("Content-Length: 99999999999999999999"), 400),
        (post("Transfer-Encoding: xchunked"), 400),
        (post("Transfer-Encoding: chunked, identity"), 400),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        (post("Transfer-Encoding: gzip, chunked"), 501),
        (post("Transfer-Encoding : chunked"), 400),
        (post("X: a\r\n folded"), 400),
        (post("X: a\rb"), 400),
        (post("X: a\0b"), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".into(), 501),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        (chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5 \r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5\nhello\r\n0\r\n\r\n"), 400),
        (chunked("10000000000000000\r\n"), 400),
        (chunked("5\r\nhelloX\r\n0\r\n\r\n"), 400),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), 400),
    ];
    for (request, status) in cases {
        let mut caller = running.connect().await;
        // What follows must never be taken for a request of its own.
        caller.send(format!("{request}{GET}")).await;
        let answer = caller.message().await.unwrap_or_else(|| panic!("no answer to {request:?}"));
        assert_eq!((answer.status(), answer.field("connection")), (status, Some("close")), "{request:?}");
        assert!(caller.rest().await.is_empty(), "more than one answer to {request:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_chunk_that_turns_bad_later_ends_the_upstream_connection_too() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    running.metric("weir_active_requests 1").await;
    caller.send("zz\r\n").await;
    assert_eq!(caller.message().await.unwrap().status(), 400);
    assert!(caller.rest().await.is_empty());
    assert_eq!(upstream.count(), 0);
    running.metric("weir_upstream_connections{cluster=\"up\"} 0").await;
}
