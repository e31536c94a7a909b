//! Fields that a proxy must know: those that frame the message, concern one hop only, or are rewritten.

use super::syntax::{length, list};
use super::{Framing, Header, Reject, Version};

/// A field which a proxy treats in a way of its own; all others pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Expect`
    Expect,
    /// `Host`
    Host,
    /// `HTTP2-Settings`: only meant for an upgrade to h2c, which is not passed on.
    Http2Settings,
    /// `Keep-Alive`
    KeepAlive,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `TE`
    Te,
    /// `Traceparent`
    Traceparent,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `X-Forwarded-Client-Cert`
    XForwardedClientCert,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// None of them.
    Other,
}

/// Tells a field by its name, without case.
#[inline]
pub fn known(name: &str) -> Known {
    let (candidate, known) = match name.len() {
        2 => ("te", Known::Te),
        4 => ("host", Known::Host),
        6 => ("expect", Known::Expect),
        7 => ("upgrade", Known::Upgrade),
        10 => match name.as_bytes()[0] | 0x20 {
            b'c' => ("connection", Known::Connection),
            _ => ("keep-alive", Known::KeepAlive),
        },
        11 => ("traceparent", Known::Traceparent),
        14 => match name.as_bytes()[0] | 0x20 {
            b'c' => ("content-length", Known::ContentLength),
            _ => ("http2-settings", Known::Http2Settings),
        },
        15 => ("x-forwarded-for", Known::XForwardedFor),
        16 => ("proxy-connection", Known::ProxyConnection),
        17 => match name.as_bytes()[0] | 0x20 {
            b't' => ("transfer-encoding", Known::TransferEncoding),
            _ => ("x-forwarded-proto", Known::XForwardedProto),
        },
        23 => ("x-forwarded-client-cert", Known::XForwardedClientCert),
        _ => return Known::Other,
    };
    if name.eq_ignore_ascii_case(candidate) { known } else { Known::Other }
}

/// What the `Connection` fields of a head say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// `close` was there.
    pub close: bool,
    /// `keep-alive` was there.
    pub keep_alive: bool,
    /// `upgrade` was there.
    pub upgrade: bool,
    /// It names further fields which concern this hop only; see [`is_nominated`].
    pub nominates: bool,
}

impl Connection {
    fn read(&mut self, value: &[u8]) {
        for option in list(value) {
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => self.nominates = true,
            }
        }
    }

    /// Whether the connection outlives the message (RFC 9112 section 9.3).
    pub fn persists(self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// True if a `Connection` field of the head names this field, which then goes no further.
pub fn is_nominated(headers: &[Header<'_>], name: &str) -> bool {
    headers
        .iter()
        .filter(|header| known(header.name) == Known::Connection)
        .any(|header| list(header.value).any(|option| option.eq_ignore_ascii_case(name.as_bytes())))
}

/// What one pass over a head's fields finds.
#[derive(Debug, Default)]
pub(super) struct Found<'b> {
    pub(super) connection: Connection,
    pub(super) host: Option<&'b [u8]>,
    pub(super) hosts: usize,
    pub(super) expect: Option<&'b [u8]>,
    pub(super) upgrade: Option<&'b [u8]>,
    /// Any of the fields, for all of them would go on.
    pub(super) offers_h2c: bool,
    content_length: Option<&'b [u8]>,
    content_lengths: usize,
    transfer_encoding: Option<&'b [u8]>,
    transfer_encodings: usize,
}

impl<'b> Found<'b> {
    pub(super) fn in_headers(headers: &[Header<'b>]) -> Self {
        let mut found = Found::default();
        for header in headers {
            found.take(header);
        }
        found
    }

    #[inline]
    fn take(&mut self, header: &Header<'b>) {
        match known(header.name) {
            Known::Connection => self.connection.read(header.value),
            Known::Host => (self.host, self.hosts) = (Some(header.value), self.hosts + 1),
            Known::Expect => self.expect = Some(header.value),
            Known::Upgrade => {
                self.upgrade = Some(header.value);
                self.offers_h2c |= header.value.windows(3).any(|window| window.eq_ignore_ascii_case(b"h2c"));
            }
            Known::ContentLength => {
                (self.content_length, self.content_lengths) = (Some(header.value), self.content_lengths + 1);
            }
            Known::TransferEncoding => {
                (self.transfer_encoding, self.transfer_encodings) = (Some(header.value), self.transfer_encodings + 1);
            }
            _ => {}
        }
    }

    /// The body's framing as the fields give it; `None` if they say nothing.
    pub(super) fn framing(&self, version: Version) -> Result<Option<Framing>, Reject> {
        match (self.content_length, self.transfer_encoding) {
            (Some(_), Some(_)) => Err(Reject::LengthAndEncoding),
            (Some(_), None) if self.content_lengths > 1 => Err(Reject::ContentLengthDuplicate),
            (Some(value), None) => Ok(Some(Framing::Length(length(value)?))),
            (None, Some(_)) if self.transfer_encodings > 1 || version == Version::Http10 => {
                Err(Reject::TransferEncoding)
            }
            (None, Some(value)) => transfer_encoding(value).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn transfer_encoding(value: &[u8]) -> Result<Framing, Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let once_and_last =
        list(value).filter(|coding| is_chunked(coding)).count() == 1 && list(value).last().is_some_and(is_chunked);
    let well_formed = value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-, ".contains(&byte));
    let other_coding = list(value).count() > 1;
    Err(if once_and_last && well_formed && other_coding { Reject::TransferCoding } else { Reject::TransferEncoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_fields_are_told_without_case() {
        for (name, field) in [
            ("Connection", Known::Connection),
            ("KEEP-ALIVE", Known::KeepAlive),
            ("content-Length", Known::ContentLength),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("x-forwarded-client-cert", Known::XForwardedClientCert),
            ("x-forwarded-proto", Known::XForwardedProto),
            ("hos", Known::Other),
            ("hosT", Known::Host),
            ("hoxt", Known::Other),
        ] {
            assert_eq!(known(name), field, "{name}");
        }
    }

    #[test]
    fn only_exactly_chunked_frames_a_message() {
        assert_eq!(transfer_encoding(b"Chunked"), Ok(Framing::Chunked));
        assert_eq!(transfer_encoding(b"gzip, chunked"), Err(Reject::TransferCoding));
        for ambiguous in
            ["", "identity", "xchunked", "chunked, gzip", "chunked,chunked", "\"chunked\"", ",chunked", "chunked;q=1"]
        {
            assert_eq!(transfer_encoding(ambiguous.as_bytes()), Err(Reject::TransferEncoding), "{ambiguous}");
        }
    }
}
