//! However the bytes are cut, what comes of them is the same; and however they are spoilt, not much does.

use weir_h2::Config;

use crate::wire::*;

/// A conversation with one of everything.
fn conversation() -> Vec<u8> {
    let (first, rest) = POST.split_at(3);
    let fields = literal("x-mine", "1");
    hello(&[
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0, 0, 1, 0, 0, 0x10, 0]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]),
        frame(HEADERS, 0, 1, first),
        frame(CONTINUATION, 0, 1, rest),
        frame(CONTINUATION, END_HEADERS, 1, &fields),
        frame(PING, 0, 0, b"12345678"),
        frame(HEADERS, 0x20 | 8 | END_HEADERS | END_STREAM, 3, &[&[2, 0, 0, 0, 0, 9], GET, &[0, 0]].concat()),
        frame(DATA, 8, 1, b"\x03hello\0\0\0"),
        frame(DATA, 0, 1, b" world"),
        frame(99, 1, 5, b"unknown"),
        frame(PRIORITY, 0, 3, &[0; 5]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &literal("checksum", "7")),
    ])
}

/// What each stream got, and what the connection was told, whatever the order among streams.
fn outcome(pieces: &[&[u8]]) -> Vec<(u32, Vec<u8>)> {
    let frames = say_to(Config::default(), Does::Echo, pieces);
    let mut streams = std::collections::BTreeMap::<u32, Vec<u8>>::new();
    for frame in frames {
        let heads = if frame.kind == DATA { vec![] } else { vec![frame.kind, frame.flags] };
        let of_stream = streams.entry(frame.stream).or_default();
        of_stream.extend(heads);
        of_stream.extend(frame.payload);
    }
    streams.into_iter().collect()
}

#[test]
fn cut_at_every_byte() {
    let all = conversation();
    let whole = outcome(&[&all]);
    assert_eq!(whole.len(), 3, "{whole:?}");
    for cut in 1..all.len() {
        let (first, second) = all.split_at(cut);
        assert_eq!(outcome(&[first, second]), whole, "cut at {cut}");
    }
}

#[test]
fn byte_by_byte() {
    let all = conversation();
    let pieces: Vec<&[u8]> = all.chunks(1).collect();
    assert_eq!(outcome(&pieces), outcome(&[&all]));
}

/// Bytes of a conversation that were changed, left out or put in twice are taken or refused, and never more than that.
#[test]
fn spoilt_at_random() {
    let all = conversation();
    let preface = weir_h2::PREFACE.len() + 9;
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = all.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(preface..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] ^= 1 << random.u8(..8),
                2 => _ = bytes.remove(at),
                _ => bytes.extend_from_within(at..(at + 40).min(bytes.len())),
            }
        }
        let (first, second) = bytes.split_at(random.usize(..bytes.len()));
        // Whatever frame it is in the middle of, this fills it, and what is left of it is a violation.
        let frames = say_to(Config::default(), Does::Echo, &[first, second, &[0; 20_000]]);
        let last = frames.iter().position(|frame| frame.kind == GOAWAY);
        assert!(frames.len() <= 40 && last.is_some_and(|at| at + 1 == frames.len()), "seed {seed}: {frames:?}");
    }
}
