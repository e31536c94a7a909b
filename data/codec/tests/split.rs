//! However the network cuts a message, it is read the same.

use proptest::prelude::*;
use weir_codec::http1::{ChunkDecoder, Reject, Step, parse_request, parse_response, slots};

/// What feeding ever longer prefixes comes to, as a connection does.
fn by_prefixes<T>(bytes: &[u8], parse: impl Fn(&[u8]) -> Result<Option<T>, Reject>) -> Result<Option<T>, Reject> {
    for len in 0..bytes.len() {
        match parse(&bytes[..len]) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    parse(bytes)
}

fn request(bytes: &[u8]) -> Result<Option<String>, Reject> {
    let mut slots = slots::<16>();
    Ok(parse_request(bytes, &mut slots, 2048)?.map(|head| format!("{head:?}")))
}

fn response(bytes: &[u8]) -> Result<Option<String>, Reject> {
    let mut slots = slots::<16>();
    Ok(parse_response(bytes, &mut slots, 2048, false)?.map(|head| format!("{head:?}")))
}

fn chunks(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), Reject> {
    let mut decoder = ChunkDecoder::new(256);
    let mut body = Vec::new();
    for piece in pieces {
        let mut used = 0;
        while used < piece.len() && !decoder.is_done() {
            match decoder.step(&piece[used..])? {
                Step::Data(data, more) => {
                    body.extend_from_slice(data);
                    used += more;
                }
                Step::More => break,
                Step::End(_) => return Ok((body, true)),
            }
        }
    }
    Ok((body, decoder.is_done()))
}

fn fields() -> impl Strategy<Value = String> {
    let name = prop_oneof!["[A-Za-z-]{1,12}", Just("Content-Length".to_owned()), Just("Transfer-Encoding".to_owned())];
    let value = prop_oneof!["[ -~\t]{0,20}", Just("chunked".to_owned()), "[0-9]{1,4}"];
    prop::collection::vec((name, value), 0..8)
        .prop_map(|fields| fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect())
}

proptest! {
    #[test]
    fn requests(method in "[A-Z]{1,7}", path in "/[!-~]{0,20}", fields in fields(), rest in "[ -~]{0,20}") {
        let text = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{rest}");
        prop_assert_eq!(by_prefixes(text.as_bytes(), request), request(text.as_bytes()));
    }

    #[test]
    fn responses(status in 100u16..600, reason in "[A-Za-z ]{0,10}", fields in fields()) {
        let text = format!("HTTP/1.1 {status} {reason}\r\n{fields}\r\n");
        prop_assert_eq!(by_prefixes(text.as_bytes(), response), response(text.as_bytes()));
    }

    #[test]
    fn requests_with_a_byte_changed(at in 0usize..80, byte: u8) {
        let mut text = *b"POST /path HTTP/1.1\r\nHost: example.com\r\nContent-Length: 12\r\nX-Header: a value\r\n\r\n";
        let at = at % text.len();
        text[at] = byte;
        let whole = request(&text);
        let split = by_prefixes(&text, request);
        // What is wrong may be seen sooner or later, but never is one accepted and the other not.
        prop_assert_eq!(whole.is_err(), split.is_err());
        if whole.is_ok() { prop_assert_eq!(whole, split); }
    }

    #[test]
    fn bodies_in_chunks(data in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6), cut: prop::sample::Index) {
        let mut coded = Vec::new();
        for chunk in &data {
            coded.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
            coded.extend_from_slice(chunk);
            coded.extend_from_slice(b"\r\n");
        }
        coded.extend_from_slice(b"0\r\nA: b\r\n\r\n");
        let expected = Ok((data.concat(), true));
        prop_assert_eq!(chunks(&[&coded]), expected.clone());
        let single: Vec<&[u8]> = coded.chunks(1).collect();
        prop_assert_eq!(chunks(&single), expected.clone());
        let (left, right) = coded.split_at(cut.index(coded.len()));
        prop_assert_eq!(chunks(&[left, right]), expected);
    }

    #[test]
    fn any_bytes_as_chunks(bytes in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'2'), Just(b';'), any::<u8>()], 0..60)) {
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(chunks(&[&bytes]), chunks(&single));
    }
}
