//! SOFABolt: what real peers send is understood, edits leave the rest alone, and no byte is trusted.

mod fixtures;

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use weir_codec::bolt::{Call, Frame, Head, Kind, MAX_SECTION_BYTES, Reject, Version};
use weir_codec::rpc::{Edit, Failure, Limits};

const CAPTURED: &str = include_str!("fixtures/bolt.txt");
const CRC: Version = Version::V2 { minor: 2, switches: 1 };
const VERSIONS: [Version; 4] =
    [Version::V1, Version::V2 { minor: 1, switches: 0 }, Version::V2 { minor: 1, switches: 1 }, CRC];

fn decode(bytes: &[u8]) -> Result<Option<Frame>, Reject> {
    Frame::decode(&mut BytesMut::from(bytes), &Limits::default())
}

fn whole(bytes: &[u8]) -> Frame {
    decode(bytes).unwrap().unwrap()
}

fn request(version: Version, headers: &[(&str, &str)], content: &[u8]) -> Frame {
    let timeout = Duration::from_secs(3);
    let call = Call { id: 7, service: "S:1.0", method: "m", headers, timeout, one_way: false, content };
    Frame::request(version, &call).unwrap()
}

fn pairs(frame: &Frame) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    frame.headers().unwrap().iter().map(|(key, value)| (text(key), text(value))).collect()
}

#[test]
fn captured_frames_are_understood() {
    let expected = [
        ("request", Kind::Request, 1),
        ("one-way", Kind::OneWay, 2),
        ("properties", Kind::Request, 3),
        ("heartbeat", Kind::Heartbeat, 4),
        ("heartbeat-ack", Kind::HeartbeatAck, 9),
        ("response", Kind::Response, 9),
    ];
    for (version, prefix) in [(Version::V1, "v1"), (VERSIONS[1], "v2"), (CRC, "v2-crc")] {
        for (name, kind, id) in expected {
            let bytes = fixtures::frame(CAPTURED, &format!("{prefix}-{name}"));
            let frame = whole(&bytes);
            assert_eq!((frame.kind(), frame.id(), frame.version()), (kind, id, version), "{prefix}-{name}");
            assert_eq!((frame.status(), frame.head().codec), (0, 1));
            let timeout = matches!(kind, Kind::Request | Kind::OneWay | Kind::Heartbeat).then_some(3);
            assert_eq!(frame.timeout(), timeout.map(Duration::from_secs));
            assert_eq!(frame.as_bytes(), bytes);
        }
    }
}

#[test]
fn service_and_method_of_a_captured_request() {
    for (name, bytes) in fixtures::frames(CAPTURED) {
        let frame = whole(&bytes);
        let is_call = matches!(frame.kind(), Kind::Request | Kind::OneWay);
        assert_eq!(frame.service(), is_call.then_some("com.example.Service:1.0"), "{name}");
        assert_eq!(frame.method(), is_call.then_some("call"), "{name}: sofa-bolt-node names it in the content only");
        if is_call {
            assert_eq!(frame.class(), b"com.alipay.sofa.rpc.core.request.SofaRequest");
        }
    }
}

#[test]
fn captured_frames_with_a_byte_changed_never_panic() {
    for (_, bytes) in fixtures::frames(CAPTURED) {
        for at in 0..bytes.len() {
            for change in [0xff, 0x80, 1] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                if let Ok(Some(mut frame)) = decode(&changed) {
                    let _ = (frame.service().is_some(), frame.method().is_some(), frame.content().len());
                    let _ = frame.edit(&[Edit::Set("a", "b"), Edit::Remove("service")]);
                }
            }
        }
    }
}

#[test]
fn a_checksum_is_verified_and_kept_right() {
    let sent = fixtures::frame(CAPTURED, "v2-crc-request");
    for at in 12..sent.len() - 4 {
        let mut damaged = sent.clone();
        damaged[at] ^= 1;
        // In a length the damage may also make the frame longer or shorter.
        assert!(!matches!(decode(&damaged), Ok(Some(_))), "byte {at}");
    }
    let mut frame = whole(&sent);
    frame.set_id(0xdead_beef);
    assert_eq!(whole(frame.as_bytes()).id(), 0xdead_beef);
    frame.edit(&[Edit::Set("baggage", "a=b")]).unwrap();
    assert_eq!(whole(frame.as_bytes()).headers().unwrap().text("baggage"), Some("a=b"));
    frame.edit(&[Edit::Remove("baggage")]).unwrap();
    frame.set_id(1);
    assert_eq!(frame.as_bytes(), sent);
}

#[test]
fn a_switch_without_meaning_adds_no_checksum() {
    let version = Version::V2 { minor: 1, switches: 1 };
    let frame = request(version, &[], b"body");
    assert_eq!(whole(frame.as_bytes()).version(), version);
    assert_eq!(&frame.as_bytes()[frame.as_bytes().len() - 4..], b"body");
    // A client that adds four bytes whenever the switch is on, as sofa-bolt-node does, must be able to read the answer.
    let answer = Frame::failure(frame.head(), Failure::Timeout, "late");
    assert_eq!(answer.version(), Version::V2 { minor: 1, switches: 0 });
}

