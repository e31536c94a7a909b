//! Dubbo: what a real peer sends is understood, edits leave the rest alone, and no byte is trusted.

mod fixtures;

use bytes::BytesMut;
use proptest::prelude::*;
use weir_codec::dubbo::{Call, Frame, Head, Kind, MAX_ATTACHMENTS, MAX_EVENT_BYTES, Outcome, Reject};
use weir_codec::hessian::{MAX_DEPTH, Malformed, Reader, Value, put_text};
use weir_codec::rpc::{Edit, Failure, Limits};

const CAPTURED: &str = include_str!("fixtures/dubbo.txt");

fn decode(bytes: &[u8]) -> Result<Option<Frame>, Reject> {
    Frame::decode(&mut BytesMut::from(bytes), &Limits::default())
}

fn whole(bytes: &[u8]) -> Frame {
    decode(bytes).unwrap().unwrap()
}

/// A frame with this body, flags and status.
fn framed(flags: u8, status: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xda, 0xbb, flags, status, 0, 0, 0, 0, 0, 0, 0, 7];
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn request(descriptor: &str, arguments: &[u8], attachments: &[(&str, &str)]) -> Frame {
    let (path, version, method) = ("com.example.S", "1.0", "m");
    Frame::request(&Call { id: 7, path, version, method, descriptor, arguments, attachments, one_way: false })
}

fn captured_requests() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    fixtures::frames(CAPTURED).into_iter().filter(|(name, _)| name.starts_with("request-"))
}

fn pairs(frame: &Frame) -> Vec<(String, String)> {
    let attachments = frame.attachments().unwrap();
    attachments.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn captured_requests_are_understood() {
    for (at, (name, bytes)) in captured_requests().enumerate() {
        let frame = whole(&bytes);
        assert_eq!((frame.kind(), frame.id()), (Kind::Request, at as u64 + 1), "{name}");
        let call = frame.invocation().unwrap();
        let named = (&*call.dubbo_version, &*call.path, &*call.service_version, &*call.method);
        assert_eq!(named, ("5.3.0", "com.example.Service", "1.0", "call"), "{name}");
        let attachments = call.attachments().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(attachments.get("group"), Some("g"), "{name}");
        assert_eq!((attachments.get("baggage"), attachments.number("timeout")), (Some("a=b"), Some(3000)), "{name}");
        assert_eq!(attachments.iter().count(), 6, "{name}");
    }
}

#[test]
fn captured_events_and_responses_are_understood() {
    let read = |name| whole(&fixtures::frame(CAPTURED, name));
    assert_eq!((read("heartbeat").kind(), read("heartbeat").head().wants_answer()), (Kind::Heartbeat, true));
    assert_eq!((read("heartbeat-ack").kind(), read("heartbeat-ack").status()), (Kind::HeartbeatAck, 20));
    assert_eq!(read("heartbeat").as_bytes(), Frame::heartbeat(100).as_bytes());
    let value = read("response-value");
    assert_eq!(value.outcome(), Ok(Outcome::Value { with_attachments: false }));
    assert_eq!(value.attachments().err(), Some(Reject::Kind));
    assert!(read("response-null").outcome().is_err(), "dubbo-remoting leaves the kind out, and so goes on unread");
    assert_eq!((read("response-error").status(), read("response-error").body()), (80, &b"\x02no"[..]));
}

#[test]
fn edits_leave_everything_before_the_attachments_byte_for_byte() {
    for (name, bytes) in captured_requests() {
        let before = whole(&bytes);
        let mut frame = before.clone();
        frame.edit(&[Edit::Set("baggage", "x=y"), Edit::Remove("group"), Edit::Set("dubbo.tag", "gray")]).unwrap();
        let read = whole(frame.as_bytes());
        let mut expected = pairs(&before);
        expected.retain(|(key, _)| key != "baggage" && key != "group");
        expected.extend([("baggage", "x=y"), ("dubbo.tag", "gray")].map(|(key, value)| (key.into(), value.into())));
        assert_eq!(pairs(&read), expected, "{name}");
        let map_at = bytes.iter().rposition(|&byte| byte == b'H').unwrap();
        assert_eq!(read.as_bytes()[16..=map_at], bytes[16..=map_at], "{name}");
        assert_eq!(read.as_bytes()[..12], bytes[..12], "{name}");
    }
}

#[test]
fn edits_that_change_nothing_change_no_byte() {
    for (name, bytes) in captured_requests() {
        let mut frame = whole(&bytes);
        frame.edit(&[Edit::Set("baggage", "a=b"), Edit::Remove("absent")]).unwrap();
        assert_eq!(frame.as_bytes(), bytes, "{name}");
        frame.edit(&[]).unwrap();
        frame.set_id(u64::MAX);
        assert_eq!((whole(frame.as_bytes()).id(), &frame.as_bytes()[12..]), (u64::MAX, &bytes[12..]), "{name}");
    }
}

#[test]
fn captured_frames_cut_or_changed_never_panic() {
    for (_, bytes) in fixtures::frames(CAPTURED).into_iter().filter(|(_, bytes)| bytes.len() < 1000) {
        for at in 16..bytes.len() {
            let body = &bytes[16..at];
            let cut = whole(&framed(bytes[2], bytes[3], body));
            let _ = (cut.attachments().is_ok(), cut.outcome().is_ok());
            for change in [0xff, 0x80, 0x10, 1] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let _ = whole(&changed).edit(&[Edit::Set("a", "b"), Edit::Remove("path")]);
            }
        }
    }
}

