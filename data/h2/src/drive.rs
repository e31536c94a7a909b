//! Moves bytes between a connection and what carries it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handle::Shared;
use crate::limits::MAX_WAITING;
use crate::pool;

/// Reads in a row before others get their turn.
const READS: usize = 4;

/// The task's part of a connection.
#[derive(Debug)]
pub(crate) struct Driver<T> {
    io: T,
    pub(crate) shared: Shared,
    /// Something was written that may lie in `io`.
    unflushed: bool,
    /// Nothing was read, since too much waited to be written.
    held: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(crate) fn new(io: T, shared: Shared) -> Self {
        Driver { io, shared, unflushed: false, held: false }
    }

    /// Reads what there is and writes what there is. Ready once the connection is over and closed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.listen(cx);
        self.read(cx);
        let written = self.write(cx);
        let mut conn = self.shared.borrow_mut();
        if std::mem::take(&mut self.held) && conn.pending().len() <= MAX_WAITING {
            // There is room again, and no read is registered.
            cx.waker().wake_by_ref();
        }
        conn.shrink();
        if !conn.is_over() {
            return Poll::Pending;
        }
        // What the peer is told about an error it may take at once or not at all.
        let last_word = conn.error.is_some() && !conn.closed && written.is_pending();
        let more = !conn.pending().is_empty();
        drop(conn);
        if last_word {
            return Poll::Ready(());
        }
        if more || written.is_pending() {
            ready!(self.write(cx));
        }
        // There is nobody left to tell.
        let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        Poll::Ready(())
    }

    fn listen(&mut self, cx: &Context<'_>) {
        let mut conn = self.shared.borrow_mut();
        match &mut conn.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => conn.waker = Some(cx.waker().clone()),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) {
        for _ in 0..READS {
            self.held = self.shared.borrow().pending().len() > MAX_WAITING;
            if self.held {
                return;
            }
            if self.shared.borrow().error.is_some() || self.poll_read(cx).is_pending() {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Driver { io, shared, .. } = self;
        pool::with_scratch(|scratch| {
            let mut scratch = ReadBuf::new(scratch);
            let read = ready!(Pin::new(io).poll_read(cx, &mut scratch));
            let mut conn = shared.borrow_mut();
            match read {
                Err(error) => conn.broken(error.kind()),
                Ok(()) if scratch.filled().is_empty() => conn.ended(),
                Ok(()) => conn.receive(scratch.filled(), Instant::now()),
            }
            Poll::Ready(())
        })
    }

    /// Ready once nothing is left to write.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut conn = self.shared.borrow_mut();
            if conn.pending().is_empty() {
                break;
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, conn.pending())) {
                Ok(0) => conn.broken(io::ErrorKind::WriteZero),
                Ok(written) => {
                    conn.advance(written);
                    self.unflushed = true;
                }
                Err(error) => conn.broken(error.kind()),
            }
        }
        if self.unflushed {
            let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
            self.unflushed = false;
            if let Err(error) = flushed {
                self.shared.borrow_mut().broken(error.kind());
            }
        }
        Poll::Ready(())
    }
}

impl<T> Drop for Driver<T> {
    /// Nobody moves bytes any more.
    fn drop(&mut self) {
        self.shared.borrow_mut().broken(io::ErrorKind::ConnectionAborted);
    }
}
