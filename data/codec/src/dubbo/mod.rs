//! Dubbo 2 over TCP (`ExchangeCodec.java` and `DubboCodec.java` of apache/dubbo).
//!
//! A frame is a head of 16 bytes and a body. In a request serialised as Hessian 2 the body is Dubbo's version, path,
//! service version, method, a descriptor of the parameters, the arguments, and the attachments last:
//!
//! ```text
//! 0xdabb | flags | status | id 8 | body length 4 | body
//! ```
//!
//! Path and method are read from the front; arguments are stepped over, never decoded, to reach the attachments. Pairs
//! of strings added to or taken from those move no reference, since Hessian numbers only lists, maps and objects, and
//! nothing comes after the attachments. A [`Frame`] that is not edited goes on byte for byte but for its id.

mod attachments;
mod build;
mod frame;
mod head;
mod invocation;

pub use attachments::Attachments;
pub use build::Call;
pub use frame::{Frame, Kind};
pub use head::{HEAD_LEN, Head, MAGIC};
pub use invocation::{Invocation, Outcome};

use crate::hessian::Malformed;

/// Status of a response that carries a result, be it a value or an exception of the application.
pub const OK: u8 = 20;
/// Id of Hessian 2 among the serialisations.
pub const HESSIAN2: u8 = 2;
/// The most bytes an event's body may have; Dubbo itself allows 50.
pub const MAX_EVENT_BYTES: usize = 1024;
/// The most attachments that are read: each takes more memory than the two bytes it may have on the wire.
pub const MAX_ATTACHMENTS: usize = 1024;

/// Why bytes are not accepted as a frame, or a body cannot be read or edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// The first two bytes are not `0xdabb`.
    #[error("not a Dubbo frame")]
    Magic,
    /// A length that is negative in Java.
    #[error("the length is negative")]
    NegativeLength,
    /// The body is longer than the limit. [`Head::parse`] tells whom to answer.
    #[error("{len} bytes of body are more than the {max} allowed")]
    TooLong {
        /// Length of the body in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The body is not serialised as Hessian 2; the frame can only be sent on as it is.
    #[error("serialisation {0} is not understood, only Hessian 2 is")]
    Serialization(u8),
    /// There is nothing of the kind in a frame like this.
    #[error("a frame like this has no invocation or attachments")]
    Kind,
    /// The descriptor is not a row of Java types.
    #[error("malformed parameter descriptor")]
    Descriptor,
    /// A response whose first value is none of 0 to 5.
    #[error("unknown kind of response")]
    Outcome,
    /// The attachments are a reference, or no map.
    #[error("the attachments are not a map")]
    Attachments,
    /// More attachments than [`MAX_ATTACHMENTS`].
    #[error("more than 1024 attachments")]
    TooManyAttachments,
    /// The body is malformed.
    #[error("malformed body: {0}")]
    Hessian(#[from] Malformed),
}