#[test]
fn without_a_map_setting_makes_one() {
    let sent = request("", b"", &[]);
    let body = &sent.body()[..sent.body().len() - 2];
    for map in [&b"N"[..], b"", b"HZ", b"M\x11java.util.TreeMapZ"] {
        let bytes = framed(0xc2, 0, &[body, map].concat());
        let mut frame = whole(&bytes);
        frame.edit(&[Edit::Remove("a")]).unwrap();
        assert_eq!(frame.as_bytes(), bytes);
        frame.edit(&[Edit::Set("a", "b")]).unwrap();
        assert_eq!(pairs(&whole(frame.as_bytes())), [("a".to_owned(), "b".to_owned())], "{map:?}");
        let opening = if map.len() > 1 { &map[..map.len() - 1] } else { b"H" };
        assert_eq!(frame.body(), [body, opening, b"\x01a\x01bZ"].concat());
    }
}

#[test]
fn a_value_that_others_may_refer_to_stays() {
    // The first value defines the class of the second; both of the third are the map itself.
    let map: &[u8] = b"H\x01aC\x01P\x91\x01x\x60\x91\x01b\x60\x92\x01c\x51\x90\x01d\x01eZ";
    let front = request("", b"", &[]);
    let body = [&front.body()[..front.body().len() - 2], map].concat();
    let mut frame = whole(&framed(0xc2, 0, &body));
    assert!(matches!(frame.attachments().unwrap().value("a"), Some(Value::Other(_))));
    frame.edit(&[Edit::Remove("a"), Edit::Set("b", "x"), Edit::Remove("d")]).unwrap();
    let expected: &[u8] = b"H\x01aC\x01P\x91\x01x\x60\x91\x01b\x60\x92\x01c\x51\x90\x01aN\x01b\x01xZ";
    assert_eq!(frame.body(), [&front.body()[..front.body().len() - 2], expected].concat());
    let attachments = frame.attachments().unwrap();
    assert_eq!((attachments.get("a"), attachments.get("b"), attachments.get("d")), (None, Some("x"), None));
    let again = frame.clone();
    frame.edit(&[Edit::Remove("a"), Edit::Remove("d")]).unwrap();
    assert_eq!(frame, again);
}

#[test]
fn null_stands_for_an_absent_version() {
    let body = b"\x052.0.2\x01SN\x01mNHZ";
    let frame = whole(&framed(0xc2, 0, body));
    let call = frame.invocation().unwrap();
    assert_eq!((&*call.service_version, &*call.descriptor), ("", ""));
    assert_eq!(call.attachments().unwrap().iter().count(), 0);
}

