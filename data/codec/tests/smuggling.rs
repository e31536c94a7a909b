//! The request-smuggling list: whatever two parsers could read differently is rejected with the right status.

use weir_codec::http1::{Framing, Reject, Version, parse_request, parse_response, slots};

const MAX_HEAD: usize = 4096;

fn request(bytes: &[u8]) -> Result<Option<(String, String, Framing)>, Reject> {
    let mut slots = slots::<20>();
    let head = parse_request(bytes, &mut slots, MAX_HEAD)?;
    Ok(head.map(|head| (head.host.to_owned(), head.path.to_owned(), head.framing)))
}

#[test]
fn ambiguous_requests_are_rejected() {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let long = head(&format!("X: {}", "x".repeat(MAX_HEAD)));
    let many = head(&"X: 1\r\n".repeat(30));
    let cases: Vec<(String, Reject, u16)> = vec![
        // Framing.
        (head("Content-Length: 5\r\nTransfer-Encoding: chunked"), Reject::LengthAndEncoding, 400),
        (head("Transfer-Encoding: chunked\r\nContent-Length: 5"), Reject::LengthAndEncoding, 400),
        (head("Content-Length: 5\r\nContent-Length: 6"), Reject::ContentLengthDuplicate, 400),
        (head("Content-Length: 5\r\nContent-Length: 5"), Reject::ContentLengthDuplicate, 400),
        (head("Content-Length: 5, 5"), Reject::ContentLength, 400),
        (head("Content-Length: +5"), Reject::ContentLength, 400),
        (head("Content-Length: -5"), Reject::ContentLength, 400),
        (head("Content-Length: 0x5"), Reject::ContentLength, 400),
        (head("Content-Length: 5 6"), Reject::ContentLength, 400),
        (head("Content-Length:"), Reject::ContentLength, 400),
        (head("Content-Length: 99999999999999999999"), Reject::ContentLength, 400),
        (head("Transfer-Encoding: xchunked"), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding: identity"), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding: chunked, identity"), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding: \"chunked\""), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding:"), Reject::TransferEncoding, 400),
        (head("Transfer-Encoding: gzip, chunked"), Reject::TransferCoding, 501),
        (head("Transfer-Encoding: \u{b}chunked"), Reject::Header, 400),
        // Lines and fields.
        ("GET / HTTP/1.1\nHost: a\n\n".into(), Reject::BareLineEnd, 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), Reject::BareLineEnd, 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), Reject::BareLineEnd, 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::BareLineEnd, 400),
        (head("X: a\rb"), Reject::Header, 400),
        (head("X: a\0b"), Reject::Header, 400),
        (head("X: a\r\n folded"), Reject::Header, 400),
        (head("X: a\r\n\tfolded"), Reject::Header, 400),
        (head(" X: a"), Reject::Header, 400),
        (head("X : a"), Reject::Header, 400),
        (head("Transfer-Encoding : chunked"), Reject::Header, 400),
        (head("Content-Length\t: 5"), Reject::Header, 400),
        (head("X"), Reject::Header, 400),
        (head(": a"), Reject::Header, 400),
        (head("X\u{e9}: a"), Reject::Header, 400),
        (head("X[]: a"), Reject::Header, 400),
        (long, Reject::HeadTooLong, 431),
        (many, Reject::TooManyHeaders, 431),
        // Hosts and targets.
        ("GET / HTTP/1.1\r\n\r\n".into(), Reject::HostMissing, 400),
        (head("Host: b"), Reject::HostDuplicate, 400),
        (head("Host: a"), Reject::HostDuplicate, 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), Reject::HostMalformed, 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), Reject::HostMalformed, 400),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(), Reject::HostMalformed, 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), Reject::HostMalformed, 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::HostMismatch, 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::HostMalformed, 400),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::HostMalformed, 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::TargetForm, 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::TargetForm, 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::TargetForm, 400),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::TargetCharacter, 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::TargetCharacter, 400),
        ("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::FirstLine, 400),
        ("GET / / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::Version, 505),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::FirstLine, 400),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::FirstLine, 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Reject::FirstLine, 400),
        ("GET /\r\n\r\n".into(), Reject::FirstLine, 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".into(), Reject::Method, 501),
        // Versions and expectations.
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), Reject::Version, 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), Reject::Version, 505),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n".into(), Reject::Version, 505),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Reject::TransferEncoding, 400),
        (head("Expect: 200-ok"), Reject::Expectation, 417),
    ];
    for (bytes, reject, status) in cases {
        assert_eq!(request(bytes.as_bytes()), Err(reject), "{bytes:?}");
        assert_eq!(reject.status(), status, "{reject}");
    }
}

