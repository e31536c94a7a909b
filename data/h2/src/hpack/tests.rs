use super::*;
use crate::hpack::{encode, encode_status, huffman_encode};
use proptest::prelude::*;

type Decoded = Vec<(String, String)>;

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Decoded, HpackError> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder.decode(block, |name, value, _| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn check(decoder: &mut Decoder, hex: &str, fields: &[(&str, &str)], table_size: usize) {
    let expected: Decoded = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(decoded(decoder, &bytes(hex)).unwrap(), expected);
    assert_eq!(decoder.table.size(), table_size);
}

#[test]
fn the_examples_of_appendix_c_single_fields() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(&mut Decoder::default(), custom, &[("custom-key", "custom-header")], 55);
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    check(&mut Decoder::default(), path, &[(":path", "/sample/path")], 0);
    let mut never = Vec::new();
    let secret = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    Decoder::default()
        .decode(&secret, |name, value, never_indexed| {
            never.push((name.to_vec(), value.to_vec(), never_indexed));
        })
        .unwrap();
    assert_eq!(never, [(b"password".to_vec(), b"secret".to_vec(), true)]);
    check(&mut Decoder::default(), "82", &[(":method", "GET")], 0);
}

const FIRST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const SECOND: [(&str, &str); 5] = [FIRST[0], FIRST[1], FIRST[2], FIRST[3], ("cache-control", "no-cache")];
const THIRD: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn the_examples_of_appendix_c_requests() {
    let decoder = &mut Decoder::default();
    check(decoder, "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", &FIRST, 57);
    check(decoder, "8286 84be 5808 6e6f 2d63 6163 6865", &SECOND, 110);
    let third = "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65";
    check(decoder, third, &THIRD, 164);
    let decoder = &mut Decoder::default();
    check(decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", &FIRST, 57);
    check(decoder, "8286 84be 5886 a8eb 1064 9cbf", &SECOND, 110);
    check(decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", &THIRD, 164);
}

#[test]
fn the_examples_of_appendix_c_responses() {
    let decoder = &mut Decoder::default();
    decoder.table.resize(256);
    let rest = [
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    check(decoder, first, &[(":status", "302"), rest[0], rest[1], rest[2]], 222);
    check(decoder, "4883 640e ffc1 c0bf", &[(":status", "307"), rest[0], rest[1], rest[2]], 222);
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    let fields = [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ];
    check(decoder, third, &fields, 215);
}

#[test]
fn what_is_malformed_is_told() {
    for (hex, error) in [
        ("80", HpackError::Place),
        ("be", HpackError::Place),
        ("7f", HpackError::Truncated),
        ("ff 80 80 80 80 80 01", HpackError::Number),
        ("ff ff ff ff ff 7f", HpackError::Number),
        ("40", HpackError::Truncated),
        ("40 05 61", HpackError::Truncated),
        ("40 01 61", HpackError::Truncated),
        ("40 81 00 00", HpackError::Huffman),
        ("82 20", HpackError::Resize),
        ("3f e2 1f", HpackError::Resize),
        ("0f 80 01 00", HpackError::Place),
    ] {
        assert_eq!(decoded(&mut Decoder::default(), &bytes(hex)), Err(error), "{hex}");
    }
    assert_eq!(decoded(&mut Decoder::default(), &bytes("20 3f e1 1f 82")).unwrap().len(), 1);
}

#[test]
fn fields_of_the_static_table_take_a_byte() {
    let mut out = Vec::new();
    encode(&mut out, b":method", b"POST", false);
    encode(&mut out, b":path", b"/", false);
    encode_status(&mut out, 200);
    encode_status(&mut out, 404);
    assert_eq!(out, [0x83, 0x84, 0x88, 0x8d]);
    out.clear();
    encode_status(&mut out, 503);
    assert_eq!(out, [0x08, 3, b'5', b'0', b'3']);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(fields in prop::collection::vec(("[a-z-]{1,20}|cookie|:path", ".{0,200}", any::<bool>()), 0..20)) {
        let mut block = Vec::new();
        for (name, value, never) in &fields {
            encode(&mut block, name.as_bytes(), value.as_bytes(), *never);
        }
        let mut read = Vec::new();
        Decoder::default().decode(&block, |name, value, never| {
            read.push((name.to_vec(), value.to_vec(), never));
        }).unwrap();
        prop_assert_eq!(read.len(), fields.len());
        for ((name, value, never), (read_name, read_value, read_never)) in fields.iter().zip(&read) {
            prop_assert_eq!((name.as_bytes(), value.as_bytes()), (&read_name[..], &read_value[..]));
            prop_assert!(!never || *read_never);
        }
    }

    #[test]
    fn indexed_and_huffman_coded_fields_are_remembered(fields in prop::collection::vec(("[a-z]{1,9}", "[ -~]{0,99}"), 1..60)) {
        let mut decoder = Decoder::default();
        for (name, value) in &fields {
            let mut block = vec![0x40];
            for text in [name, value] {
                let mut coded = Vec::new();
                huffman_encode(text.as_bytes(), &mut coded);
                prop_assert!(coded.len() < 127);
                block.push(0x80 | coded.len() as u8);
                block.extend_from_slice(&coded);
            }
            // And once more by its place: the newest stands first.
            block.push(0x80 | 62);
            let once = (name.clone(), value.clone());
            prop_assert_eq!(decoded(&mut decoder, &block).unwrap(), vec![once.clone(), once]);
            prop_assert!(decoder.table.size() <= TABLE_BYTES);
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused(blocks: Vec<Vec<u8>>) {
        let mut decoder = Decoder::default();
        for block in &blocks {
            let _ = decoder.decode(block, |_, _, _| {});
            prop_assert!(decoder.table.size() <= TABLE_BYTES);
        }
    }
}
