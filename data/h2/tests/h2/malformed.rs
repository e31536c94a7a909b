//! What breaks a rule is answered with the code that the RFC gives it, on the stream or for the connection.

use tokio::io::{AsyncWriteExt, duplex};
use tokio::task::spawn_local;
use weir_h2::{Config, Error, Fields, Reason, RequestLine};

use crate::wire::*;

const PROTOCOL: Told = Told::Goaway(Reason::PROTOCOL_ERROR);
const SIZE: Told = Told::Goaway(Reason::FRAME_SIZE_ERROR);
const FLOW: Told = Told::Goaway(Reason::FLOW_CONTROL_ERROR);
const CLOSED: Told = Told::Goaway(Reason::STREAM_CLOSED);
const COMPRESSION: Told = Told::Goaway(Reason::COMPRESSION_ERROR);

fn reset(reason: Reason) -> Told {
    Told::Reset(1, reason)
}

fn with_fields(block: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    [block, &fields.iter().flat_map(|(name, value)| literal(name, value)).collect::<Vec<_>>()].concat()
}

fn check(cases: Vec<(&str, Vec<Vec<u8>>, Told)>) {
    for (name, frames, expected) in cases {
        assert_eq!(told(&say(&frames)), expected, "{name}");
    }
}

#[test]
fn frames_that_may_not_be_there() {
    let end = END_STREAM | END_HEADERS;
    check(vec![
        ("data on no stream", vec![frame(DATA, 0, 0, b"x")], PROTOCOL),
        ("data on an idle stream", vec![frame(DATA, 0, 1, b"x")], PROTOCOL),
        ("data behind the end", vec![get(1), frame(DATA, 0, 1, b"x")], reset(Reason::STREAM_CLOSED)),
        ("headers on no stream", vec![frame(HEADERS, end, 0, GET)], PROTOCOL),
        ("headers on a stream of the server's", vec![frame(HEADERS, end, 2, GET)], PROTOCOL),
        ("an unused stream below the last", vec![get(5), get(3)], CLOSED),
        ("headers behind the end", vec![get(1), get(1)], reset(Reason::STREAM_CLOSED)),
        ("priority on no stream", vec![frame(PRIORITY, 0, 0, &[0; 5])], PROTOCOL),
        ("a reset of no stream", vec![frame(RST_STREAM, 0, 0, &[0; 4])], PROTOCOL),
        ("a reset of an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], PROTOCOL),
        ("settings on a stream", vec![frame(SETTINGS, 0, 1, &[])], PROTOCOL),
        ("a push", vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], PROTOCOL),
        ("a ping on a stream", vec![frame(PING, 0, 1, &[0; 8])], PROTOCOL),
        ("goaway on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], PROTOCOL),
        ("a window update of an idle stream", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], PROTOCOL),
        ("a continuation of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, GET)], PROTOCOL),
        ("an interrupted header block", vec![frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])], PROTOCOL),
        ("a block interrupted by an unknown frame", vec![frame(HEADERS, 0, 1, GET), frame(99, 0, 0, &[])], PROTOCOL),
        (
            "a continuation on another stream",
            vec![frame(HEADERS, 0, 1, GET), frame(CONTINUATION, END_HEADERS, 3, &[])],
            PROTOCOL,
        ),
        ("an unknown frame", vec![frame(99, 0xff, 7, b"whatever")], Told::Nothing),
        ("an acknowledgement nobody waits for", vec![frame(SETTINGS, 1, 0, &[])], Told::Nothing),
    ]);
}

#[test]
fn frames_of_a_size_they_may_not_have() {
    check(vec![
        ("a frame that is too large", vec![frame(DATA, 0, 1, &[0; 16_385])], SIZE),
        ("priority of 4 bytes", vec![post(1), frame(PRIORITY, 0, 1, &[0; 4])], reset(Reason::FRAME_SIZE_ERROR)),
        ("a reset of 5 bytes", vec![post(1), frame(RST_STREAM, 0, 1, &[0; 5])], SIZE),
        ("settings of 5 bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])], SIZE),
        ("an acknowledgement that says something", vec![frame(SETTINGS, 1, 0, &[0; 6])], SIZE),
        ("a ping of 7 bytes", vec![frame(PING, 0, 0, &[0; 7])], SIZE),
        ("goaway of 7 bytes", vec![frame(GOAWAY, 0, 0, &[0; 7])], SIZE),
        ("a window update of 3 bytes", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], SIZE),
        ("padding longer than the frame", vec![post(1), frame(DATA, 8, 1, &[2, 0])], PROTOCOL),
        ("padding longer than the block", vec![frame(HEADERS, 8 | END_HEADERS, 1, &[9, 0x82])], PROTOCOL),
        ("headers too short for their priority", vec![frame(HEADERS, 0x20 | END_HEADERS, 1, &[0; 4])], SIZE),
    ]);
}

