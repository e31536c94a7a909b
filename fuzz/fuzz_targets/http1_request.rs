//! Whatever comes, a request head is read the same whole and in prefixes, and what is accepted is unambiguous.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_codec::http1::{Framing, Version, parse_request, slots};

const MAX_HEAD: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut whole_slots = slots::<32>();
    let Ok(Some(whole)) = parse_request(bytes, &mut whole_slots, MAX_HEAD) else { return };
    let head = &bytes[..whole.len];
    assert!(head.ends_with(b"\r\n\r\n"));
    assert!(!whole.headers.iter().any(|header| header.name.is_empty() || header.value.contains(&b'\n')));
    let lines = head.iter().zip(head.iter().skip(1));
    assert!(lines.filter(|(_, next)| **next == b'\n').all(|(before, _)| *before == b'\r'));
    assert!(whole.version == Version::Http11 || whole.framing != Framing::Chunked);
    assert!(whole.path.starts_with('/') || whole.path == "*");
    let count = |name: &str| whole.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count();
    assert!(count("host") <= 1 && count("content-length") + count("transfer-encoding") <= 1);
    // No proper prefix is a complete head, and none is refused.
    for len in 0..whole.len {
        let mut slots = slots::<32>();
        assert!(matches!(parse_request(&bytes[..len], &mut slots, MAX_HEAD), Ok(None)));
    }
});
