//! Whatever comes, a response head is read the same whole and in prefixes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_codec::http1::{Framing, parse_response, slots};

const MAX_HEAD: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut whole_slots = slots::<32>();
    let Ok(Some(whole)) = parse_response(bytes, &mut whole_slots, MAX_HEAD, false) else { return };
    assert!((100..1000).contains(&whole.status));
    assert!(!whole.persists() || whole.framing != Framing::UntilClose);
    for len in 0..whole.len {
        let mut slots = slots::<32>();
        assert!(matches!(parse_response(&bytes[..len], &mut slots, MAX_HEAD, false), Ok(None)));
    }
});
