//! The HTTP API: resources, watches, events, audit, explanations, metrics, and the document that describes it all.
//!
//! [`endpoints`](mod@endpoints) is the one table of routes: the router and the OpenAPI document ([`openapi`]) are both
//! made from it, so that neither can know what the other does not. A request passes [`gate`] (who is it, may it do
//! that) and reaches a handler: [`resources`] for reading and writing, [`watching`] for following, [`records`] for
//! events and audit, [`inspect`] for what is observed. Everything that goes wrong is an [`ApiError`]: a status, a
//! reason for programs, a sentence for people, and the fields it is about. [`serve`](mod@serve) owns the sockets and
//! their limits.
//!
//! Nobody is let in without a token, but under an explicit option for loopback; tokens are kept as hashes ([`login`]).

mod changes;
mod endpoints;
mod error;
mod gate;
mod inspect;
pub mod login;
mod merge;
mod metrics;
mod openapi;
mod params;
mod records;
mod removal;
mod resources;
mod serve;
mod shared;
mod skips;
mod users;
mod warnings;
mod watching;

#[cfg(test)]
mod tests;

pub use error::ApiError;
pub use openapi::document;
pub use serve::serve;
pub use shared::{Api, ChangeDesk, Explain, Limits, MetricsSource, Options, Probe};
