//! Whatever comes as SOFABolt, a frame is read the same whole and in prefixes, and edits keep what they do not name.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weir_codec::bolt::{Frame, Head, Reject};
use weir_codec::rpc::{Edit, Limits};

const LIMITS: Limits = Limits { max_body_bytes: 1024 };

fn decode(bytes: &[u8]) -> Result<Option<Frame>, Reject> {
    Frame::decode(&mut BytesMut::from(bytes), &LIMITS)
}

/// No fuzzer guesses a checksum, so it is made right.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let (Err(Reject::Checksum), Ok(Some(head))) = (decode(&bytes), Head::parse(&bytes)) {
        let at = head.frame_len() - 4;
        let checksum = crc32fast::hash(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

fuzz_target!(|input: (u32, &str, &str, &[u8])| {
    let (id, key, value, bytes) = input;
    let bytes = with_checksum(bytes);
    let Ok(Some(sent)) = decode(&bytes) else { return };
    for len in 0..sent.as_bytes().len() {
        assert_eq!(decode(&bytes[..len]), Ok(None));
    }
    let mut frame = sent.clone();
    frame.set_id(id);
    assert_eq!(decode(frame.as_bytes()).unwrap().unwrap(), frame);
    frame.set_id(sent.id());
    assert_eq!(frame, sent);
    let _ = frame.method();
    if frame.edit(&[Edit::Set(key, value)]).is_err() {
        assert_eq!(frame, sent);
        return;
    }
    let read = decode(frame.as_bytes()).unwrap().unwrap();
    assert_eq!(read, frame);
    assert_eq!(read.headers().unwrap().text(key), Some(value));
    assert_eq!((read.class(), read.content()), (sent.class(), sent.content()));
    frame.edit(&[Edit::Remove(key)]).unwrap();
    let others = |frame: &Frame| {
        let headers = frame.headers().unwrap();
        headers.iter().filter(|(found, _)| *found != key.as_bytes()).map(|(a, b)| [a, b].concat()).collect::<Vec<_>>()
    };
    assert_eq!(others(&frame), others(&sent));
    assert_eq!(frame.headers().unwrap().get(key), None);
});
