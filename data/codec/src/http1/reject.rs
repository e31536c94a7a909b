//! Why a message is not accepted.

/// A message that is malformed, ambiguous or too large. After one, the connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// A line ends in LF without CR, or holds a CR without LF.
    #[error("a line does not end in CR LF")]
    BareLineEnd,
    /// The request line or status line is malformed.
    #[error("malformed first line")]
    FirstLine,
    /// A character that may not stand in a request target.
    #[error("the target holds a character that may not stand there")]
    TargetCharacter,
    /// A target in none of the forms of RFC 9112 section 3.2, or one that does not go with the method.
    #[error("the target's form is not allowed for the method")]
    TargetForm,
    /// The absolute form names another host than the Host field.
    #[error("target and Host name different hosts")]
    HostMismatch,
    /// No Host in HTTP/1.1.
    #[error("Host is missing")]
    HostMissing,
    /// More than one Host.
    #[error("Host is there more than once")]
    HostDuplicate,
    /// A Host that is not a host.
    #[error("Host is malformed")]
    HostMalformed,
    /// A malformed header field: a space before the colon, an obsolete fold, a control character.
    #[error("malformed header field")]
    Header,
    /// More fields than allowed.
    #[error("too many header fields")]
    TooManyHeaders,
    /// A longer head than allowed.
    #[error("the head is too long")]
    HeadTooLong,
    /// A version other than 1.0 and 1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// A Content-Length that is not a number, or too large.
    #[error("Content-Length is not a length")]
    ContentLength,
    /// More than one Content-Length.
    #[error("Content-Length is there more than once")]
    ContentLengthDuplicate,
    /// Content-Length together with Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// A Transfer-Encoding that does not end in exactly one `chunked`, is repeated, or is there in HTTP/1.0.
    #[error("Transfer-Encoding does not frame the message")]
    TransferEncoding,
    /// A transfer coding besides `chunked`.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// An Expect other than `100-continue`.
    #[error("unsupported expectation")]
    Expectation,
    /// CONNECT.
    #[error("unsupported method")]
    Method,
    /// A chunk's size is not a hexadecimal number of at most 15 digits.
    #[error("malformed chunk size")]
    ChunkSize,
    /// A chunk's extensions are malformed or too long.
    #[error("malformed or overlong chunk extension")]
    ChunkExtension,
    /// A chunk's data is not followed by CR LF.
    #[error("chunk data does not end in CR LF")]
    ChunkEnd,
    /// A malformed trailer field, or one that may not be a trailer.
    #[error("malformed or forbidden trailer field")]
    Trailer,
    /// Trailers longer than allowed.
    #[error("trailers are too long")]
    TrailersTooLong,
}

impl Reject {
    /// The status with which a request like this is answered.
    pub fn status(self) -> u16 {
        match self {
            Reject::TooManyHeaders | Reject::HeadTooLong | Reject::TrailersTooLong => 431,
            Reject::Version => 505,
            Reject::TransferCoding | Reject::Method => 501,
            Reject::Expectation => 417,
            _ => 400,
        }
    }
}
