//! Response heads.

use super::fields::Found;
use super::syntax::{lines_end_in_crlf, reject};
use super::{Connection, Framing, Header, Reject, Slots, Version};

/// A complete and unambiguous response head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct ResponseHead<'b, 's> {
    /// Status, 100 to 999.
    pub status: u16,
    /// Reason phrase, possibly empty.
    pub reason: &'b str,
    /// Version.
    pub version: Version,
    /// All fields.
    pub headers: &'s [Header<'b>],
    /// Framing of the body, given what was asked.
    pub framing: Framing,
    /// What `Connection` says.
    pub connection: Connection,
    /// Length of the head in bytes.
    pub len: usize,
}

impl ResponseHead<'_, '_> {
    /// True if a further response to the same request follows. 101 is final: it ends HTTP on the connection.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// True if the connection can carry another request when this response has ended.
    pub fn persists(&self) -> bool {
        self.framing != Framing::UntilClose && self.status != 101 && self.connection.persists(self.version)
    }
}

/// Parses a head from the start of `bytes`; `None` if it is not complete yet. `to_head` tells that it answers a HEAD
/// request, and so has no body whatever its fields say.
///
/// # Errors
/// If it is malformed, ambiguous, or longer than `max_bytes` or the slots allow.
pub fn parse_response<'b, 's>(
    bytes: &'b [u8],
    slots: &'s mut Slots<'b>,
    max_bytes: usize,
    to_head: bool,
) -> Result<Option<ResponseHead<'b, 's>>, Reject> {
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, slots);
    match status.map_err(reject)? {
        httparse::Status::Partial if bytes.len() >= max_bytes => Err(Reject::HeadTooLong),
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(len) if len > max_bytes => Err(Reject::HeadTooLong),
        httparse::Status::Complete(len) => head(&bytes[..len], response, to_head).map(Some),
    }
}

fn head<'b, 's>(
    bytes: &'b [u8],
    response: httparse::Response<'s, 'b>,
    to_head: bool,
) -> Result<ResponseHead<'b, 's>, Reject> {
    if !lines_end_in_crlf(bytes) {
        return Err(Reject::BareLineEnd);
    }
    let version = if response.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let status = response.code.filter(|code| *code >= 100).ok_or(Reject::FirstLine)?;
    let headers: &'s [Header<'b>] = response.headers;
    let found = Found::in_headers(headers);
    Ok(ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        version,
        headers,
        framing: framing(&found, version, status, to_head)?,
        connection: found.connection,
        len: bytes.len(),
    })
}

fn framing(found: &Found<'_>, version: Version, status: u16, to_head: bool) -> Result<Framing, Reject> {
    let told = found.framing(version)?;
    let bodiless = to_head || matches!(status, 100..200 | 204 | 304);
    Ok(if bodiless { Framing::None } else { told.unwrap_or(Framing::UntilClose) })
}
