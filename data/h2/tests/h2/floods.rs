//! What a peer does too often, or too much of, comes upon a bound.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::task::spawn_local;
use tokio::time::{pause, timeout};
use weir_h2::{Config, Reason};

use crate::wire::*;

const CALM: Told = Told::Goaway(Reason::ENHANCE_YOUR_CALM);
const MANY: usize = 3000;

fn flooded(first: &[Vec<u8>], flood: impl Fn(u32) -> Vec<u8>) -> Told {
    let flood = (0..MANY).map(|index| flood(2 * index as u32 + 3));
    let frames: Vec<_> = first.iter().cloned().chain(flood).collect();
    let frames = say_to(Config::default(), Does::Hold, &[&hello(&frames)]);
    frames.iter().find(|frame| frame.kind == GOAWAY).map_or(Told::Nothing, |frame| told(std::slice::from_ref(frame)))
}

#[test]
fn frames_that_achieve_nothing() {
    assert_eq!(flooded(&[], |_| frame(PING, 0, 0, &[0; 8])), CALM);
    assert_eq!(flooded(&[], |_| frame(PING, 1, 0, &[0; 8])), CALM);
    assert_eq!(flooded(&[], |_| frame(SETTINGS, 0, 0, &[])), CALM);
    assert_eq!(flooded(&[], |_| frame(SETTINGS, 1, 0, &[])), CALM);
    assert_eq!(flooded(&[], |id| frame(PRIORITY, 0, id, &[0; 5])), CALM);
    assert_eq!(flooded(&[], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])), CALM);
    assert_eq!(flooded(&[], |_| frame(99, 0, 0, &[])), CALM);
    assert_eq!(flooded(&[], |_| frame(GOAWAY, 0, 0, &[0; 8])), CALM);
    assert_eq!(flooded(&[post(1)], |_| frame(DATA, 0, 1, &[])), CALM);
    assert_eq!(flooded(&[post(1)], |_| frame(DATA, 8, 1, &[3, 0, 0, 0])), CALM);
    assert_eq!(flooded(&[frame(HEADERS, 0, 1, GET)], |_| frame(CONTINUATION, 0, 1, &[])), CALM);
}

#[test]
fn streams_that_are_opened_and_reset() {
    // CVE-2023-44487: by the peer.
    assert_eq!(flooded(&[], |id| [post(id), frame(RST_STREAM, 0, id, &[0; 4])].concat()), CALM);
    // CVE-2025-8671: the peer makes us do it.
    assert_eq!(flooded(&[], |id| [post(id), frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()), CALM);
    assert_eq!(flooded(&[], |id| frame(HEADERS, END_STREAM | END_HEADERS, id, &[])), CALM);
    assert_eq!(flooded(&[], get), CALM, "beyond what may be open");
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let config = Config { max_streams: 2, ..Config::default() };
    let frames = say_to(config, Does::Hold, &[&hello(&[get(1), post(3), get(5)])]);
    assert_eq!(told(&frames), Told::Reset(5, Reason::REFUSED_STREAM));
}

#[test]
fn a_header_block_that_does_not_end() {
    // CVE-2024-27316.
    let part = vec![0; 10_000];
    assert_eq!(flooded(&[frame(HEADERS, 0, 1, GET)], |_| frame(CONTINUATION, 0, 1, &part)), CALM);
}

#[test]
fn header_lists_that_are_too_large_are_answered_with_431() {
    let config = Config { max_header_list_bytes: 1000, ..Config::default() };
    let large = [GET, &literal("x", &"y".repeat(120)).repeat(8)].concat();
    let refused = |block: &[u8]| {
        let frames = hello(&[frame(HEADERS, END_STREAM | END_HEADERS, 1, block), get(3)]);
        let frames = say_to(config, Does::Hold, &[&frames]);
        assert_eq!(told(&frames), Told::Nothing);
        frames.iter().any(|frame| frame.stream == 1 && frame.payload.ends_with(b"431"))
    };
    assert!(refused(&large));
    // A small block that stands for a large list: one large field that is remembered, and a thousand references to it.
    let mut bomb = [GET, &[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], &[b'y'; 4000]].concat();
    bomb.extend_from_slice(&[0xbe; 1000]);
    assert!(refused(&bomb));
    assert!(!refused(GET));
}

#[test]
fn a_request_body_behind_431_is_reset_without_blame() {
    let config = Config { max_header_list_bytes: 1000, ..Config::default() };
    let large = [POST, &literal("x", &"y".repeat(120)).repeat(8)].concat();
    let frames = hello(&[frame(HEADERS, END_HEADERS, 1, &large), frame(DATA, END_STREAM, 1, b"x"), get(3)]);
    let frames = say_to(config, Does::Hold, &[&frames]);
    assert_eq!(told(&frames), Told::Reset(1, Reason::NO_ERROR));
    assert!(frames.iter().all(|frame| frame.kind != GOAWAY));
}

#[test]
fn answers_that_are_not_taken() {
    run(async {
        pause();
        let (peer, io) = duplex(1 << 16);
        spawn_local(serve(weir_h2::accept(io, Config::default()), Does::Echo));
        let (mut taken, mut given) = split(peer);
        given.write_all(&hello(&[post(1)])).await.unwrap();
        // Each is of use, and each is answered, and the answers lie with the server.
        let asked = [frame(DATA, 0, 1, b"x"), frame(PING, 0, 0, &[0; 8])].concat();
        let mut sent = 0;
        while timeout(Duration::from_secs(1), given.write_all(&asked)).await.is_ok() {
            sent += asked.len();
            assert!(sent < 8 << 20, "it is read from without end");
        }
        // Once they are taken it goes on.
        spawn_local(async move {
            let mut chunk = [0; 4096];
            while taken.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
        });
        let more = [0; 16 << 10];
        let written = timeout(Duration::from_secs(1), given.write_all(&more)).await;
        written.expect("it is read from again").expect("and has not closed");
    });
}
