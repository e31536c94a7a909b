//! Wire protocols: bytes in, frames out, no sockets.
