//! The proxy between real sockets: tiny hand-written peers on both sides.

mod balancing;
mod changes;
mod http1;
mod http2;
mod limits;
mod observing;
mod peers;
mod pki;
mod smuggling;
mod tls;
