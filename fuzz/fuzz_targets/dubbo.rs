//! Whatever comes as Dubbo, a frame is read the same whole and in prefixes, and edits keep what they do not name.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weir_codec::dubbo::{Frame, HEAD_LEN, Head, Reject};
use weir_codec::hessian::Reader;
use weir_codec::rpc::{Edit, Limits};

const LIMITS: Limits = Limits { max_body_bytes: 4096 };

fn decode(bytes: &[u8]) -> Result<Option<Frame>, Reject> {
    Frame::decode(&mut BytesMut::from(bytes), &LIMITS)
}

/// Bytes with a magic number, and a length that is right.
fn framed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = bytes.to_vec();
    frame.get_mut(..2)?.copy_from_slice(&[0xda, 0xbb]);
    let body_len = u32::try_from(bytes.len().checked_sub(HEAD_LEN)?).ok()?;
    frame[12..HEAD_LEN].copy_from_slice(&body_len.to_be_bytes());
    Some(frame)
}

/// A request of one argument; that and the attachments are what is fuzzed.
fn called_with(bytes: &[u8]) -> Frame {
    let front = b"\xda\xbb\xc2\0\0\0\0\0\0\0\0\x07\0\0\0\0\x052.0.2\x01S\0\x01m\x01J";
    let bytes = framed(&[front, bytes].concat()).unwrap_or_default();
    Frame::decode(&mut BytesMut::from(&bytes[..]), &Limits::default()).unwrap().unwrap()
}

fn skip(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while reader.skip().is_ok() {
        let value = &bytes[..reader.position()];
        assert!(!value.is_empty());
    }
}

fn edit(sent: &Frame, key: &str, value: &str) {
    let mut frame = sent.clone();
    if frame.edit(&[Edit::Set(key, value)]).is_err() {
        assert_eq!(&frame, sent);
        return;
    }
    let read = Frame::decode(&mut BytesMut::from(frame.as_bytes()), &Limits::default()).unwrap().unwrap();
    assert_eq!(read, frame);
    assert_eq!(read.attachments().unwrap().get(key), Some(value));
    frame.edit(&[Edit::Remove(key)]).unwrap();
    let others = |frame: &Frame| {
        let attachments = frame.attachments().unwrap();
        attachments.iter().filter(|(found, _)| *found != key).map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>()
    };
    assert_eq!(others(&frame), others(sent));
    assert_eq!(frame.attachments().unwrap().get(key), None);
}

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (key, value, bytes) = input;
    skip(bytes);
    let _ = decode(bytes);
    let Some(bytes) = framed(bytes) else { return };
    let head = Head::parse(&bytes).unwrap().unwrap();
    let Ok(Some(sent)) = decode(&bytes) else { return };
    assert_eq!(*sent.head(), head);
    for len in 0..bytes.len() {
        assert_eq!(decode(&bytes[..len]), Ok(None));
    }
    let _ = (sent.kind(), sent.outcome());
    edit(&sent, key, value);
    edit(&called_with(sent.body()), key, value);
});
