//! Frames on their way to a peer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::frame::Frame;
use crate::io::{BufferPool, Prefixed};

/// Frames up to this length are copied one behind the other, so that many go out with one system call and none keeps
/// the buffer alive that it was read into.
const COPIED_BYTES: usize = 8 * 1024;
/// Most pieces written with one system call.
const MAX_SLICES: usize = 16;

/// Where a frame stands in the stream of bytes to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    start: u64,
    len: usize,
}

/// Frames that were not written yet, and the task that writes them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: RefCell<Queue>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order of the stream; the tail comes after them.
    sealed: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the foremost piece that were written.
    of_first: usize,
    /// Bytes written so far.
    written: u64,
    /// Bytes still to be written.
    left: usize,
}

impl Outbox {
    /// Adds a frame and wakes the task that writes.
    pub(super) fn push(&self, frame: Frame, pool: &BufferPool) -> Place {
        let place = self.queue.borrow_mut().push(frame, pool);
        self.wake();
        place
    }

    /// Bytes still to be written.
    pub(super) fn len(&self) -> usize {
        self.queue.borrow().left
    }

    /// Wakes the task that writes.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The task asks to be woken; done last, so that it is not woken for what it adds by itself.
    pub(super) fn listen(&self, waker: &Waker) {
        self.waker.replace(Some(waker.clone()));
    }

    /// Writes as much as the socket takes; `true` if that was anything. For the rest the task is woken.
    pub(super) fn flush(&self, cx: &mut Context<'_>, stream: &mut Prefixed, pool: &BufferPool) -> io::Result<bool> {
        let mut queue = self.queue.borrow_mut();
        let before = queue.written;
        while queue.left > 0 {
            match queue.poll_write(cx, stream, pool) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
        }
        Ok(queue.written > before)
    }

    /// Bytes of the stream that were written.
    pub(super) fn written(&self) -> u64 {
        self.queue.borrow().written
    }

    /// The frame's bytes, if not one of them was written.
    pub(super) fn unwritten(&self, place: Place) -> Option<Vec<u8>> {
        self.queue.borrow().find(place)
    }
}

impl Place {
    /// Whether all of it is among the first `written` bytes of the stream.
    pub(super) fn is_within(self, written: u64) -> bool {
        self.start + self.len as u64 <= written
    }
}

impl Queue {
    fn push(&mut self, frame: Frame, pool: &BufferPool) -> Place {
        let len = frame.as_bytes().len();
        let place = Place { start: self.written + self.left as u64, len };
        self.left += len;
        if len > COPIED_BYTES {
            self.seal();
            self.sealed.push_back(frame.into_bytes());
        } else {
            if self.tail.capacity() == 0 {
                self.tail = pool.take_vec();
            }
            self.tail.extend_from_slice(frame.as_bytes());
        }
        place
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut Prefixed, pool: &BufferPool) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let written = match self.sealed.is_empty() {
            true => ready!(stream.poll_write(cx, &self.tail[self.of_first..]))?,
            false => {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = self.slices(&mut slices);
                ready!(stream.poll_write_vectored(cx, &slices[..count]))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.consume(written, pool);
        Poll::Ready(Ok(()))
    }

    fn slices<'q>(&'q self, slices: &mut [IoSlice<'q>; MAX_SLICES]) -> usize {
        let pieces = self.sealed.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let mut skip = self.of_first;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(&piece[std::mem::take(&mut skip)..]);
            count += 1;
        }
        count
    }

    fn consume(&mut self, mut bytes: usize, pool: &BufferPool) {
        self.written += bytes as u64;
        self.left -= bytes;
        while let Some(first) = self.sealed.front() {
            let rest = first.len() - self.of_first;
            if bytes < rest {
                self.of_first += bytes;
                return;
            }
            bytes -= rest;
            self.of_first = 0;
            self.sealed.pop_front();
        }
        self.of_first += bytes;
        if self.of_first == self.tail.len() {
            self.of_first = 0;
            pool.put_vec(std::mem::take(&mut self.tail));
        }
    }

    fn find(&self, place: Place) -> Option<Vec<u8>> {
        let mut at = place.start.checked_sub(self.written)? as usize + self.of_first;
        for piece in self.sealed.iter().map(|piece| &piece[..]).chain([&self.tail[..]]) {
            if at < piece.len() {
                return piece.get(at..at + place.len).map(<[u8]>::to_vec);
            }
            at -= piece.len();
        }
        None
    }
}
