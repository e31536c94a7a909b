//! What tasks hold of a stream: one handle for each direction.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::conn::Conn;
use crate::error::{Error, Reason};
use crate::fields::Fields;
use crate::message::Head;
use crate::stream::Half;

/// A connection, as its driver and the holders of its streams share it.
pub(crate) type Shared = Rc<RefCell<Conn>>;

/// The receiving direction of a stream. Dropped, it lets the peer send on and throws away what comes; dropped together
/// with the sending direction, it resets the stream unless that has ended.
pub struct RecvStream {
    shared: Shared,
    place: usize,
}

/// The sending direction of a stream.
pub struct SendStream {
    shared: Shared,
    place: usize,
}

/// Both directions of a stream that was made so that it is held by both.
pub(crate) fn handles(shared: &Shared, place: usize) -> (SendStream, RecvStream) {
    (SendStream { shared: shared.clone(), place }, RecvStream { shared: shared.clone(), place })
}

impl std::fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecvStream({})", self.place)
    }
}

impl std::fmt::Debug for SendStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SendStream({})", self.place)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.shared.borrow_mut().let_go_receiving(self.place);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.shared.borrow_mut().let_go_sending(self.place);
    }
}

impl RecvStream {
    /// The head of a response, once it is there.
    ///
    /// # Errors
    /// The stream or the connection has ended without it.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Error>> {
        self.poll(cx, |stream| stream.head.take().map(|head| *head)).map(|head| match head {
            Ok(Some(head)) => Ok(head),
            Ok(None) => Err(Error::Reset { reason: Reason::INTERNAL_ERROR, by: crate::By::Us }),
            Err(error) => Err(error),
        })
    }

    /// As [`RecvStream::poll_head`].
    ///
    /// # Errors
    /// The same.
    pub async fn head(&mut self) -> Result<Head, Error> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// All data that has come and was not taken; `None` at the end, or where trailers follow. The peer may send as much
    /// again.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let taken = self.poll(cx, |stream| {
            let data = std::mem::take(&mut stream.data);
            (!data.is_empty()).then(|| Bytes::from(data))
        });
        taken.map(|taken| {
            let taken = taken.transpose()?;
            if let Ok(data) = &taken {
                self.shared.borrow_mut().release(self.place, data.len());
            }
            Some(taken)
        })
    }

    /// As [`RecvStream::poll_data`].
    pub async fn data(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// The trailers, if there are any, once the message has ended.
    ///
    /// # Errors
    /// It has ended early.
    pub async fn trailers(&mut self) -> Result<Option<Fields>, Error> {
        poll_fn(|cx| self.poll(cx, |stream| stream.trailers.take().map(|trailers| *trailers))).await
    }

    /// True if nothing more comes: all was taken.
    pub fn is_end_stream(&self) -> bool {
        let mut conn = self.shared.borrow_mut();
        conn.streams.get(self.place).is_none_or(|stream| {
            stream.recv == Half::Done && stream.data.is_empty() && stream.trailers.is_none() && stream.head.is_none()
        })
    }

    /// What `take` finds; `None` if nothing more comes. What came before an error is had before it.
    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut crate::stream::Stream) -> Option<R>,
    ) -> Poll<Result<Option<R>, Error>> {
        let mut conn = self.shared.borrow_mut();
        let Some(stream) = conn.streams.get(self.place) else { return Poll::Ready(Err(Error::NotProcessed)) };
        if let Some(taken) = take(stream) {
            return Poll::Ready(Ok(Some(taken)));
        }
        match (stream.recv, stream.error) {
            (Half::Done, _) => Poll::Ready(Ok(None)),
            (_, Some(error)) => Poll::Ready(Err(error)),
            _ => {
                stream.wait_to_receive(cx);
                Poll::Pending
            }
        }
    }
}

impl SendStream {
    /// Sends a response's head; with `end` nothing follows.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn send_head(&mut self, status: u16, fields: &Fields, end: bool) -> Result<(), Error> {
        self.shared.borrow_mut().respond(self.place, status, fields, end)
    }

    /// Sends data; with `end` nothing follows. What was sent is taken from `data`. Ready once all is on its way to the
    /// socket; until then the task waits for the peer's windows, or for the socket.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, data: &mut Bytes, end: bool) -> Poll<Result<(), Error>> {
        self.shared.borrow_mut().poll_data(cx, self.place, data, end)
    }

    /// As [`SendStream::poll_data`].
    ///
    /// # Errors
    /// The same.
    pub async fn data(&mut self, mut data: Bytes, end: bool) -> Result<(), Error> {
        poll_fn(|cx| self.poll_data(cx, &mut data, end)).await
    }

    /// Ends the message with trailers.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn trailers(&mut self, fields: &Fields) -> Result<(), Error> {
        self.shared.borrow_mut().trailers(self.place, fields)
    }

    /// Ends the stream early.
    pub fn reset(&mut self, reason: Reason) {
        self.shared.borrow_mut().reset(self.place, reason);
    }

    /// Ready if the stream has ended early. The task is woken then, unless it waits with [`SendStream::poll_data`].
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut conn = self.shared.borrow_mut();
        let Some(stream) = conn.streams.get(self.place) else { return Poll::Ready(Error::NotProcessed) };
        match stream.error {
            Some(error) => Poll::Ready(error),
            None => {
                stream.wait_to_send(cx);
                Poll::Pending
            }
        }
    }
}
