//! The first bytes of a TLS connection: whatever is there, an earlier cut is never decided differently.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_codec::tls_hello::parse;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let half = parse(&bytes[..bytes.len() / 2]);
    if half != Ok(None) {
        assert_eq!(half, whole);
    }
});
