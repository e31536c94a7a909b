//! From a header block to a head: which messages are well formed (RFC 9113 section 8).

use crate::fields::{Fields, Span};
use crate::message::Head;

/// What a field costs besides its bytes (RFC 9113 section 6.5.2).
const FIELD_BYTES: usize = 32;

/// A header block while it is read.
#[derive(Debug)]
pub(crate) struct Draft {
    fields: Fields,
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    status: Option<Span>,
    content_length: Option<u64>,
    has_pseudo: bool,
    malformed: bool,
    room: usize,
    /// It is longer than may be.
    pub(crate) oversized: bool,
}

/// The message breaks a rule: its stream is reset with PROTOCOL_ERROR (RFC 9113 section 8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Draft {
    pub(crate) fn new(max_list_bytes: usize) -> Self {
        Draft {
            fields: Fields::new(),
            method: None,
            scheme: None,
            authority: None,
            path: None,
            status: None,
            content_length: None,
            has_pseudo: false,
            malformed: false,
            room: max_list_bytes,
            oversized: false,
        }
    }

    /// Takes the next field. Once it is clear that the message is refused, nothing more is kept.
    #[inline]
    pub(crate) fn put(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        match self.room.checked_sub(name.len() + value.len() + FIELD_BYTES) {
            Some(room) => self.room = room,
            None => self.oversized = true,
        }
        if self.oversized || self.malformed {
            return;
        }
        let put = match name.strip_prefix(b":") {
            Some(name) => self.put_pseudo(name, value),
            None => self.put_field(name, value, never_indexed),
        };
        self.malformed |= put.is_err();
    }

    fn put_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        self.has_pseudo = true;
        if !self.fields.is_empty() || !value.iter().all(u8::is_ascii_graphic) {
            return Err(Malformed);
        }
        let span = self.fields.keep(value);
        let place = match name {
            b"method" => &mut self.method,
            b"scheme" => &mut self.scheme,
            b"authority" => &mut self.authority,
            b"path" => &mut self.path,
            b"status" => &mut self.status,
            _ => return Err(Malformed),
        };
        if place.replace(span).is_some() { Err(Malformed) } else { Ok(()) }
    }

    #[inline]
    fn put_field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) -> Result<(), Malformed> {
        if !is_name(name) || !is_value(value) {
            return Err(Malformed);
        }
        match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
                return Err(Malformed);
            }
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => return Err(Malformed),
            b"content-length" => {
                let length = length(value)?;
                if self.content_length.replace(length).is_some_and(|before| before != length) {
                    return Err(Malformed);
                }
            }
            _ => {}
        }
        self.fields.push(name, value, never_indexed);
        Ok(())
    }

    /// What the message has told of the length of its body.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// A request's head (RFC 9113 section 8.3.1).
    pub(crate) fn into_request(self) -> Result<Head, Malformed> {
        let text = |span: Option<Span>| span.map(|span| self.fields.kept(span));
        let method = text(self.method).ok_or(Malformed)?;
        let (scheme, path) = (text(self.scheme), text(self.path));
        let well_formed = match (method, text(self.authority), scheme, path) {
            // A URI without a host is none (RFC 9110 section 4.2.1).
            (_, Some(b""), ..) => false,
            (b"CONNECT", authority, None, None) => authority.is_some(),
            (b"CONNECT", ..) => false,
            (b"OPTIONS", _, Some(scheme), Some(b"*")) => is_scheme(scheme),
            (method, _, Some(scheme), Some(path)) => {
                is_token(method) && is_scheme(scheme) && path.first() == Some(&b'/')
            }
            _ => false,
        };
        if self.malformed || self.status.is_some() || !well_formed { Err(Malformed) } else { Ok(self.head(0)) }
    }

    /// A response's head (RFC 9113 section 8.3.2). 101 does not exist in HTTP/2 (section 8.6).
    pub(crate) fn into_response(self) -> Result<Head, Malformed> {
        let of_request = self.method.or(self.scheme).or(self.authority).or(self.path).is_some();
        let digits = self.status.map(|span| self.fields.kept(span)).ok_or(Malformed)?;
        let status = match digits {
            [a @ b'1'..=b'9', b, c] if b.is_ascii_digit() && c.is_ascii_digit() => {
                [a, b, c].iter().fold(0, |number, digit| number * 10 + u16::from(**digit - b'0'))
            }
            _ => return Err(Malformed),
        };
        if self.malformed || of_request || status == 101 { Err(Malformed) } else { Ok(self.head(status)) }
    }

    /// Trailers (RFC 9113 section 8.1).
    pub(crate) fn into_trailers(self) -> Result<Fields, Malformed> {
        if self.malformed || self.has_pseudo || self.oversized { Err(Malformed) } else { Ok(self.fields) }
    }

    fn head(self, status: u16) -> Head {
        let Draft { fields, method, scheme, authority, path, .. } = self;
        Head { fields, status, method, scheme, authority, path }
    }
}

