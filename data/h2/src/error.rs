//! What can go wrong, and how it is told: error codes on the wire (RFC 9113 section 7), errors to the holder of a stream.

use std::fmt;
use std::io;

/// An error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing is wrong.
    pub const NO_ERROR: Reason = Reason(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Reason = Reason(0x1);
    /// We are at fault.
    pub const INTERNAL_ERROR: Reason = Reason(0x2);
    /// The peer sent more than the window allowed.
    pub const FLOW_CONTROL_ERROR: Reason = Reason(0x3);
    /// A frame came on a stream that takes none any more.
    pub const STREAM_CLOSED: Reason = Reason(0x5);
    /// A frame has a length that it may not have.
    pub const FRAME_SIZE_ERROR: Reason = Reason(0x6);
    /// The request was not looked at.
    pub const REFUSED_STREAM: Reason = Reason(0x7);
    /// The stream is no longer wanted.
    pub const CANCEL: Reason = Reason(0x8);
    /// Header fields could not be decompressed.
    pub const COMPRESSION_ERROR: Reason = Reason(0x9);
    /// The peer does something too often.
    pub const ENHANCE_YOUR_CALM: Reason = Reason(0xb);

    fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

/// Which end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// We.
    Us,
    /// The other end.
    Peer,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Us => "we",
            By::Peer => "the peer",
        })
    }
}

/// Why a stream or a connection ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stream was reset.
    #[error("{by} reset the stream: {reason}")]
    Reset {
        /// Why.
        reason: Reason,
        /// Who did it.
        by: By,
    },
    /// The connection was ended.
    #[error("{by} ended the connection: {reason}")]
    GoAway {
        /// Why.
        reason: Reason,
        /// Who did it.
        by: By,
    },
    /// The peer cannot have looked at the request: it may be sent again, whatever its method.
    #[error("the connection ended before the request was looked at")]
    NotProcessed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(io::ErrorKind),
}

impl Error {
    /// True if the connection broke, rather than that a rule was.
    pub fn is_io(&self) -> bool {
        matches!(self, Error::Io(_))
    }

    /// The error code, if one was given.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Reset { reason, .. } | Error::GoAway { reason, .. } => Some(*reason),
            Error::NotProcessed | Error::Io(_) => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(kind) => kind.into(),
            error => io::Error::other(error),
        }
    }
}

/// A rule that the peer broke, and how far the consequences reach (RFC 9113 section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The connection ends.
    Connection(Reason),
    /// The stream is reset.
    Stream(u32, Reason),
}

/// The connection ends for breaking the protocol, the most frequent violation.
pub(crate) const PROTOCOL: Violation = Violation::Connection(Reason::PROTOCOL_ERROR);
