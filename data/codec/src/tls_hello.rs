//! The first words of a TLS connection: which server is wanted (SNI) and which protocols are offered (ALPN), read without
//! taking part in the handshake (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301 section 3.1).

/// A ClientHello, with the records that carry it, may be this long; browsers' are below 2 KiB, and below 4 KiB with
/// post-quantum key shares.
pub const MAX_HELLO: usize = 16 * 1024;

/// What a client says first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server it wants, in lower case; absent: it does not say.
    pub server_name: Option<String>,
    /// Protocols it offers, e.g. `h2`, the most wanted first.
    pub alpn: Vec<Vec<u8>>,
}

/// Why bytes are not a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// They do not begin a TLS handshake.
    #[error("not a TLS handshake")]
    NotTls,
    /// Lengths or contents contradict each other.
    #[error("malformed ClientHello")]
    Malformed,
    /// Longer than [`MAX_HELLO`].
    #[error("ClientHello longer than {MAX_HELLO} bytes")]
    TooLong,
}

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Longest fragment in a record (RFC 8446 section 5.1).
const MAX_FRAGMENT: usize = 1 << 14;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
/// Longest host name (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;

/// Reads what has arrived so far. `None`: more is needed.
///
/// # Errors
/// The bytes cannot become a ClientHello any more.
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, Reject> {
    let Some(message) = message(bytes)? else {
        return if bytes.len() >= MAX_HELLO { Err(Reject::TooLong) } else { Ok(None) };
    };
    hello(Cursor(&message)).ok_or(Reject::Malformed).map(Some)
}

/// The handshake message, put together from as many records as it takes; `None`: it is not there in whole.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, Reject> {
    let (mut rest, mut message) = (bytes, Vec::new());
    loop {
        if let Some(body) = whole(&message)? {
            return Ok(Some(body.to_vec()));
        }
        let Some(fragment) = fragment(rest)? else { return Ok(None) };
        message.extend_from_slice(fragment.present);
        rest = rest.get(5 + fragment.len..).unwrap_or_default();
    }
}

struct Fragment<'a> {
    len: usize,
    present: &'a [u8],
}

/// The next record's content, as far as it has arrived; `None`: not even its head has.
fn fragment(bytes: &[u8]) -> Result<Option<Fragment<'_>>, Reject> {
    if bytes.first().is_some_and(|kind| *kind != RECORD_HANDSHAKE) || bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(Reject::NotTls);
    }
    let [_, _, _, high, low, rest @ ..] = bytes else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if len == 0 || len > MAX_FRAGMENT {
        return Err(Reject::Malformed);
    }
    Ok(Some(Fragment { len, present: &rest[..rest.len().min(len)] }))
}

/// The body of the handshake message, if all of it is there.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, Reject> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Reject::NotTls);
    }
    let [_, a, b, c, body @ ..] = message else { return Ok(None) };
    let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if len > MAX_HELLO {
        return Err(Reject::TooLong);
    }
    Ok(body.get(..len))
}

