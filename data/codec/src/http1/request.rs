//! Request heads.

use super::fields::Found;
use super::syntax::{is_authority, is_target, lines_end_in_crlf, reject};
use super::{Connection, Framing, Header, Reject, Slots, Version};

/// A complete and unambiguous request head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct RequestHead<'b, 's> {
    /// Method, case as sent.
    pub method: &'b str,
    /// Path and query in origin form, or `*`; the absolute form has been taken apart.
    pub path: &'b str,
    /// Host of the absolute form or of the Host field, with its port; empty if HTTP/1.0 sent none.
    pub host: &'b str,
    /// Version.
    pub version: Version,
    /// All fields.
    pub headers: &'s [Header<'b>],
    /// Framing of the body.
    pub framing: Framing,
    /// What `Connection` says.
    pub connection: Connection,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Protocol the client would like to change to (never h2c, and never in HTTP/1.0 or along with a body).
    pub upgrade: Option<&'b [u8]>,
    /// Length of the head in bytes.
    pub len: usize,
}

/// Parses a head from the start of `bytes`; `None` if it is not complete yet.
///
/// # Errors
/// If it is malformed, ambiguous, or longer than `max_bytes` or the slots allow.
pub fn parse_request<'b, 's>(
    bytes: &'b [u8],
    slots: &'s mut Slots<'b>,
    max_bytes: usize,
) -> Result<Option<RequestHead<'b, 's>>, Reject> {
    let mut request = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, slots);
    match status.map_err(reject)? {
        httparse::Status::Partial if bytes.len() >= max_bytes => Err(Reject::HeadTooLong),
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(len) if len > max_bytes => Err(Reject::HeadTooLong),
        httparse::Status::Complete(len) => head(&bytes[..len], request).map(Some),
    }
}

fn head<'b, 's>(bytes: &'b [u8], request: httparse::Request<'s, 'b>) -> Result<RequestHead<'b, 's>, Reject> {
    if !lines_end_in_crlf(bytes) {
        return Err(Reject::BareLineEnd);
    }
    let version = if request.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let headers: &'s [Header<'b>] = request.headers;
    let found = Found::in_headers(headers);
    let (host, path) = destination(method, target, &found, version)?;
    let framing = found.framing(version)?.unwrap_or(Framing::None);
    Ok(RequestHead {
        method,
        path,
        host,
        version,
        headers,
        framing,
        connection: found.connection,
        expects_continue: expects_continue(&found, version)?,
        upgrade: upgrade(&found, version, framing),
        len: bytes.len(),
    })
}

/// Host and path, from the Host field and whichever form the target has (RFC 9112 section 3.2).
fn destination<'b>(
    method: &str,
    target: &'b str,
    found: &Found<'b>,
    version: Version,
) -> Result<(&'b str, &'b str), Reject> {
    if !is_target(target.as_bytes()) {
        return Err(Reject::TargetCharacter);
    }
    let host = host(found, version)?;
    match target.as_bytes()[0] {
        _ if method == "CONNECT" => Err(Reject::Method),
        b'/' => Ok((host, target)),
        b'*' if target.len() == 1 && method == "OPTIONS" => Ok((host, target)),
        _ => absolute_form(target, host, found.hosts > 0),
    }
}

fn host<'b>(found: &Found<'b>, version: Version) -> Result<&'b str, Reject> {
    match found.host {
        _ if found.hosts > 1 => Err(Reject::HostDuplicate),
        None if version == Version::Http11 => Err(Reject::HostMissing),
        None => Ok(""),
        Some(host) if !is_authority(host) => Err(Reject::HostMalformed),
        Some(host) => std::str::from_utf8(host).map_err(|_| Reject::HostMalformed),
    }
}

fn absolute_form<'b>(target: &'b str, host: &str, host_sent: bool) -> Result<(&'b str, &'b str), Reject> {
    let (scheme, rest) = target.split_once("://").ok_or(Reject::TargetForm)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Reject::TargetForm);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Reject::HostMalformed);
    }
    if host_sent && !authority.eq_ignore_ascii_case(host) {
        return Err(Reject::HostMismatch);
    }
    match path.as_bytes().first() {
        None => Ok((authority, "/")),
        Some(b'/') => Ok((authority, path)),
        Some(_) => Err(Reject::TargetForm),
    }
}

fn expects_continue(found: &Found<'_>, version: Version) -> Result<bool, Reject> {
    match found.expect {
        None => Ok(false),
        Some(_) if version == Version::Http10 => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(Reject::Expectation),
    }
}

/// An upgrade to h2c is not passed on: behind it, requests would reach the upstream unseen.
fn upgrade<'b>(found: &Found<'b>, version: Version, framing: Framing) -> Option<&'b [u8]> {
    let possible =
        version == Version::Http11 && found.connection.upgrade && matches!(framing, Framing::None | Framing::Length(0));
    found.upgrade.filter(|_| possible && !found.offers_h2c)
}