fn length(value: &[u8]) -> Result<u64, Malformed> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(Malformed)
}

/// A token in either case, such as a method.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN[usize::from(byte.to_ascii_lowercase())])
}

fn is_scheme(scheme: &[u8]) -> bool {
    let other = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(other)
}

/// Characters of a token (RFC 9110 section 5.6.2) but for capital letters.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let others = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut index = 0;
    while index < others.len() {
        token[others[index] as usize] = true;
        index += 1;
    }
    token
};

#[inline]
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// No control characters but tabs inside, nor blanks at the ends (RFC 9113 section 8.2.1).
#[inline]
pub(crate) fn is_value(value: &[u8]) -> bool {
    let visible = value.iter().fold(true, |all, &byte| all & ((byte >= 0x20 && byte != 0x7f) | (byte == b'\t')));
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    visible && !blank(value.first()) && !blank(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(fields: &[(&str, &str)]) -> Draft {
        let mut draft = Draft::new(1000);
        fields.iter().for_each(|(name, value)| draft.put(name.as_bytes(), value.as_bytes(), false));
        draft
    }

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/")];

    #[test]
    fn requests_are_well_formed_or_not() {
        let with = |more: &[(&str, &str)]| draft(&[&GET[..], more].concat()).into_request().is_ok();
        assert!(with(&[]));
        assert!(with(&[(":authority", "a"), ("te", "trailers"), ("content-length", "5"), ("x", "")]));
        for (name, value) in [
            (":method", "GET"),
            (":status", "200"),
            (":protocol", "websocket"),
            (":other", "1"),
            ("X-Upper", "1"),
            ("", "1"),
            ("with space", "1"),
            ("n\0ul", "1"),
            ("\u{e4}", "1"),
            ("x", "a\nb"),
            ("x", "a\rb"),
            ("x", "a\0b"),
            ("x", " a"),
            ("x", "a\t"),
            ("x", "\x7f"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("content-length", ""),
            ("content-length", "+5"),
            ("content-length", "5, 5"),
            ("content-length", "18446744073709551616"),
        ] {
            assert!(!with(&[(name, value)]), "{name}: {value}");
        }
        assert!(!with(&[("content-length", "5"), ("content-length", "6")]));
        assert!(!with(&[("a", "b"), (":authority", "late")]));
    }

    #[test]
    fn request_lines_are_whole() {
        let ok = |fields: &[(&str, &str)]| draft(fields).into_request().is_ok();
        let line = |method, scheme, path| ok(&[(":method", method), (":scheme", scheme), (":path", path)]);
        assert!(line("OPTIONS", "https", "*") && line("X-OWN", "http", "/a?b"));
        for (method, scheme, path) in [
            ("GET", "http", ""),
            ("GET", "http", "*"),
            ("GET", "http", "a"),
            ("GET", "http", "/a b"),
            ("GET", "http", "/\u{e4}"),
            ("GET", "", "/"),
            ("GET", "1", "/"),
            ("", "http", "/"),
            ("G(T", "http", "/"),
            ("CONNECT", "http", "/"),
        ] {
            assert!(!line(method, scheme, path), "{method} {scheme} {path}");
        }
        assert!(ok(&[(":method", "CONNECT"), (":authority", "a:1")]));
        assert!(!ok(&[(":method", "CONNECT"), (":authority", "")]));
        assert!(!ok(&[(":method", "CONNECT")]) && !ok(&GET[..2]) && !ok(&GET[1..]) && !ok(&[]));
    }

    #[test]
    fn responses_have_a_status_and_nothing_of_a_request() {
        let status = |fields: &[(&str, &str)]| draft(fields).into_response().ok().map(|head| head.status());
        assert_eq!((status(&[(":status", "200")]), status(&[(":status", "999")])), (Some(200), Some(999)));
        for wrong in ["", "20", "2000", "abc", "099", "101", "+20"] {
            assert_eq!(status(&[(":status", wrong)]), None, "{wrong}");
        }
        assert_eq!((status(&[]), status(&[(":status", "200"), (":path", "/")])), (None, None));
    }

    #[test]
    fn trailers_have_no_pseudo_fields_and_lists_have_a_limit() {
        assert!(draft(&[("grpc-status", "0")]).into_trailers().is_ok());
        assert!(draft(&[(":status", "200")]).into_trailers().is_err());
        let fields = vec![("x", "y"); 30];
        assert!(draft(&fields).oversized && !draft(&fields[..29]).oversized);
    }
}