#[test]
fn windows_and_settings_out_of_range() {
    let most = [0x7f, 0xff, 0xff, 0xff];
    check(vec![
        ("a window update of nothing", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], PROTOCOL),
        ("the same on a stream", vec![post(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])], reset(Reason::PROTOCOL_ERROR)),
        ("a window that is too large", vec![frame(WINDOW_UPDATE, 0, 0, &most)], FLOW),
        ("the same on a stream", vec![post(1), frame(WINDOW_UPDATE, 0, 1, &most)], reset(Reason::FLOW_CONTROL_ERROR)),
        (
            "the same by settings",
            vec![
                post(1),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]),
                frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
            ],
            FLOW,
        ),
        ("a push setting of 2", vec![frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])], PROTOCOL),
        ("a window size out of range", vec![frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], FLOW),
        ("a frame size out of range", vec![frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])], PROTOCOL),
    ]);
}

#[test]
fn messages_that_are_malformed() {
    let head = |block: Vec<u8>| vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)];
    let protocol = reset(Reason::PROTOCOL_ERROR);
    let field = |name: &str, value: &str| head(with_fields(GET, &[(name, value)]));
    let long = || frame(HEADERS, END_HEADERS, 1, &with_fields(POST, &[("content-length", "5")]));
    check(vec![
        ("an upper-case name", field("X-Upper", "1"), protocol),
        ("a name with a space", field("x y", "1"), protocol),
        ("an empty name", field("", "1"), protocol),
        ("a value with a line break", field("x", "1\r\nevil: 1"), protocol),
        ("a value with NUL", field("x", "\0"), protocol),
        ("a value that begins with a blank", field("x", " 1"), protocol),
        ("connection", field("connection", "close"), protocol),
        ("transfer-encoding", field("transfer-encoding", "chunked"), protocol),
        ("te other than trailers", field("te", "gzip"), protocol),
        ("an unknown pseudo field", field(":other", "1"), protocol),
        ("extended CONNECT that was not offered", field(":protocol", "websocket"), protocol),
        ("a pseudo field behind others", head([&literal("x", "1"), GET].concat()), protocol),
        ("two methods", head([&[0x82], GET].concat()), protocol),
        ("a status", head([GET, &[0x88]].concat()), protocol),
        ("no path", head(GET[..2].to_vec()), protocol),
        ("no block at all", head(Vec::new()), protocol),
        ("a length without a body", field("content-length", "5"), protocol),
        ("a body that is too long", vec![long(), frame(DATA, END_STREAM, 1, b"123456")], protocol),
        ("a body that is too short", vec![long(), frame(DATA, END_STREAM, 1, b"1234")], protocol),
        (
            "a body that is too short before trailers",
            vec![long(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &literal("a", "b"))],
            protocol,
        ),
        ("trailers that do not end", vec![post(1), frame(HEADERS, END_HEADERS, 1, &literal("a", "b"))], protocol),
        ("trailers with a path", vec![post(1), frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x84])], protocol),
        ("a place that is not there", head(vec![0xff, 0x7f]), COMPRESSION),
        ("a table larger than offered", head([&[0x3f, 0xe2, 0x1f], GET].concat()), COMPRESSION),
        ("a body as long as told", vec![long(), frame(DATA, END_STREAM, 1, b"12345")], Told::Nothing),
    ]);
}

#[test]
fn a_connection_begins_as_it_must() {
    let say = |bytes: &[u8]| told(&say_to(Config::default(), Does::Echo, &[bytes]));
    assert_eq!(say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), PROTOCOL);
    assert_eq!(say(&[weir_h2::PREFACE, &get(1)].concat()), PROTOCOL);
}

#[test]
fn more_data_than_the_window_allows() {
    let config = Config { stream_window_bytes: 65_535, ..Config::default() };
    let data = || frame(DATA, 0, 1, &[0; 16_384]);
    let frames = hello(&[post(1), data(), data(), data(), data()]);
    let told = told(&say_to(config, Does::Hold, &[&frames]));
    assert_eq!(told, reset(Reason::FLOW_CONTROL_ERROR));
    let config = Config { connection_window_bytes: 65_535, ..config };
    let other = |stream| frame(DATA, 0, stream, &[0; 16_384]);
    let frames = hello(&[post(1), post(3), data(), data(), other(3), other(3)]);
    assert_eq!(self::told(&say_to(config, Does::Hold, &[&frames])), FLOW);
}