#[test]
fn edits_touch_only_what_they_name() {
    for version in VERSIONS {
        let before = request(version, &[("x", "1"), ("baggage", "a=b"), ("y", "")], &[0xab; 100]);
        let mut frame = before.clone();
        frame
            .edit(&[Edit::Set("baggage", "c=d"), Edit::Remove("x"), Edit::Set("new", "é"), Edit::Remove("none")])
            .unwrap();
        let expected = [
            ("service", "S:1.0"),
            ("sofa_head_target_service", "S:1.0"),
            ("sofa_head_method_name", "m"),
            ("baggage", "c=d"),
            ("y", ""),
            ("new", "é"),
        ];
        assert_eq!(pairs(&frame), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!((frame.class(), frame.content(), frame.id()), (before.class(), before.content(), 7));
        assert_eq!(whole(frame.as_bytes()), frame);
    }
}

#[test]
fn edits_that_change_nothing_change_no_byte() {
    let before = request(CRC, &[("a", "1")], b"x");
    let mut frame = before.clone();
    frame.edit(&[Edit::Set("a", "1"), Edit::Remove("b"), Edit::Set("c", "2"), Edit::Remove("c")]).unwrap();
    assert_eq!(frame, before);
}

#[test]
fn the_last_of_several_pairs_counts_and_setting_leaves_one() {
    let mut frame = request(Version::V1, &[("a", "1"), ("b", ""), ("a", "2")], b"");
    assert_eq!(frame.headers().unwrap().text("a"), Some("2"));
    frame.edit(&[Edit::Set("a", "3")]).unwrap();
    let of_a: Vec<_> = pairs(&frame).into_iter().filter(|(key, _)| key == "a").collect();
    assert_eq!(of_a, [("a".to_owned(), "3".to_owned())]);
}

#[test]
fn a_null_value_is_none() {
    let mut bytes = request(Version::V1, &[("k", "abcd")], b"").as_bytes().to_vec();
    let at = bytes.windows(4).position(|window| window == b"abcd").unwrap();
    bytes.drain(at..at + 4);
    bytes[at - 4..at].copy_from_slice(&(-1i32).to_be_bytes());
    let len = u16::from_be_bytes([bytes[16], bytes[17]]) - 4;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    let mut frame = whole(&bytes);
    assert_eq!(frame.headers().unwrap().get("k"), None);
    frame.edit(&[Edit::Set("z", "1")]).unwrap();
    frame.edit(&[Edit::Remove("z")]).unwrap();
    assert_eq!(frame.as_bytes(), bytes);
}

#[test]
fn a_header_map_that_became_too_long_is_refused() {
    let before = request(Version::V1, &[], b"content");
    let mut frame = before.clone();
    let most = MAX_SECTION_BYTES - before.head().headers_len - 8 - 1;
    assert_eq!(
        frame.edit(&[Edit::Set("k", &"v".repeat(most + 1))]),
        Err(Reject::HeaderMapTooLong(MAX_SECTION_BYTES + 1))
    );
    assert_eq!(frame, before);
    frame.edit(&[Edit::Set("k", &"v".repeat(most))]).unwrap();
    assert_eq!(whole(frame.as_bytes()), frame);
}

#[test]
fn lengths_that_lie_meet_a_limit() {
    let sent = request(Version::V1, &[], b"x").as_bytes().to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sent.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let limit = Limits::default().max_body_bytes;
    let too_long = Reject::TooLong { len: limit + 1, max: limit };
    for (frame, expected) in [
        (with(0, &[3]), Err(Reject::Protocol(3))),
        (with(0, b"G"), Err(Reject::Protocol(b'G'))),
        (with(0, &[2, 0]), Err(Reject::Minor(0))),
        (with(0, &[2, 3]), Err(Reject::Minor(3))),
        (with(1, &[3]), Err(Reject::Type(3))),
        (with(2, &[0, 9]), Err(Reject::Command(9))),
        (with(1, &[0, 0, 1]), Err(Reject::Command(1))),
        (with(14, &[0x80, 0]), Err(Reject::NegativeLength)),
        (with(16, &[0xff, 0xff]), Err(Reject::NegativeLength)),
        (with(18, &[0x80, 0, 0, 0]), Err(Reject::NegativeLength)),
        (with(18, &(limit as u32 + 1).to_be_bytes()), Err(too_long)),
        (with(18, &(limit as u32).to_be_bytes()), Ok(None)),
        (with(14, &[0x7f, 0xff]), Ok(None)),
        (with(16, &[0x7f, 0xff]), Ok(None)),
    ] {
        let mut buffer = BytesMut::from(&frame[..]);
        let capacity = buffer.capacity();
        assert_eq!(Frame::decode(&mut buffer, &Limits::default()), expected);
        assert_eq!((buffer.len(), buffer.capacity()), (frame.len(), capacity), "nothing is taken or reserved");
        assert_eq!(Head::parse(&frame).is_ok(), matches!(expected, Ok(_) | Err(Reject::TooLong { .. })));
    }
}

#[test]
fn header_maps_that_lie_are_refused_and_go_on_untouched() {
    for lengths in [[0x7f, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0xfe], [0, 0, 0, 200]] {
        let mut bytes = request(Version::V1, &[], b"x").as_bytes().to_vec();
        bytes[22 + 44..22 + 48].copy_from_slice(&lengths);
        let mut frame = whole(&bytes);
        assert_eq!(frame.headers().err(), Some(Reject::HeaderMap));
        assert_eq!(frame.edit(&[Edit::Set("a", "b")]), Err(Reject::HeaderMap));
        assert_eq!(frame.service(), None);
        assert_eq!(frame.as_bytes(), bytes);
    }
}

#[test]
fn what_the_proxy_says_itself_is_understood() {
    for version in VERSIONS {
        let heartbeat = Frame::heartbeat(version, 5);
        let ack = Frame::heartbeat_ack(heartbeat.head());
        let goaway = Frame::goaway(version, 6);
        for (frame, kind, id) in
            [(&heartbeat, Kind::Heartbeat, 5), (&ack, Kind::HeartbeatAck, 5), (&goaway, Kind::Goaway, 6)]
        {
            let read = whole(frame.as_bytes());
            assert_eq!((read.kind(), read.id()), (kind, id));
            assert!(read.content().is_empty());
        }
        for failure in Failure::ALL {
            let answer = Frame::failure(request(version, &[], b"").head(), failure, "why");
            let read = whole(answer.as_bytes());
            assert_eq!((read.kind(), read.id(), read.status()), (Kind::Response, 7, failure.bolt_status()));
            assert!(read.status() != 0);
        }
    }
}

fn versions() -> impl Strategy<Value = Version> {
    prop::sample::select(&VERSIONS[..])
}

fn texts() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-c]{1,2}", "\\PC{0,12}"), 0..8)
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

