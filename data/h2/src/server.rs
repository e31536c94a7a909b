//! The end that answers requests.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::conn::Conn;
use crate::drive::Driver;
use crate::error::{Error, Reason};
use crate::handle::{RecvStream, SendStream, handles};
use crate::limits::Config;
use crate::message::Head;
use crate::settings::Role;

/// A request: its head, and the two directions of its stream.
#[derive(Debug)]
pub struct Request {
    /// Method, path, fields.
    pub head: Head,
    /// Its body.
    pub body: RecvStream,
    /// For the response.
    pub respond: SendStream,
}

/// A connection that a client has made. It moves only while it is polled.
#[derive(Debug)]
pub struct ServerConnection<T> {
    driver: Driver<T>,
    over: bool,
}

/// Serves what a client sends, the preface first.
pub fn accept<T: AsyncRead + AsyncWrite + Unpin>(io: T, config: Config) -> ServerConnection<T> {
    let shared = Rc::new(RefCell::new(Conn::new(Role::Server, config)));
    ServerConnection { driver: Driver::new(io, shared), over: false }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// The next request; `None` once the connection has ended in order. Reads and writes for all streams.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Request, Error>>> {
        loop {
            if let Some(request) = self.next() {
                return Poll::Ready(Some(Ok(request)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            let polled = self.driver.poll(cx);
            if polled.is_ready() {
                self.over = true;
                return Poll::Ready(self.driver.shared.borrow().end_error().map(Err));
            }
            if self.driver.shared.borrow().accepted.is_empty() {
                return Poll::Pending;
            }
        }
    }

    fn next(&mut self) -> Option<Request> {
        let shared = &self.driver.shared;
        loop {
            let mut conn = shared.borrow_mut();
            let place = conn.accepted.pop_front()? as usize;
            let head = conn.streams.get(place).and_then(|stream| stream.head.take().filter(|_| stream.error.is_none()));
            drop(conn);
            let (respond, body) = handles(shared, place);
            // What was reset before anybody looked at it is not worth a look.
            if let Some(head) = head {
                return Some(Request { head: *head, body, respond });
            }
        }
    }

    /// True once the client has shown that it speaks HTTP/2.
    pub fn has_begun(&self) -> bool {
        self.driver.shared.borrow().settled
    }

    /// Asks the client to take its next requests elsewhere (RFC 9113 section 6.8). The connection ends when those under
    /// way are answered.
    pub fn graceful_shutdown(&mut self) {
        self.driver.shared.borrow_mut().announce();
    }

    /// Ends the connection, and all streams with it.
    pub fn abort(&mut self, reason: Reason) {
        self.driver.shared.borrow_mut().fail(reason);
    }
}