#[test]
fn what_was_under_way_to_a_stream_we_reset_is_not_held_against_the_peer() {
    let broken = frame(HEADERS, END_HEADERS, 1, &with_fields(POST, &[("connection", "close")]));
    let rest = [frame(DATA, 0, 1, b"x"), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), frame(RST_STREAM, 0, 1, &[0; 4])];
    let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &literal("a", "b"));
    let frames = say(&[&[broken][..], &rest, &[trailers, get(3)]].concat());
    assert_eq!(told(&frames), reset(Reason::PROTOCOL_ERROR));
    assert!(frames.iter().all(|frame| frame.kind != GOAWAY), "{frames:?}");
}

/// What a client makes of what a server says on its first stream.
fn answered(frames: &[Vec<u8>]) -> (Result<u16, Error>, Told) {
    let (mut peer, io) = duplex(1 << 20);
    let said = [&frame(SETTINGS, 0, 0, &[])[..], &frames.concat()].concat();
    run(async move {
        let (send, connection) = weir_h2::connect(io, Config::default());
        let driver = spawn_local(connection);
        let line = RequestLine { method: "GET", scheme: "http", authority: "a", path: "/", content_length: None };
        let (_sending, mut receiving) = send.send(&line, &Fields::new(), true).unwrap();
        peer.write_all(&said).await.unwrap();
        peer.write_all(&frame(PING, 0, 0, b"the last")).await.unwrap();
        let mut preface = [0; 24];
        tokio::io::AsyncReadExt::read_exact(&mut peer, &mut preface).await.unwrap();
        let told = told(&frames_until_answered(&mut peer).await);
        drop(peer);
        let status = receiving.head().await.map(|head| head.status());
        driver.await.unwrap().ok();
        (status, told)
    })
}

#[test]
fn responses_that_are_malformed() {
    let head = |flags, block: &[u8]| frame(HEADERS, flags | END_HEADERS, 1, block);
    let by_us = |reason| Err(Error::Reset { reason, by: weir_h2::By::Us });
    let malformed = (by_us(Reason::PROTOCOL_ERROR), reset(Reason::PROTOCOL_ERROR));
    assert_eq!(answered(&[head(END_STREAM, &[0x88])]), (Ok(200), Told::Nothing));
    let interim = head(0, &[8, 3, b'1', b'0', b'3']);
    assert_eq!(answered(&[interim.clone(), interim, head(END_STREAM, &[0x88])]), (Ok(200), Told::Nothing));
    for frames in [
        vec![frame(DATA, END_STREAM, 1, b"x")],
        vec![head(END_STREAM, &[])],
        vec![head(END_STREAM, &[0x88, 0x84])],
        vec![head(END_STREAM, &[8, 3, b'1', b'0', b'0'])],
        vec![head(0, &[8, 3, b'1', b'0', b'1'])],
        vec![head(END_STREAM, &with_fields(&[0x88], &[("content-length", "1")]))],
        vec![head(END_STREAM, &with_fields(&[0x88], &[("upgrade", "x")]))],
    ] {
        assert_eq!(answered(&frames), malformed, "{frames:?}");
    }
    let gone = |reason| Err(Error::GoAway { reason, by: weir_h2::By::Us });
    for frames in [
        frame(HEADERS, END_HEADERS, 3, &[0x88]),
        frame(HEADERS, END_HEADERS, 2, &[0x88]),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1]),
    ] {
        assert_eq!(answered(std::slice::from_ref(&frames)), (gone(Reason::PROTOCOL_ERROR), PROTOCOL), "{frames:?}");
    }
}

#[test]
fn a_server_that_goes_tells_which_requests_it_did_not_look_at() {
    let goaway = |last: u8| frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]);
    assert_eq!(answered(&[goaway(0)]).0, Err(Error::NotProcessed));
    let end = frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x88]);
    assert_eq!(answered(&[goaway(1), end]).0, Ok(200));
    let refused = frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]);
    let expected = Error::Reset { reason: Reason::REFUSED_STREAM, by: weir_h2::By::Peer };
    assert_eq!(answered(&[refused]).0, Err(expected));
}