/// Takes values off the front; `None` where there are too few bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// What follows a length of one byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// What follows a length of two bytes.
    fn long(&mut self) -> Option<Cursor<'a>> {
        let len = self.u16()?;
        Some(Cursor(self.take(len.into())?))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn hello(mut body: Cursor<'_>) -> Option<ClientHello> {
    body.take(2 + 32)?; // legacy_version, random
    body.short()?; // legacy_session_id
    body.long()?; // cipher_suites
    body.short()?; // legacy_compression_methods
    let mut hello = ClientHello::default();
    if body.is_empty() {
        return Some(hello); // before extensions existed
    }
    let mut extensions = body.long()?;
    if !body.is_empty() {
        return None;
    }
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.long()?;
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = Some(server_name(content)?),
            EXTENSION_ALPN => hello.alpn = protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The one name there may be (RFC 6066: one of each type, and there is one type).
fn server_name(mut content: Cursor<'_>) -> Option<String> {
    let mut list = content.long()?;
    let kind = list.u8()?;
    let name = list.long()?.0;
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-._".contains(b);
    let fine = kind == 0 && list.is_empty() && content.is_empty();
    let fine = fine && !name.is_empty() && name.len() <= MAX_HOST && name.iter().all(legal);
    fine.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn protocols(mut content: Cursor<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = content.long()?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let name = list.short()?;
        if name.is_empty() {
            return None;
        }
        protocols.push(name.to_vec());
    }
    (content.is_empty() && !protocols.is_empty()).then_some(protocols)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn long(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn short(content: &[u8]) -> Vec<u8> {
        [&[content.len() as u8], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &long(content)].concat()
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        extension(0, &long(&[&[0][..], &long(name)].concat()))
    }

    /// A ClientHello cut into records of `size` bytes.
    fn records(extensions: &[Vec<u8>], size: usize) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &short(&[9; 32]),
            &long(&[0x13, 0x01, 0x13, 0x02]),
            &short(&[0]),
            &long(&extensions.concat()),
        ]
        .concat();
        let message = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        message.chunks(size).flat_map(|piece| [&[22, 3, 1][..], &long(piece)].concat()).collect()
    }

    fn example(size: usize) -> Vec<u8> {
        let alpn = extension(16, &long(&[short(b"h2"), short(b"http/1.1")].concat()));
        let key_share = extension(51, &[0; 1200]);
        records(&[key_share, sni(b"Stock.Example"), alpn], size)
    }

    fn expected() -> ClientHello {
        ClientHello { server_name: Some("stock.example".into()), alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()] }
    }

    #[test]
    fn name_and_protocols_are_read_however_the_records_are_cut() {
        for size in [1, 3, 5, 100, 1 << 14] {
            let bytes = example(size);
            assert_eq!(parse(&bytes), Ok(Some(expected())), "records of {size}");
            for len in 0..bytes.len() {
                assert_eq!(parse(&bytes[..len]), Ok(None), "{len} bytes of records of {size}");
            }
            assert_eq!(parse(&[&bytes[..], b"what follows"].concat()), Ok(Some(expected())));
        }
    }

    #[test]
    fn a_client_may_say_nothing() {
        assert_eq!(parse(&records(&[], 1 << 14)), Ok(Some(ClientHello::default())));
    }

    #[test]
    fn what_is_something_else_is_told_at_once() {
        for other in [&b"GET / HTTP/1.1"[..], b"PRI * HTTP/2.0", b"\x16\x02", b"\x15\x03\x03", b"SSH-2.0"] {
            assert_eq!(parse(other), Err(Reject::NotTls), "{other:?}");
        }
        let server_hello = [22, 3, 3, 0, 4, 2, 0, 0, 0];
        assert_eq!(parse(&server_hello), Err(Reject::NotTls));
    }

    #[test]
    fn lengths_that_lie_meet_a_limit() {
        assert_eq!(parse(&[22, 3, 1, 0x40, 0x01]), Err(Reject::Malformed), "a record above 2^14");
        assert_eq!(parse(&[22, 3, 1, 0, 0]), Err(Reject::Malformed), "an empty record");
        assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]), Err(Reject::TooLong));
        let one_by_one: Vec<u8> = (0..MAX_HELLO).flat_map(|_| [22, 3, 1, 0, 1, 1]).collect();
        assert_eq!(parse(&one_by_one[..MAX_HELLO]), Err(Reject::TooLong));
    }

    #[test]
    fn names_that_no_host_has_are_refused() {
        for name in [&b""[..], b"a b", b"a/b", b"\xff", &[b'a'; 254]] {
            assert_eq!(parse(&records(&[sni(name)], 1 << 14)), Err(Reject::Malformed), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), tls in any::<bool>()) {
            let bytes = if tls { [&[22, 3, 1, 0, 200, 1, 0, 0, 150][..], &bytes].concat() } else { bytes };
            let _ = parse(&bytes);
        }

        #[test]
        fn one_wrong_byte_is_no_reason_to_fall_over(at in 0_usize..1400, value in any::<u8>()) {
            let mut bytes = example(1 << 14);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = parse(&bytes);
        }
    }
}
