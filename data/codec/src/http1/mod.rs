//! HTTP/1.0 and 1.1 (RFC 9112): heads, body framing, chunks.
//!
//! A proxy must read a message exactly as the next hop will, or the two disagree where it ends and one caller's bytes
//! become another's request. So this codec is stricter than RFC 9112 demands of a lenient server: whatever could be read
//! in two ways is a [`Reject`], never a guess. What it accepts goes on byte for byte where it can.
//!
//! Heads are parsed in place by `httparse` into slots the caller provides: no allocation per header.

mod chunked;
mod fields;
mod reject;
mod request;
mod response;
mod syntax;

pub use chunked::{ChunkDecoder, Step};
pub use fields::{Connection, Known, is_nominated, known};
pub use reject::Reject;
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use syntax::{is_authority, is_target};

use std::mem::MaybeUninit;

/// A header field, borrowed from the bytes it was parsed from.
pub type Header<'b> = httparse::Header<'b>;

/// Room for the headers of one head. Its length is the most that are accepted.
pub type Slots<'b> = [MaybeUninit<Header<'b>>];

/// Uninitialised [`Slots`] on the stack.
pub fn slots<'b, const N: usize>() -> [MaybeUninit<Header<'b>>; N] {
    [const { MaybeUninit::uninit() }; N]
}

/// Version of a message. Others are answered 505.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, closes by default.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Where a message's body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// Until the connection is closed; responses only.
    UntilClose,
}
