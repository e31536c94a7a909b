//! Header blocks are read or refused, and what is encoded is read as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_h2::hpack::{Decoder, encode, huffman_encode};

fuzz_target!(|input: (Vec<(&[u8], &[u8], bool)>, Vec<&[u8]>)| {
    let (fields, blocks) = input;
    let mut decoder = Decoder::default();
    for block in blocks {
        if decoder.decode(block, |_, _, _| {}).is_err() {
            decoder = Decoder::default();
        }
    }
    let mut block = Vec::new();
    for (name, value, never_indexed) in &fields {
        encode(&mut block, name, value, *never_indexed);
    }
    let mut read = Vec::new();
    decoder.decode(&block, |name, value, _| read.push((name.to_vec(), value.to_vec()))).unwrap();
    assert!(read.iter().map(|(name, value)| (&name[..], &value[..])).eq(fields.iter().map(|field| (field.0, field.1))));
    for (_, value, _) in fields.iter().filter(|field| field.1.len() < 100) {
        let mut coded = vec![];
        huffman_encode(value, &mut coded);
        if coded.len() < 127 {
            let block = [&[0x40, 1, b'x', 0x80 | coded.len() as u8], &coded[..]].concat();
            decoder.decode(&block, |_, read, _| assert_eq!(read, *value)).unwrap();
        }
    }
});
