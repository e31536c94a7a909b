//! HTTP/2 for one thread (RFC 9113, RFC 7541): many streams on a connection, without a lock or an atomic.
//!
//! In the middle stands a connection that knows no socket: bytes go in, events and bytes come out. Around it are handles
//! that tasks of the same thread hold, one for each direction of a stream, and a driver that moves bytes between the
//! connection and whatever reads and writes.
//!
//! ```text
//! socket -> scratch of the thread -> [frames -> streams] -> body and head of each stream -> tasks
//! socket <- one buffer, lent      <- [frames <- HPACK  ] <- heads and data, as windows allow <- tasks
//! ```
//!
//! - What is read lies in memory of the thread, not of the connection: a connection keeps only the beginning of a frame
//!   that has not come whole. What is to be written lies in one buffer that is given back once it is empty. So a
//!   connection that waits holds its settings, its windows and what the peer had it remember of header fields.
//! - Data is framed only when the windows allow it and the buffer has room. Whoever sends waits until then, so nothing
//!   piles up between the sender and the socket.
//! - Everything a peer can make larger or more frequent has a bound: see [`Config`] and the module `limits`.
//! - The header encoder uses the static table only. It has no state, so nothing can get out of step, and an idle
//!   connection pays nothing for it.

mod client;
mod conn;
mod drive;
mod error;
mod fields;
mod flow;
mod frame;
mod handle;
mod headers;
pub mod hpack;
mod limits;
mod message;
mod pool;
mod recv;
mod send;
mod server;
mod settings;
mod stream;
mod streams;

pub use client::{ClientConnection, SendRequest, connect};
pub use error::{By, Error, Reason};
pub use fields::Fields;
pub use frame::PREFACE;
pub use handle::{RecvStream, SendStream};
pub use limits::Config;
pub use message::{Head, RequestLine};
pub use server::{Request, ServerConnection, accept};
