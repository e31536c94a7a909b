//! What is spoken on a connection, by its first bytes. Pure.

use crate::rpc::Protocol;

/// First bytes of an HTTP/2 connection with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First bytes of every Dubbo frame.
const DUBBO_0: u8 = weir_codec::dubbo::MAGIC[0];
const DUBBO_1: u8 = weir_codec::dubbo::MAGIC[1];
/// The commands of Bolt: heartbeat, request, response, goodbye.
const BOLT_COMMANDS: [u8; 4] = [0, 1, 2, 100];
/// Longest method of HTTP that is known as one; the longest registered is UPDATEREDIRECTREF.
const MAX_METHOD: usize = 24;
/// A request line that is longer is taken for one if it begins as one (bytes); what is read of it must fit a buffer.
const MAX_LINE: usize = 8 * 1024;

/// What the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// More bytes are needed.
    Nothing,
    Http1,
    Http2,
    Rpc(Protocol),
    /// None of these.
    Other,
}

/// Tells by at most [`MAX_LINE`] bytes. Where nothing else is served (`others` is false) few are needed, and whatever
/// is none of the known protocols is left to HTTP/1 to refuse.
pub(crate) fn told_by(first: &[u8], others: bool) -> Told {
    let shared = first.len().min(PREFACE.len());
    match first {
        [] | [DUBBO_0] => Told::Nothing,
        [1 | 2, ..] => bolt(first, others),
        [DUBBO_0, DUBBO_1, ..] => Told::Rpc(Protocol::Dubbo),
        _ if first[..shared] == PREFACE[..shared] => {
            if shared == PREFACE.len() {
                Told::Http2
            } else {
                Told::Nothing
            }
        }
        _ if others => request_line(first),
        _ => Told::Http1,
    }
}

/// No HTTP request begins with a byte of Bolt's. Other protocols may, so the type and the command are looked at, too.
fn bolt(first: &[u8], others: bool) -> Told {
    let bolt = Told::Rpc(Protocol::Bolt);
    let after_version = match first {
        _ if !others => return bolt,
        [1, rest @ ..] => rest,
        [2, 1 | 2, rest @ ..] => rest,
        [2] => return Told::Nothing,
        _ => return Told::Other,
    };
    match after_version {
        [0..=2, 0, command, ..] if BOLT_COMMANDS.contains(command) => bolt,
        [] | [0..=2] | [0..=2, 0] => Told::Nothing,
        _ => Told::Other,
    }
}

/// A method in capitals, a target and the version, on one line (RFC 9112 section 3). Other protocols of text begin with a
/// word as well, so the version decides.
fn request_line(first: &[u8]) -> Told {
    let method = first.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match first.get(method) {
        _ if method > MAX_METHOD => return Told::Other,
        None => return Told::Nothing,
        Some(b' ') if method > 0 => {}
        Some(_) => return Told::Other,
    }
    match memchr::memchr(b'\n', first) {
        Some(end) => {
            let line = first[..end].strip_suffix(b"\r").unwrap_or(&first[..end]);
            if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Told::Http1 } else { Told::Other }
        }
        None if first.len() < MAX_LINE => Told::Nothing,
        None if first.get(method + 1) == Some(&b'/') => Told::Http1,
        None => Told::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_bytes_tell_what_is_spoken() {
        for (first, told) in [
            (&b""[..], Told::Nothing),
            (b"G", Told::Http1),
            (b"P", Told::Nothing),
            (b"POST", Told::Http1),
            (&PREFACE[..23], Told::Nothing),
            (PREFACE, Told::Http2),
            (b"\x01", Told::Rpc(Protocol::Bolt)),
            (b"\x02\x01", Told::Rpc(Protocol::Bolt)),
            (b"\xda", Told::Nothing),
            (b"\xda\xbb", Told::Rpc(Protocol::Dubbo)),
            (b"\xda\xbc", Told::Http1),
        ] {
            assert_eq!(told_by(first, false), told, "{first:?}");
        }
    }

    #[test]
    fn other_protocols_are_told_from_those_that_are_known() {
        for (first, told) in [
            (&b"GET / HTTP/1.1\r\nHost"[..], Told::Http1),
            (b"M-SEARCH * HTTP/1.1\n", Told::Http1),
            (b"GET /", Told::Nothing),
            (b"PRI * HTTP/1.1\r\n", Told::Http1),
            (PREFACE, Told::Http2),
            (b"EHLO example.com\r\n", Told::Other),
            (b"PING\r\n", Told::Other),
            (b"SET a HTTP\r\n", Told::Other),
            (b"*1\r\n$4\r\nPING\r\n", Told::Other),
            (b"SSH-2.0-x\r\n", Told::Other),
            (b"\x16\x03\x01\x02\x00", Told::Other),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Told::Other),
            (b"\x01\x01\x00\x01", Told::Rpc(Protocol::Bolt)),
            (b"\x02\x02\x01\x00\x64", Told::Rpc(Protocol::Bolt)),
            (b"\x01\x01", Told::Nothing),
            (b"\x02", Told::Nothing),
            (b"\x01\x09\x00\x01", Told::Other),
            (b"\x02\x05\x01\x00\x01", Told::Other),
            (b"\xda\xbb", Told::Rpc(Protocol::Dubbo)),
        ] {
            assert_eq!(told_by(first, true), told, "{first:?}");
        }
        let long = [b"GET /".to_vec(), vec![b'a'; MAX_LINE]].concat();
        assert_eq!(told_by(&long, true), Told::Http1);
        assert_eq!(told_by(&[b'A'; MAX_METHOD + 1], true), Told::Other);
    }

    proptest! {
        /// However the bytes are cut, the same is told in the end, and nothing else before.
        #[test]
        fn what_is_told_does_not_depend_on_how_bytes_arrive(
            bytes in prop::collection::vec(any::<u8>(), 1..40),
            line in "[A-Z]{1,8} [a-z/]{1,9}( HTTP/1.[01])?\r\n",
            text in any::<bool>(),
        ) {
            let bytes = if text { line.into_bytes() } else { bytes };
            let whole = told_by(&bytes, true);
            for len in 0..bytes.len() {
                let told = told_by(&bytes[..len], true);
                prop_assert!(told == Told::Nothing || told == whole, "{len}: {told:?}, then {whole:?}");
            }
        }
    }
}
