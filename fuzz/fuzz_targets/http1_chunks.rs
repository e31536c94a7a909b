//! Whatever comes as chunks, it gives the same data however it is cut, and memory stays within the bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_codec::http1::{ChunkDecoder, Reject, Step};

fn decode<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> Result<(Vec<u8>, bool), Reject> {
    let mut decoder = ChunkDecoder::new(256);
    let mut body = Vec::new();
    for piece in pieces {
        let mut used = 0;
        while used < piece.len() {
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
    Ok((body, false))
}

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = decode(std::iter::once(bytes));
    let (left, right) = bytes.split_at(cut % (bytes.len() + 1));
    assert_eq!(whole, decode([left, right].into_iter()));
    assert_eq!(whole, decode(bytes.chunks(1)));
});
