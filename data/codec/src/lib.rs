//! Wire protocols: bytes in, frames out, no sockets.
//!
//! Everything here works on bytes that a peer sent, trusts nothing in them, and holds no more than it is told it may.

pub mod baggage;
pub mod bolt;
pub mod dubbo;
pub mod hessian;
pub mod http1;
pub mod rpc;
pub mod tls_hello;
