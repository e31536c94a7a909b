//! What goes to the peer. Heads go at once; data as far as the windows and the room before the socket allow.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use crate::conn::{Conn, LAST_STREAM, USER_PING, UserPing};
use crate::error::{Error, Reason};
use crate::fields::Fields;
use crate::frame::{self, FrameHead, HEAD_BYTES};
use crate::hpack::{encode, encode_status};
use crate::limits::OUT_BYTES;
use crate::message::RequestLine;
use crate::stream::{Half, Unsent};

/// What the first header block begins with: our encoder uses no dynamic table (RFC 7541 section 6.3).
const NO_TABLE: u8 = 0x20;

impl Conn {
    /// Where frames are appended.
    #[inline]
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = crate::pool::take();
        }
        &mut self.out
    }

    /// What is to be written.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So much of it was.
    pub(crate) fn advance(&mut self, written: usize) {
        self.written += written;
        if self.written == self.out.len() {
            crate::pool::put(std::mem::take(&mut self.out));
            self.written = 0;
        } else if self.written >= OUT_BYTES {
            self.out.drain(..self.written);
            self.written = 0;
        }
        if self.pending().len() <= OUT_BYTES / 2 {
            self.wake_line();
        }
    }

    /// Lets those who wait for room try again, in their order.
    pub(crate) fn wake_line(&mut self) {
        while let Some(place) = self.line.pop_front() {
            if let Some(stream) = self.streams.get(place as usize)
                && std::mem::take(&mut stream.in_line)
            {
                stream.wake_sender();
            }
        }
    }

    /// Sends a header block that `build` appends; in several frames if the peer takes only smaller ones.
    pub(crate) fn put_headers(&mut self, id: u32, end: bool, build: impl FnOnce(&mut Vec<u8>)) {
        let max = self.peer.max_frame_bytes;
        let told = std::mem::replace(&mut self.told_no_table, true);
        let out = self.out();
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        if !told {
            out.push(NO_TABLE);
        }
        build(out);
        let len = out.len() - start - HEAD_BYTES;
        let end_stream = if end { frame::END_STREAM } else { 0 };
        if len <= max {
            let head = FrameHead { len, kind: frame::HEADERS, flags: end_stream | frame::END_HEADERS, stream: id };
            out[start..start + HEAD_BYTES].copy_from_slice(&head.bytes());
        } else {
            let block = out.split_off(start + HEAD_BYTES);
            out.truncate(start);
            put_in_parts(out, id, end_stream, &block, max);
        }
        self.nuisances.give(4);
    }

    /// Sends a response's head.
    pub(crate) fn respond(&mut self, place: usize, status: u16, fields: &Fields, end: bool) -> Result<(), Error> {
        let stream = self.sending(place)?;
        let id = stream.id;
        stream.send = if end { Half::Done } else { Half::Body };
        self.put_headers(id, end, |out| {
            encode_status(out, status);
            encode_all(out, fields);
        });
        self.sent(place, end);
        Ok(())
    }

    /// Ends a message with trailers.
    pub(crate) fn trailers(&mut self, place: usize, fields: &Fields) -> Result<(), Error> {
        let stream = self.sending(place)?;
        let id = stream.id;
        stream.send = Half::Done;
        if let Some(unsent) = &mut stream.unsent {
            encode_all(unsent.trailers.insert(Vec::new()), fields);
            return Ok(());
        }
        self.put_headers(id, true, |out| encode_all(out, fields));
        self.sent(place, true);
        Ok(())
    }

    /// Begins a request. Its block waits if the peer has as many streams as it takes.
    pub(crate) fn begin(&mut self, line: &RequestLine<'_>, fields: &Fields, end: bool) -> Result<usize, Error> {
        self.check_open()?;
        let mut stream = self.new_stream(0);
        stream.send = if end { Half::Done } else { Half::Body };
        stream.to_head = line.method == "HEAD";
        if self.unopened.is_empty() && self.streams.open() < self.peer.max_streams {
            let id = self.next;
            stream.id = id;
            self.next += 2;
            let place = self.streams.insert(stream);
            self.put_headers(id, end, |out| encode_request(out, line, fields));
            self.wake();
            return Ok(place);
        }
        let mut unsent = Unsent { end, ..Unsent::default() };
        encode_request(&mut unsent.head, line, fields);
        stream.unsent = Some(Box::new(unsent));
        let place = self.streams.insert(stream);
        self.unopened.push_back(place as u32);
        Ok(place)
    }

    /// Opens streams that wait, as far as the peer takes them.
    pub(crate) fn open_next(&mut self) {
        while self.streams.open() < self.peer.max_streams && self.check_open().is_ok() {
            let Some(place) = self.unopened.pop_front().map(|place| place as usize) else { return };
            let id = self.next;
            let Some(stream) = self.streams.get(place) else { continue };
            let Some(unsent) = stream.unsent.take() else { continue };
            stream.id = id;
            stream.wake_sender();
            self.next += 2;
            self.streams.set_open(id, place);
            let Unsent { head, end, trailers } = *unsent;
            self.put_headers(id, end, |out| out.extend_from_slice(&head));
            if let Some(trailers) = trailers {
                self.put_headers(id, true, |out| out.extend_from_slice(&trailers));
            }
            self.wake();
        }
    }

    /// Whether a request may be sent.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.error {
            Some(error) => Err(error),
            None if self.peer_goes.is_some() || self.next > LAST_STREAM => Err(Error::NotProcessed),
            None => Ok(()),
        }
    }

    fn sending(&mut self, place: usize) -> Result<&mut crate::stream::Stream, Error> {
        let connection = self.error;
        let stream = self.streams.get(place).ok_or(connection.unwrap_or(Error::NotProcessed))?;
        match stream.error {
            Some(error) => Err(error),
            None if stream.send == Half::Done => Err(Error::Reset { reason: Reason::STREAM_CLOSED, by: crate::By::Us }),
            None => Ok(stream),
        }
    }

    fn sent(&mut self, place: usize, end: bool) {
        if end {
            self.close(place);
        }
        self.wake();
    }

    /// Sends data, and with `end` the end of the message behind it. Ready once all is framed.
    pub(crate) fn poll_data(
        &mut self,
        cx: &Context<'_>,
        place: usize,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), Error>> {
        loop {
            let (window, waiting) = (self.send_window.room(), self.pending().len());
            let max = self.peer.max_frame_bytes;
            let stream = match self.sending(place) {
                Ok(stream) => stream,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if data.is_empty() && !end {
                return Poll::Ready(Ok(()));
            }
            let own = stream.send_window.room();
            let shared = window.min(OUT_BYTES.saturating_sub(waiting));
            if stream.id == 0 || (!data.is_empty() && (own == 0 || shared == 0)) {
                stream.wait_to_send(cx);
                let lines_up = stream.id != 0 && own > 0 && !std::mem::replace(&mut stream.in_line, true);
                if lines_up {
                    self.line.push_back(place as u32);
                }
                return Poll::Pending;
            }
            let len = data.len().min(own).min(shared).min(max);
            let last = end && len == data.len();
            stream.send_window.take(len);
            if last {
                stream.send = Half::Done;
            }
            let id = stream.id;
            self.put_data(id, &data[..len], last);
            data.advance(len);
            self.sent(place, last);
            if last {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn put_data(&mut self, id: u32, data: &[u8], end: bool) {
        self.send_window.take(data.len());
        // The peer may well tell twice for each frame that it has taken it, and more often if it reads in pieces.
        self.nuisances.give(16);
        let flags = if end { frame::END_STREAM } else { 0 };
        frame::put(self.out(), (frame::DATA, flags, id), data);
    }

    /// Asks the peer whether it lives, unless that is being asked.
    pub(crate) fn send_ping(&mut self) {
        if self.ping != UserPing::Sent && self.error.is_none() {
            self.ping = UserPing::Sent;
            frame::put(self.out(), (frame::PING, 0, 0), &USER_PING);
            self.wake();
        }
    }
}

fn put_in_parts(out: &mut Vec<u8>, id: u32, end_stream: u8, block: &[u8], max: usize) {
    let parts = block.chunks(max);
    let last = parts.len() - 1;
    for (index, part) in parts.enumerate() {
        let end_headers = if index == last { frame::END_HEADERS } else { 0 };
        let (kind, flags) = match index {
            0 => (frame::HEADERS, end_stream),
            _ => (frame::CONTINUATION, end_headers),
        };
        frame::put(out, (kind, flags, id), part);
    }
}

fn encode_request(out: &mut Vec<u8>, line: &RequestLine<'_>, fields: &Fields) {
    encode(out, b":method", line.method.as_bytes(), false);
    encode(out, b":scheme", line.scheme.as_bytes(), false);
    encode(out, b":authority", line.authority.as_bytes(), false);
    encode(out, b":path", line.path.as_bytes(), false);
    if let Some(length) = line.content_length {
        encode(out, b"content-length", length.to_string().as_bytes(), false);
    }
    encode_all(out, fields);
}

fn encode_all(out: &mut Vec<u8>, fields: &Fields) {
    for (name, value, never_indexed) in fields.iter_marked() {
        encode(out, name, value, never_indexed);
    }
}
