//! The proxy's side of the control plane: configuration by [`xds`], registration and health over the
//! [control stream](registration), spans by [`otlp`].
//!
//! Everything that knows protobuf or gRPC on the proxy's side is in this crate. The proxy sees its own configuration
//! types and plain structs.

mod backoff;
mod channel;
mod convert;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod otlp;
pub mod registration;
mod tls;
pub mod xds;

pub use channel::{Token, TokenError};
pub use weir_trust::Trust;