#[test]
fn ordinary_requests_are_read() {
    let read = |text: &str| request(text.as_bytes()).unwrap().unwrap();
    assert_eq!(read("GET /p?q HTTP/1.1\r\nHost: a:1\r\n\r\n"), ("a:1".into(), "/p?q".into(), Framing::None));
    assert_eq!(read("GET http://A/p HTTP/1.1\r\nHost: a\r\n\r\n"), ("A".into(), "/p".into(), Framing::None));
    assert_eq!(read("GET http://a HTTP/1.0\r\n\r\n"), ("a".into(), "/".into(), Framing::None));
    assert_eq!(read("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), ("a".into(), "*".into(), Framing::None));
    let post = "\r\nPOST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:  Chunked \r\n\r\n";
    assert_eq!(read(post), ("a".into(), "/".into(), Framing::Chunked));
    let post = "POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 007\r\n\r\n";
    assert_eq!(read(post), ("[::1]:80".into(), "/".into(), Framing::Length(7)));
}

#[test]
fn upgrades_are_seen_but_never_to_h2c() {
    let upgrade = |text: &str| {
        let mut slots = slots::<20>();
        let head = parse_request(text.as_bytes(), &mut slots, MAX_HEAD).unwrap().unwrap();
        head.upgrade.is_some()
    };
    assert!(upgrade("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert!(!upgrade("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"));
    assert!(!upgrade("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, H2C\r\n\r\n"));
    let two = |first: &str, second: &str| {
        upgrade(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {first}\r\nUpgrade: {second}\r\n\r\n"
        ))
    };
    assert!(two("websocket", "other"));
    assert!(!two("h2c", "websocket") && !two("websocket", "h2c"));
    assert!(!upgrade("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
}

#[test]
fn responses_are_framed_by_what_was_asked() {
    let framing = |text: &str, to_head: bool| {
        let mut slots = slots::<20>();
        parse_response(text.as_bytes(), &mut slots, MAX_HEAD, to_head).map(|head| head.map(|head| head.framing))
    };
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false), Ok(Some(Framing::Length(3))));
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true), Ok(Some(Framing::None)));
    assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false), Ok(Some(Framing::None)));
    assert_eq!(framing("HTTP/1.1 204\r\n\r\n", false), Ok(Some(Framing::None)));
    assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n", false), Ok(Some(Framing::UntilClose)));
    assert_eq!(framing("HTTP/1.1 200 OK\r\n", false), Ok(None));
    for (text, reject) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::LengthAndEncoding),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Reject::ContentLengthDuplicate),
        ("HTTP/1.1 200 OK\nContent-Length: 3\n\n", Reject::BareLineEnd),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Reject::Header),
        ("HTTP/1.1 099 OK\r\n\r\n", Reject::FirstLine),
        ("HTTP/3.0 200 OK\r\n\r\n", Reject::Version),
    ] {
        assert_eq!(framing(text, false), Err(reject), "{text:?}");
    }
}

#[test]
fn http_1_0_closes_unless_asked() {
    let persists = |text: &str| {
        let mut slots = slots::<20>();
        let head = parse_request(text.as_bytes(), &mut slots, MAX_HEAD).unwrap().unwrap();
        (head.version, head.connection.persists(head.version))
    };
    assert_eq!(persists("GET / HTTP/1.0\r\n\r\n"), (Version::Http10, false));
    assert_eq!(persists("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), (Version::Http10, true));
    assert_eq!(persists("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (Version::Http11, true));
    assert_eq!(persists("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n"), (Version::Http11, false));
}