proptest! {
    #[test]
    fn a_frame_is_read_the_same_however_it_is_cut(
        version in versions(), headers in texts(), content in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let sent = request(version, &borrowed(&headers), &content);
        let mut buffer = BytesMut::new();
        for (at, byte) in sent.as_bytes().iter().enumerate() {
            prop_assert_eq!(Frame::decode(&mut buffer, &Limits::default()), Ok(None), "after {} bytes", at);
            buffer.extend_from_slice(&[*byte]);
        }
        buffer.extend_from_slice(b"\x01rest");
        let read = Frame::decode(&mut buffer, &Limits::default()).unwrap().unwrap();
        prop_assert_eq!(&buffer[..], b"\x01rest");
        prop_assert_eq!(read.content(), &content[..]);
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn ids_are_set_in_place(version in versions(), id: u32, content in prop::collection::vec(any::<u8>(), 0..40)) {
        let sent = request(version, &[], &content);
        let mut frame = sent.clone();
        frame.set_id(id);
        let read = whole(frame.as_bytes());
        prop_assert_eq!(read.id(), id);
        frame.set_id(sent.id());
        prop_assert_eq!(frame, sent);
    }

    #[test]
    fn edits_do_what_a_map_would(version in versions(), headers in texts(), edits in texts(), removed in "[a-c]{1,2}") {
        let sent = request(version, &borrowed(&headers), b"content");
        let mut edits: Vec<_> = edits.iter().map(|(key, value)| Edit::Set(key, value)).collect();
        edits.push(Edit::Remove(&removed));
        let mut expected: std::collections::BTreeMap<_, _> = pairs(&sent).into_iter().collect();
        for edit in &edits {
            match edit.value() {
                Some(value) => _ = expected.insert(edit.key().to_owned(), value.to_owned()),
                None => _ = expected.remove(edit.key()),
            }
        }
        let mut frame = sent.clone();
        frame.edit(&edits).unwrap();
        let read = whole(frame.as_bytes());
        prop_assert_eq!(pairs(&read).into_iter().collect::<std::collections::BTreeMap<_, _>>(), expected);
        prop_assert_eq!((read.class(), read.content()), (sent.class(), sent.content()));
        let untouched = |pair: &(String, String)| edits.iter().all(|edit| edit.key() != pair.0);
        let left: Vec<_> = pairs(&sent).into_iter().filter(untouched).collect();
        prop_assert_eq!(pairs(&read).into_iter().filter(untouched).collect::<Vec<_>>(), left, "order is kept");
        let again = read.clone();
        frame.edit(&edits).unwrap();
        prop_assert_eq!(frame, again, "a second time changes nothing");
    }

    #[test]
    fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..120), version in 1u8..3) {
        if let Some(first) = bytes.first_mut() { *first = version; }
        if let Ok(Some(mut frame)) = decode(&bytes) {
            let _ = (frame.service().is_some(), frame.method().is_some(), frame.edit(&[Edit::Set("a", "b")]).is_ok());
        }
    }
}
