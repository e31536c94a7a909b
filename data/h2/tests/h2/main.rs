//! HTTP/2 as peers see it: over a pipe in memory, by bytes and beside another implementation.

mod floods;
mod interop;
mod malformed;
mod split;
mod wire;
