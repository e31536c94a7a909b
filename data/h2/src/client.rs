//! The end that sends requests.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::conn::{Conn, UserPing};
use crate::drive::Driver;
use crate::error::Error;
use crate::fields::Fields;
use crate::handle::{RecvStream, SendStream, Shared, handles};
use crate::limits::Config;
use crate::message::RequestLine;
use crate::settings::Role;

/// Sends requests. When the last is dropped, the connection ends once those under way are answered.
pub struct SendRequest {
    shared: Shared,
}

/// Moves the bytes of a connection to a server: a future that is over when the connection is.
#[derive(Debug)]
pub struct ClientConnection<T> {
    driver: Driver<T>,
}

/// Begins a connection to a server. Requests may be sent at once.
pub fn connect<T: AsyncRead + AsyncWrite + Unpin>(io: T, config: Config) -> (SendRequest, ClientConnection<T>) {
    let mut conn = Conn::new(Role::Client, config);
    conn.senders = 1;
    let shared = Rc::new(RefCell::new(conn));
    (SendRequest { shared: shared.clone() }, ClientConnection { driver: Driver::new(io, shared) })
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for ClientConnection<T> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.driver.poll(cx);
        polled.map(|()| self.driver.shared.borrow().end_error().map_or(Ok(()), Err))
    }
}

impl std::fmt::Debug for SendRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendRequest")
    }
}

impl Clone for SendRequest {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().senders += 1;
        SendRequest { shared: self.shared.clone() }
    }
}

impl Drop for SendRequest {
    fn drop(&mut self) {
        let mut conn = self.shared.borrow_mut();
        conn.senders -= 1;
        if conn.senders == 0 {
            conn.wake();
        }
    }
}

impl SendRequest {
    /// Requests that the server takes at a time, as far as it has said.
    pub fn max_streams(&self) -> usize {
        self.shared.borrow().peer.max_streams
    }

    /// Whether the connection takes requests.
    ///
    /// # Errors
    /// It has ended, or the server goes away.
    pub fn check_ready(&self) -> Result<(), Error> {
        self.shared.borrow().check_open()
    }

    /// Sends a request's head; with `end` it has no body. Beyond what the server takes at a time, requests wait in line.
    ///
    /// # Errors
    /// As [`SendRequest::check_ready`]; nothing was sent then.
    pub fn send(&self, line: &RequestLine<'_>, fields: &Fields, end: bool) -> Result<(SendStream, RecvStream), Error> {
        let place = self.shared.borrow_mut().begin(line, fields, end)?;
        Ok(handles(&self.shared, place))
    }

    /// Resolves when the server has answered a ping. One asks at a time.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn ping(&self) -> Result<(), Error> {
        self.shared.borrow_mut().send_ping();
        poll_fn(|cx| {
            let mut conn = self.shared.borrow_mut();
            if let Some(error) = conn.error {
                return Poll::Ready(Err(error));
            }
            if conn.ping == UserPing::Answered {
                return Poll::Ready(Ok(()));
            }
            conn.ping_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}
