//! One stream (RFC 9113 section 5.1).

use std::task::{Context, Waker};

use crate::error::Error;
use crate::fields::Fields;
use crate::flow::{RecvWindow, SendWindow};
use crate::message::Head;

/// How far one direction is.
///
/// ```text
/// ## Head => (Body | Done)   a response's 1xx heads leave it where it is
/// ## Body => Done            with the last data, with trailers, or with a reset
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Head,
    Body,
    Done,
}

/// What is sent once the stream is open.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    /// The request's header block.
    pub(crate) head: Vec<u8>,
    /// Nothing follows it.
    pub(crate) end: bool,
    /// Trailers, if they follow without data between.
    pub(crate) trailers: Option<Vec<u8>>,
}

/// A stream, from its first frame or its request until it has ended and nobody holds it.
#[derive(Debug)]
pub(crate) struct Stream {
    /// 0: it is not open yet, since the peer has as many as it takes.
    pub(crate) id: u32,
    pub(crate) recv: Half,
    pub(crate) send: Half,
    /// It ended early.
    pub(crate) error: Option<Error>,
    pub(crate) recv_window: RecvWindow,
    pub(crate) send_window: SendWindow,
    /// What is still to come of a body whose length was told.
    pub(crate) content_left: Option<u64>,
    pub(crate) head: Option<Box<Head>>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Option<Box<Fields>>,
    /// Until the stream is open.
    pub(crate) unsent: Option<Box<Unsent>>,
    recv_waker: Option<Waker>,
    send_waker: Option<Waker>,
    /// It is held by somebody who receives; who sends.
    pub(crate) receives: bool,
    pub(crate) sends: bool,
    /// It waits in line to send.
    pub(crate) in_line: bool,
    /// The request was HEAD, so the response has no body, whatever length it tells.
    pub(crate) to_head: bool,
}

impl Stream {
    pub(crate) fn new(id: u32, recv_window: u32, send_window: u32) -> Self {
        Stream {
            id,
            recv: Half::Head,
            send: Half::Head,
            error: None,
            recv_window: RecvWindow::new(recv_window),
            send_window: SendWindow::new(send_window),
            content_left: None,
            head: None,
            data: Vec::new(),
            trailers: None,
            unsent: None,
            recv_waker: None,
            send_waker: None,
            receives: true,
            sends: true,
            in_line: false,
            to_head: false,
        }
    }

    /// No frame of it is to come or to go.
    pub(crate) fn is_closed(&self) -> bool {
        self.error.is_some() || (self.recv == Half::Done && self.send == Half::Done)
    }

    /// Nobody holds it.
    pub(crate) fn is_let_go(&self) -> bool {
        !self.receives && !self.sends
    }

    pub(crate) fn wait_to_receive(&mut self, cx: &Context<'_>) {
        wait(&mut self.recv_waker, cx);
    }

    pub(crate) fn wait_to_send(&mut self, cx: &Context<'_>) {
        wait(&mut self.send_waker, cx);
    }

    pub(crate) fn wake_receiver(&mut self) {
        if let Some(waker) = self.recv_waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_sender(&mut self) {
        if let Some(waker) = self.send_waker.take() {
            waker.wake();
        }
    }

    /// It ends early; who waits is told. What was received whole stays readable.
    pub(crate) fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
        self.send = Half::Done;
        self.unsent = None;
        self.wake_receiver();
        self.wake_sender();
    }
}

fn wait(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
