//! The ADS client: from a stream of xDS resources to consistent configurations.
//!
//! One task owns everything. A response is [converted](crate::convert), put into the [`world`], settled (what is
//! complete becomes active), handed to the [`Sink`], and only when the sink has taken it (every worker has switched) is
//! it acknowledged. What does not convert, or what the sink refuses, is answered with a NACK that says why, and the
//! configuration before it stays.
//!
//! The stream may end at any time: the task keeps what it has, reconnects with growing, jittered pauses and tells the
//! control plane what it already holds, so that a restart of the control plane changes nothing here.

mod delta;
mod engine;
mod kind;
mod resolver;
mod session;
mod sotw;
mod world;

pub use engine::{ApplyError, Sink};
pub use kind::Kind;
pub use session::{Node, XdsOptions, XdsStatus, run};

#[cfg(test)]
mod tests;
