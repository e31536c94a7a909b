//! SOFABolt, versions 1 and 2 (`RpcProtocol.java` and `RpcProtocolV2.java` of sofastack/sofa-bolt).
//!
//! A frame is a head of 20 to 24 bytes, then the name of a class, SOFARPC's header map, the content, and in one variant
//! of version 2 a CRC-32. The content is not looked into, but for the method's name
//! where the header map lacks it: service, method and labels are in the header map.
//!
//! ```text
//! proto | ver1 (v2) | type | command 2 | ver2 | id 4 | codec | switch (v2) | timeout 4, or status 2 |
//! class length 2 | header map length 2 | content length 4 | class | header map | content | CRC-32 4 (v2)
//! ```
//!
//! A [`Frame`] that is not edited goes on byte for byte but for its id.

mod build;
mod frame;
mod head;
mod headers;
mod sofa;

pub use build::Call;
pub use frame::Frame;
pub use head::{Head, Kind, Version};
pub use headers::Headers;

/// Codec of content in SOFA's Hessian.
pub const HESSIAN2: u8 = 1;
/// Key of the header map that names the service for a router.
pub const TARGET_SERVICE: &str = "sofa_head_target_service";
/// Key of the header map that names the service for the server.
pub const SERVICE: &str = "service";
/// Key of the header map that names the method.
pub const METHOD: &str = "sofa_head_method_name";
/// The most bytes that class name and header map may have each: their lengths are signed shorts in Java.
pub const MAX_SECTION_BYTES: usize = i16::MAX as usize;

/// Why bytes are not accepted as a frame, or an edit is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// The first byte is neither 1 nor 2.
    #[error("not a SOFABolt frame: protocol {0}")]
    Protocol(u8),
    /// A minor version of protocol 2 other than 1 and 2: Java would wait for it forever.
    #[error("unknown version 2.{0}")]
    Minor(u8),
    /// A type other than response, request and one-way.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// A command that does not go with the type, or is unknown.
    #[error("unknown command {0}")]
    Command(u16),
    /// A length that is negative in Java.
    #[error("a length is negative")]
    NegativeLength,
    /// The content is longer than the limit. [`Head::parse`] tells whom to answer.
    #[error("{len} bytes of content are more than the {max} allowed")]
    TooLong {
        /// Length of the content in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The CRC-32 at the end is wrong.
    #[error("the checksum does not match")]
    Checksum,
    /// The header map is not pairs of strings.
    #[error("malformed header map")]
    HeaderMap,
    /// After an edit the header map would have more than [`MAX_SECTION_BYTES`].
    #[error("the header map would have {0} bytes, more than 32767")]
    HeaderMapTooLong(usize),
}