#[test]
fn attachments_of_responses() {
    for (body, outcome, edited) in [
        (
            &b"\x94\x05valueH\x01a\x01bZ"[..],
            Outcome::Value { with_attachments: true },
            Some(&b"\x94\x05valueH\x01a\x01cZ"[..]),
        ),
        (
            b"\x93C\x01E\x91\x01m\x60\x02noH\x01a\x01bZ",
            Outcome::Exception { with_attachments: true },
            Some(b"\x93C\x01E\x91\x01m\x60\x02noH\x01a\x01cZ"),
        ),
        (b"\x95N", Outcome::Null { with_attachments: true }, Some(b"\x95H\x01a\x01cZ")),
        (b"\x92", Outcome::Null { with_attachments: false }, None),
        (b"\x91\x05value", Outcome::Value { with_attachments: false }, None),
        (b"\x90\x02no", Outcome::Exception { with_attachments: false }, None),
    ] {
        let mut frame = whole(&framed(0x02, 20, body));
        assert_eq!(frame.outcome(), Ok(outcome));
        let result = frame.edit(&[Edit::Set("a", "c")]);
        assert_eq!(result.is_ok(), edited.is_some());
        assert_eq!(frame.body(), edited.unwrap_or(body));
    }
    assert_eq!(whole(&framed(0x02, 20, b"\x96")).outcome(), Err(Reject::Outcome));
    assert_eq!(whole(&framed(0x02, 80, b"\x91")).outcome(), Err(Reject::Kind));
}

#[test]
fn events_are_told_apart() {
    for (flags, body, kind) in [
        (0xe2, &b"N"[..], Kind::Heartbeat),
        (0xa2, b"N", Kind::Heartbeat),
        (0xa2, b"\x01R", Kind::ReadOnly),
        (0xa2, b"\x01W", Kind::Writable),
        (0xa2, b"\x01X", Kind::OtherEvent),
        (0xe6, b"null", Kind::Heartbeat),
        (0x22, b"N", Kind::HeartbeatAck),
        (0x82, b"", Kind::OneWay),
        (0xc2, b"", Kind::Request),
        (0x02, b"", Kind::Response),
    ] {
        let frame = whole(&framed(flags, 20, body));
        assert_eq!(frame.kind(), kind, "{flags:02x} {body:?}");
        assert_eq!(frame.head().wants_answer(), flags & 0xc0 == 0xc0);
    }
    assert_eq!(whole(Frame::read_only(1).as_bytes()).kind(), Kind::ReadOnly);
    let foreign = whole(&framed(0xe6, 0, b"null"));
    assert_eq!(Frame::heartbeat_ack(&foreign).as_bytes(), framed(0x26, 20, b"null"));
}

#[test]
fn failures_bear_a_message() {
    for failure in Failure::ALL {
        let answer = Frame::failure(request("", b"", &[]).head(), failure, "why");
        let read = whole(answer.as_bytes());
        assert_eq!((read.kind(), read.id(), read.status()), (Kind::Response, 7, failure.dubbo_status()));
        assert_eq!(read.body(), b"\x03why");
    }
}

#[test]
fn lengths_that_lie_meet_a_limit() {
    let sent = framed(0xc2, 0, b"N");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sent.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let max = Limits::default().max_body_bytes;
    let event = |len: usize| [&framed(0xe2, 0, b"")[..12], &(len as u32).to_be_bytes()].concat();
    for (frame, expected) in [
        (with(0, &[0xdb]), Err(Reject::Magic)),
        (with(1, &[0xbc]), Err(Reject::Magic)),
        (with(12, &[0x80, 0, 0, 0]), Err(Reject::NegativeLength)),
        (with(12, &(max as u32 + 1).to_be_bytes()), Err(Reject::TooLong { len: max + 1, max })),
        (with(12, &(max as u32).to_be_bytes()), Ok(None)),
        (event(MAX_EVENT_BYTES + 1), Err(Reject::TooLong { len: MAX_EVENT_BYTES + 1, max: MAX_EVENT_BYTES })),
        (event(MAX_EVENT_BYTES), Ok(None)),
    ] {
        let mut buffer = BytesMut::from(&frame[..]);
        let capacity = buffer.capacity();
        assert_eq!(Frame::decode(&mut buffer, &Limits::default()), expected);
        assert_eq!((buffer.len(), buffer.capacity()), (frame.len(), capacity), "nothing is taken or reserved");
        assert_eq!(Head::parse(&frame).is_ok(), matches!(expected, Ok(_) | Err(Reject::TooLong { .. })));
    }
}

