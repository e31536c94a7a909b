//! Encryption: who the proxy is, whom it trusts, and how connections are secured.
//!
//! Mutual TLS 1.3. A peer is known by the URI in its certificate's subject alternative name (SPIFFE), never by a host
//! name. What a connection was secured by is told by a [`Generation`]: when the configuration asks for another, the
//! connection takes no new request, finishes what it carries, and goes (see [`crate::upstream`] and [`crate::worker`]).

mod admit;
mod certificate;
mod context;
mod failure;
mod verify;

pub(crate) use admit::{HANDSHAKE, admit};
pub use certificate::CertificateInfo;
pub(crate) use context::{Accepts, Alpn, ClientTls, Secrets, Security, ServerTls};
pub(crate) use failure::HandshakeFailure;
pub(crate) use verify::identity_of;
