//! The seam to the runtime: the only module that owns sockets, reads, writes and timers on the request path.
//!
//! Everything else speaks of [`Stream`], [`Buf`], [`Timer`] and [`Listener`]. What stands behind them is tokio on
//! epoll today; a completion-based ring could replace it here.

mod buf;
mod frames;
mod listen;
mod stream;
mod timer;
mod tls;

pub(crate) use buf::{BUFFER_BYTES, Buf, BufferPool};
pub(crate) use frames::FramePool;
pub(crate) use listen::{Listener, bind};
pub(crate) use stream::{NotWritten, Prefixed, Reader, Stream, Unsecured, Writer, canonical, connect};
pub(crate) use timer::{Elapsed, Timer};
pub(crate) use tls::Session;
