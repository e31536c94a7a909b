//! Small checks that heads of both kinds share.

use super::Reject;

/// Turns what `httparse` says into ours.
pub(super) fn reject(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Reject::Header,
        httparse::Error::NewLine => Reject::BareLineEnd,
        httparse::Error::TooManyHeaders => Reject::TooManyHeaders,
        httparse::Error::Version => Reject::Version,
        httparse::Error::Status | httparse::Error::Token => Reject::FirstLine,
    }
}

/// `httparse` takes a lone LF for a line's end; other parsers don't, so it is refused.
pub(super) fn lines_end_in_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// A decimal length without sign, space or overflow.
pub(super) fn length(value: &[u8]) -> Result<u64, Reject> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    if !digits {
        return Err(Reject::ContentLength);
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// What may stand in an authority (RFC 3986 section 3.2 without user information, and without the comma, which would
/// make a list of it).
pub fn is_authority(host: &[u8]) -> bool {
    host.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte))
}

/// Visible ASCII without the fragment mark: what may stand in a request target. Characters which RFC 3986 wants encoded
/// but clients send raw (`|`, `{`...) are let through; no two parsers differ about them.
pub fn is_target(target: &[u8]) -> bool {
    target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#')
}

/// The elements of a comma-separated list without the space around them; empty ones are left out.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}
