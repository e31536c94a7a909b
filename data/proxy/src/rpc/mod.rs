//! Bolt and Dubbo: requests and answers side by side, on connections to upstreams that many callers share.
//!
//! A caller's connection has one task ([`caller`]), a connection to an upstream has one ([`link`]). A frame that comes
//! from a caller takes its way within the caller's task: route, filter and balance ([`request`]), then another id, and
//! into the outbox of an upstream's connection. There it is remembered as a [`call`] under that id, until the answer comes,
//! or the time is up, or the connection is lost; in each case the caller gets an answer with its own id. Only where no
//! connection is there yet does a request get a task of its own.
//!
//! What the protocols do in different ways is in [`frame`]: nothing else knows which one is spoken.

mod call;
mod caller;
mod frame;
mod link;
mod outbox;
mod pool;
mod request;

pub(crate) use caller::serve;
pub(crate) use frame::Protocol;
pub(crate) use pool::RpcPool;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::io::Prefixed;
use crate::worker::Worker;

/// Room made for each read, and the most of it.
const READ_BYTES: usize = 16 * 1024;
const MAX_READ_BYTES: usize = 256 * 1024;
/// A buffer that has grown beyond this is not kept for others.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// A buffer to read into, shared by all connections of a worker: one that waits for a frame's beginning holds none.
#[derive(Debug, Default)]
pub(crate) struct Scratch(RefCell<BytesMut>);

/// Reads what is there; 0: the peer will send no more.
fn poll_read(
    stream: &mut Prefixed,
    buffer: &mut BytesMut,
    worker: &Worker,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        *buffer = worker.scratch.0.take();
    }
    // The more of a frame has come, the more is likely to follow.
    buffer.reserve(buffer.len().clamp(READ_BYTES, MAX_READ_BYTES));
    // This future keeps nothing between polls, so it may be made anew for each.
    let polled = pin!(stream.read_buf(buffer)).poll(cx);
    give_back(buffer, worker);
    polled
}

/// Lets others read into the buffer, if nothing is in it.
fn give_back(buffer: &mut BytesMut, worker: &Worker) {
    if buffer.is_empty() && buffer.capacity() > 0 {
        let buffer = std::mem::take(buffer);
        if buffer.capacity() <= MAX_KEPT_BYTES {
            worker.scratch.0.replace(buffer);
        }
    }
}
