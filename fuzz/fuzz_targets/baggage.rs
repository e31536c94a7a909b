//! Whatever comes as baggage, edits keep what they do not name, and what is set is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_codec::baggage::{Baggage, MAX_BYTES, MAX_MEMBERS};
use weir_codec::rpc::Edit;

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (key, value, bytes) = input;
    let Ok(sent) = Baggage::parse(bytes) else { return };
    assert!(sent.iter().count() <= MAX_MEMBERS);
    let Ok(edited) = sent.edited(&[Edit::Set(key, value)]) else { return };
    let edited = edited.unwrap_or_else(|| String::from_utf8(bytes.to_vec()).unwrap());
    assert!(edited.len() <= MAX_BYTES);
    let read = Baggage::parse(edited.as_bytes()).unwrap();
    assert_eq!(read.get(key).as_deref(), Some(value));
    assert_eq!(read.edited(&[Edit::Set(key, value)]), Ok(None));
    let removed = read.edited(&[Edit::Remove(key)]).unwrap().unwrap();
    let others = |baggage: &Baggage<'_>| {
        baggage.iter().filter(|(found, _)| *found != key).map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>()
    };
    assert_eq!(others(&Baggage::parse(removed.as_bytes()).unwrap()), others(&sent));
});
