//! Wire protocols: bytes in, frames out, no sockets.
//!
//! Everything here works on slices that a peer filled, trusts nothing in them, and holds no more than it is told it may.

pub mod http1;
