//! The proxy between real sockets: tiny hand-written peers on both sides.

mod balancing;
mod changes;
mod health;
mod http1;
mod http2;
mod limits;
mod observing;
mod peers;
mod pki;
mod rpc;
mod rpc_life;
mod rpc_peers;
mod smuggling;
mod tcp;
mod tls;
mod tls_switches;