#[test]
fn lengths_that_lie_within_hessian_are_refused() {
    let one = |argument: &[u8]| request("Ljava/lang/Object;", argument, &[]).attachments().err();
    let hessian = |error| Some(Reject::Hessian(error));
    for (argument, expected) in [
        (&b"S\xff\xffx"[..], hessian(Malformed::Truncated)),
        (b"B\xff\xffx", hessian(Malformed::Truncated)),
        (b"XI\x7f\xff\xff\xff", hessian(Malformed::Truncated)),
        (b"XI\xff\xff\xff\xff", hessian(Malformed::Length)),
        (b"X\x01a", hessian(Malformed::Code { code: 1, at: 46 })),
        (b"C\x01PI\x7f\xff\xff\xff", hessian(Malformed::Code { code: b'H', at: 53 })),
        (b"\x60", hessian(Malformed::Class)),
        (b"O\x91", hessian(Malformed::Class)),
        (b"@", hessian(Malformed::Code { code: b'@', at: 45 })),
        (b"Z", hessian(Malformed::Code { code: b'Z', at: 45 })),
        (b"H\x01aZ", hessian(Malformed::Code { code: b'Z', at: 48 })),
        (b"Q\x01a", hessian(Malformed::Code { code: 1, at: 46 })),
        (b"A\x00\x01xN", hessian(Malformed::Code { code: b'N', at: 49 })),
        (b"N\x51\x90", Some(Reject::Attachments)),
    ] {
        assert_eq!(one(argument), expected, "{argument:?}");
    }
}

#[test]
fn nesting_and_classes_are_bounded() {
    let nested = |depth: usize| [b"W".repeat(depth), b"Z".repeat(depth)].concat();
    assert_eq!(Reader::new(&nested(MAX_DEPTH)).skip(), Ok(()));
    assert_eq!(Reader::new(&nested(MAX_DEPTH + 1)).skip(), Err(Malformed::TooDeep));
    assert_eq!(Reader::new(&b"C\x00\x90".repeat(1 << 20)).skip(), Err(Malformed::TooManyClasses));
}

#[test]
fn attachments_are_bounded() {
    let with = |pairs: usize| request("", b"", &vec![("", ""); pairs]);
    assert_eq!(with(MAX_ATTACHMENTS).attachments().unwrap().iter().count(), MAX_ATTACHMENTS);
    let sent = with(MAX_ATTACHMENTS + 1);
    let mut frame = sent.clone();
    assert_eq!(frame.edit(&[Edit::Set("a", "b")]), Err(Reject::TooManyAttachments));
    assert_eq!(frame, sent);
}

#[test]
fn other_serialisations_can_only_be_sent_on() {
    let mut frame = whole(&framed(0xc6, 0, b"{}"));
    assert_eq!(frame.invocation().err(), Some(Reject::Serialization(6)));
    assert_eq!(frame.edit(&[Edit::Set("a", "b")]), Err(Reject::Serialization(6)));
    assert_eq!(frame.as_bytes(), framed(0xc6, 0, b"{}"));
}

fn put(value: &[u8], more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = value.to_vec();
    more(&mut out);
    out
}

const SCALARS: &[&[u8]] = &[b"N", b"T", b"F", b"\x5b", b"\x5c", b"\x5d\x01", b"\x5e\x01\x02", b"\x5f\0\0\0\x01"];

/// Any Hessian value that uses no class: each form that exists, nested.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let simple = prop_oneof![
        prop::sample::select(SCALARS).prop_map(<[u8]>::to_vec),
        any::<i32>().prop_map(|number| put(b"I", |out| out.extend(number.to_be_bytes()))),
        any::<i64>().prop_map(|number| put(b"L", |out| out.extend(number.to_be_bytes()))),
        any::<i64>().prop_map(|millis| put(b"J", |out| out.extend(millis.to_be_bytes()))),
        any::<f64>().prop_map(|number| put(b"D", |out| out.extend(number.to_be_bytes()))),
        (0x80u8..=0xbf).prop_map(|code| vec![code]),
        (0xd8u8..=0xef).prop_map(|code| vec![code]),
        (0xc0u8..=0xcf, any::<u8>()).prop_map(|(code, byte)| vec![code, byte]),
        (0xf0u8..=0xff, any::<u8>()).prop_map(|(code, byte)| vec![code, byte]),
        (prop_oneof![0xd0u8..=0xd7, 0x38u8..=0x3f], any::<[u8; 2]>()).prop_map(|(code, [a, b])| vec![code, a, b]),
        "\\PC{0,50}".prop_map(|text| put(b"", |out| put_text(&text, out))),
        prop::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| put(&[0x34 + (bytes.len() >> 8) as u8, bytes.len() as u8], |out| out.extend(bytes))),
        prop::collection::vec(any::<u8>(), 0..16).prop_map(|bytes| put(&[b'A', 0, bytes.len() as u8], |out| {
            out.extend(&bytes);
            out.extend([0x20]);
        })),
        (0u8..48).prop_map(|number| vec![b'Q', 0x90 + number]),
    ];
    simple.prop_recursive(4, 40, 7, |inner| {
        let many = prop::collection::vec(inner.clone(), 0..7);
        let pairs = prop::collection::vec((inner.clone(), inner), 0..4);
        prop_oneof![
            many.clone().prop_map(|items| put(&[0x78 + items.len() as u8], |out| out.extend(items.concat()))),
            many.clone().prop_map(|items| put(b"\x70\x01T", |out| {
                out[0] += items.len() as u8;
                out.extend(items.concat());
            })),
            many.clone().prop_map(|items| put(&[b'X', 0x90 + items.len() as u8], |out| out.extend(items.concat()))),
            many.clone()
                .prop_map(|items| put(&[b'V', 0x90, 0x90 + items.len() as u8], |out| out.extend(items.concat()))),
            many.clone().prop_map(|items| put(b"W", |out| out.extend([items.concat(), b"Z".to_vec()].concat()))),
            many.prop_map(|items| put(b"U\x01T", |out| out.extend([items.concat(), b"Z".to_vec()].concat()))),
            pairs.prop_map(|pairs| put(b"H", |out| {
                pairs.into_iter().for_each(|(key, value)| out.extend([key, value].concat()));
                out.push(b'Z');
            })),
        ]
    })
}

fn texts() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-c]{1,2}", "\\PC{0,12}"), 0..6)
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

proptest! {
    #[test]
    fn a_value_is_stepped_over_exactly(value in values(), rest in prop::collection::vec(any::<u8>(), 0..4)) {
        let bytes = [&value[..], &rest].concat();
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.skip(), Ok(()));
        prop_assert_eq!(reader.position(), value.len());
        for len in 0..value.len() {
            prop_assert!(Reader::new(&value[..len]).skip().is_err(), "cut after {}", len);
        }
    }

    #[test]
    fn a_frame_is_read_the_same_however_it_is_cut(value in values(), attachments in texts()) {
        let sent = request("J", &value, &borrowed(&attachments));
        let mut buffer = BytesMut::new();
        for (at, byte) in sent.as_bytes().iter().enumerate() {
            prop_assert_eq!(Frame::decode(&mut buffer, &Limits::default()), Ok(None), "after {} bytes", at);
            buffer.extend_from_slice(&[*byte]);
        }
        buffer.extend_from_slice(b"\xda\xbbrest");
        let read = Frame::decode(&mut buffer, &Limits::default()).unwrap().unwrap();
        prop_assert_eq!(&buffer[..], b"\xda\xbbrest");
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn edits_do_what_a_map_would(value in values(), attachments in texts(), edits in texts(), removed in "[a-c]{1,2}") {
        let sent = request("J", &value, &borrowed(&attachments));
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
        let front = 16 + 28 + value.len();
        prop_assert_eq!(&read.as_bytes()[16..front], &sent.as_bytes()[16..front]);
        let again = read.clone();
        frame.edit(&edits).unwrap();
        prop_assert_eq!(frame, again, "a second time changes nothing");
    }

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..120), flags: u8, status in prop_oneof![Just(20u8), any::<u8>()]) {
        let mut frame = match decode(&framed(flags, status, &body)) {
            Ok(Some(frame)) => frame,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        let _ = (frame.kind(), frame.outcome().is_ok(), frame.edit(&[Edit::Set("a", "b")]).is_ok());
    }

    #[test]
    fn any_bytes_as_hessian(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"CHMOUVWXZ\x60\x90\x91\x01"[..])], 0..60)) {
        let mut reader = Reader::new(&bytes);
        while reader.skip().is_ok() {
            prop_assert!(reader.position() <= bytes.len());
        }
    }
}
