//! What comes from the peer: frame by frame, each held to the rules of its kind and of its stream's state.

use std::time::Instant;

use crate::conn::{Block, Conn, GRACE_PING, LAST_STREAM, Leave, USER_PING, UserPing};
use crate::error::{By, Error, PROTOCOL, Reason, Violation};
use crate::frame::{self, DEFAULT_MAX_FRAME_BYTES, FrameHead, HEAD_BYTES, PREFACE, number};
use crate::headers::{Draft, Malformed};
use crate::hpack::encode_status;
use crate::limits::max_block_bytes;
use crate::settings::Role;
use crate::stream::Half;

/// What is known of the stream a frame names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Open(usize),
    /// It is over, perhaps by our reset, of which the peer did not know.
    Reset,
    /// It is over, and the peer knows.
    Closed,
    /// There was none yet.
    Idle,
}

impl Conn {
    /// Takes what the peer sent.
    pub(crate) fn receive(&mut self, mut input: &[u8], now: Instant) {
        while !input.is_empty() && self.error.is_none() {
            let taken = if self.preface_left > 0 { self.preface(&mut input) } else { self.frames(&mut input, now) };
            if let Err(violation) = taken {
                self.punish(violation, now);
            }
        }
    }

    fn preface(&mut self, input: &mut &[u8]) -> Result<(), Violation> {
        let expected = &PREFACE[PREFACE.len() - self.preface_left..];
        let len = expected.len().min(input.len());
        if input[..len] != expected[..len] {
            return Err(PROTOCOL);
        }
        self.preface_left -= len;
        *input = &input[len..];
        Ok(())
    }

    /// Takes frames up to the first violation.
    fn frames(&mut self, input: &mut &[u8], now: Instant) -> Result<(), Violation> {
        if !self.partial.is_empty() && !self.complete(input)? {
            return Ok(());
        }
        if !self.partial.is_empty() {
            let whole = std::mem::take(&mut self.partial);
            let taken = self.frame(&mut &whole[..], now);
            crate::pool::put(whole);
            taken?;
        }
        while self.error.is_none() {
            if !self.frame(input, now)? {
                if !input.is_empty() {
                    self.partial = crate::pool::take();
                    self.partial.extend_from_slice(input);
                    *input = &[];
                }
                break;
            }
        }
        Ok(())
    }

    /// Moves bytes to the frame that has begun, until it is whole. False if more must come.
    fn complete(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        for _ in 0..2 {
            let needed = match self.partial.first_chunk::<HEAD_BYTES>() {
                Some(head) => HEAD_BYTES + checked(FrameHead::parse(head))?.len,
                None => HEAD_BYTES,
            };
            let more = needed.saturating_sub(self.partial.len()).min(input.len());
            self.partial.extend_from_slice(&input[..more]);
            *input = &input[more..];
            if self.partial.len() < needed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a frame; false if it has not come whole.
    #[inline]
    fn frame(&mut self, input: &mut &[u8], now: Instant) -> Result<bool, Violation> {
        let Some(head) = input.first_chunk::<HEAD_BYTES>() else { return Ok(false) };
        let head = checked(FrameHead::parse(head))?;
        let Some(payload) = input.get(HEAD_BYTES..HEAD_BYTES + head.len) else { return Ok(false) };
        *input = &input[HEAD_BYTES + head.len..];
        self.dispatch(head, payload, now)?;
        Ok(true)
    }

    fn dispatch(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        let continues = head.kind == frame::CONTINUATION;
        // Nothing may come between the parts of a header block (RFC 9113 section 6.10).
        if self.block.is_some() != continues || (!self.settled && head.kind != frame::SETTINGS) {
            return Err(PROTOCOL);
        }
        match head.kind {
            frame::DATA => self.data(head, payload, now),
            frame::HEADERS => self.headers(head, payload, now),
            frame::PRIORITY => self.priority(head, now),
            frame::RST_STREAM => self.rst_stream(head, payload, now),
            frame::SETTINGS => self.settings(head, payload, now),
            frame::PING => self.ping(head, payload, now),
            frame::GOAWAY => self.goaway(head, payload, now),
            frame::WINDOW_UPDATE => self.window_update(head, payload, now),
            frame::CONTINUATION => self.continuation(head, payload, now),
            // We have said that there is no push, and clients never do.
            frame::PUSH_PROMISE => Err(PROTOCOL),
            _ => self.nuisance(now),
        }
    }

    /// Something that achieves nothing; too much of it ends the connection.
    fn nuisance(&mut self, now: Instant) -> Result<(), Violation> {
        match self.nuisances.take(now) {
            true => Ok(()),
            false => Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM)),
        }
    }

    fn named(&self, id: u32) -> Named {
        if let Some(place) = self.streams.find(id) {
            return Named::Open(place);
        }
        let odd = id % 2 == 1;
        let begun = match self.role {
            Role::Server => odd && id <= self.last_peer,
            Role::Client => odd && id < self.next,
        };
        match begun {
            false => Named::Idle,
            true if self.streams.was_reset(id) => Named::Reset,
            true => Named::Closed,
        }
    }

    fn data(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.stream == 0 {
            return Err(PROTOCOL);
        }
        let data = head.unpadded(payload)?;
        if !self.recv_window.take(payload.len()) {
            return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
        }
        let end = head.has(frame::END_STREAM);
        match self.named(head.stream) {
            Named::Idle => Err(PROTOCOL),
            Named::Closed => Err(Violation::Connection(Reason::STREAM_CLOSED)),
            Named::Reset => {
                self.release_connection(payload.len());
                // What was under way when we reset the stream is not the peer's fault, in however many frames.
                if data.is_empty() { self.nuisance(now) } else { Ok(()) }
            }
            Named::Open(place) => {
                if data.is_empty() && !end {
                    self.nuisance(now)?;
                } else {
                    self.nuisances.give(1);
                }
                let taken = self.data_of(place, payload.len(), data, end);
                // Padding, and what is not taken, fills no window.
                let kept = if taken == Ok(true) { data.len() } else { 0 };
                self.release_connection(payload.len() - kept);
                taken.map(drop)
            }
        }
    }

    /// True if the data was kept.
    fn data_of(&mut self, place: usize, counted: usize, data: &[u8], end: bool) -> Result<bool, Violation> {
        let Some(stream) = self.streams.get(place) else { return Ok(false) };
        let id = stream.id;
        let violation = |reason| Err(Violation::Stream(id, reason));
        match stream.recv {
            Half::Head => return violation(Reason::PROTOCOL_ERROR),
            Half::Done => return violation(Reason::STREAM_CLOSED),
            Half::Body => {}
        }
        if !stream.recv_window.take(counted) {
            return violation(Reason::FLOW_CONTROL_ERROR);
        }
        if let Some(left) = &mut stream.content_left {
            match left.checked_sub(data.len() as u64) {
                Some(rest) if rest == 0 || !end => *left = rest,
                _ => return violation(Reason::PROTOCOL_ERROR),
            }
        }
        let padding = counted - data.len();
        let kept = stream.receives;
        if kept {
            stream.data.extend_from_slice(data);
        }
        if end {
            stream.recv = Half::Done;
        }
        stream.wake_receiver();
        let increment = stream.recv_window.release(if kept { padding } else { counted });
        if let Some(increment) = increment.filter(|_| !end) {
            frame::put_window_update(self.out(), id, increment);
        }
        if end {
            self.close(place);
        }
        Ok(kept)
    }

    /// So much was taken of what came: the peer may send as much again.
    pub(crate) fn release(&mut self, place: usize, bytes: usize) {
        if let Some(stream) = self.streams.get(place)
            && stream.recv != Half::Done
            && stream.error.is_none()
        {
            let id = stream.id;
            if let Some(increment) = stream.recv_window.release(bytes) {
                frame::put_window_update(self.out(), id, increment);
                self.wake();
            }
        }
        self.release_connection(bytes);
    }

    pub(crate) fn release_connection(&mut self, bytes: usize) {
        if self.error.is_none()
            && let Some(increment) = self.recv_window.release(bytes)
        {
            frame::put_window_update(self.out(), 0, increment);
            self.wake();
        }
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.stream == 0 {
            return Err(PROTOCOL);
        }
        let mut block = head.unpadded(payload)?;
        if head.has(frame::PRIORITISED) {
            block = block.get(5..).ok_or(Violation::Connection(Reason::FRAME_SIZE_ERROR))?;
        }
        let end_stream = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.block(head.stream, end_stream, block, now);
        }
        self.block = Some(Box::new(Block { stream: head.stream, end_stream, bytes: block.to_vec() }));
        Ok(())
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if payload.is_empty() {
            self.nuisance(now)?;
        }
        let most = max_block_bytes(&self.config);
        let Some(mut block) = self.block.take() else { return Err(PROTOCOL) };
        if block.stream != head.stream {
            return Err(PROTOCOL);
        }
        if block.bytes.len() + payload.len() > most {
            return Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.block(block.stream, block.end_stream, &block.bytes, now);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A header block that has come whole. It is read whatever becomes of it, since later ones refer to it.
    fn block(&mut self, id: u32, end: bool, block: &[u8], now: Instant) -> Result<(), Violation> {
        let mut draft = Draft::new(self.config.max_header_list_bytes);
        let decoded = self.decoder.decode(block, |name, value, never| draft.put(name, value, never));
        decoded.map_err(|_| Violation::Connection(Reason::COMPRESSION_ERROR))?;
        match (self.named(id), self.role) {
            (Named::Open(place), _) => self.head_of(place, end, draft, now),
            (Named::Reset, _) => self.nuisance(now),
            (Named::Closed, _) => Err(Violation::Connection(Reason::STREAM_CLOSED)),
            (Named::Idle, Role::Server) if id % 2 == 1 => self.request(id, end, draft, now),
            (Named::Idle, _) => Err(PROTOCOL),
        }
    }

    fn request(&mut self, id: u32, end: bool, draft: Draft, now: Instant) -> Result<(), Violation> {
        self.last_peer = id;
        if self.leave == Leave::Going {
            // The peer has been told that it is not looked at.
            self.streams.remember_reset(id);
            return self.nuisance(now);
        }
        if self.streams.len() >= self.config.max_streams {
            return Err(Violation::Stream(id, Reason::REFUSED_STREAM));
        }
        if draft.oversized {
            return self.too_large(id, end, now);
        }
        let length = draft.content_length();
        let head = draft.into_request().map_err(|Malformed| Violation::Stream(id, Reason::PROTOCOL_ERROR))?;
        if end && length.is_some_and(|length| length > 0) {
            return Err(Violation::Stream(id, Reason::PROTOCOL_ERROR));
        }
        let mut stream = self.new_stream(id);
        stream.recv = if end { Half::Done } else { Half::Body };
        stream.content_left = length;
        stream.head = Some(Box::new(head));
        let place = self.streams.insert(stream);
        self.accepted.push_back(place as u32);
        self.nuisances.give(4);
        Ok(())
    }

    /// A request whose fields are too many is answered here (RFC 6585 section 5).
    fn too_large(&mut self, id: u32, end: bool, now: Instant) -> Result<(), Violation> {
        self.put_headers(id, true, |out| encode_status(out, 431));
        if end { self.nuisance(now) } else { Err(Violation::Stream(id, Reason::NO_ERROR)) }
    }

    /// A header block on an open stream: a response's head, or trailers.
    fn head_of(&mut self, place: usize, end: bool, draft: Draft, now: Instant) -> Result<(), Violation> {
        let Some(stream) = self.streams.get(place) else { return Ok(()) };
        let id = stream.id;
        let malformed = |Malformed| Violation::Stream(id, Reason::PROTOCOL_ERROR);
        match stream.recv {
            Half::Done => return Err(Violation::Stream(id, Reason::STREAM_CLOSED)),
            Half::Head => {
                let length = draft.content_length();
                let oversized = draft.oversized;
                let head = draft.into_response().map_err(malformed)?;
                if oversized {
                    return Err(malformed(Malformed));
                }
                if head.status() < 200 {
                    return if end { Err(malformed(Malformed)) } else { self.nuisance(now) };
                }
                let bodiless = stream.to_head || matches!(head.status(), 204 | 304);
                // Whatever length it tells, none of it comes.
                stream.content_left = if bodiless { Some(0) } else { length };
                if end && stream.content_left.is_some_and(|left| left > 0) {
                    return Err(malformed(Malformed));
                }
                stream.recv = Half::Body;
                stream.head = Some(Box::new(head)).filter(|_| stream.receives);
            }
            Half::Body => {
                let trailers = draft.into_trailers().map_err(malformed)?;
                if !end || stream.content_left.is_some_and(|left| left > 0) {
                    return Err(malformed(Malformed));
                }
                stream.trailers = Some(Box::new(trailers)).filter(|_| stream.receives);
            }
        }
        if end {
            stream.recv = Half::Done;
        }
        stream.wake_receiver();
        self.nuisances.give(2);
        if end {
            self.close(place);
        }
        Ok(())
    }

    /// Priorities are deprecated (RFC 9113 section 5.3).
    fn priority(&mut self, head: FrameHead, now: Instant) -> Result<(), Violation> {
        match (head.stream, head.len) {
            (0, _) => Err(PROTOCOL),
            (_, 5) => self.nuisance(now),
            (id, _) if self.named(id) == Named::Idle => Err(Violation::Connection(Reason::FRAME_SIZE_ERROR)),
            (id, _) => Err(Violation::Stream(id, Reason::FRAME_SIZE_ERROR)),
        }
    }

    fn rst_stream(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        let reason = Reason(number(payload)?);
        let place = match self.named(head.stream) {
            Named::Idle => return Err(PROTOCOL),
            Named::Reset | Named::Closed => return self.nuisance(now),
            Named::Open(place) => place,
        };
        if let Some(stream) = self.streams.get(place) {
            stream.fail(Error::Reset { reason, by: By::Peer });
        }
        self.close(place);
        // A server that ends a stream harms only itself.
        let too_often = self.role == Role::Server && !self.resets.take(now);
        if too_often { Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM)) } else { Ok(()) }
    }

    fn settings(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if head.has(frame::ACK) {
            let empty = payload.is_empty();
            return if empty { self.nuisance(now) } else { Err(Violation::Connection(Reason::FRAME_SIZE_ERROR)) };
        }
        let before = self.peer;
        if self.settled {
            self.nuisance(now)?;
        } else {
            // Without a word about it there is no limit.
            self.peer.max_streams = u32::MAX as usize;
        }
        self.peer.apply(payload, self.role)?;
        self.settled = true;
        self.change_windows(i64::from(self.peer.stream_window) - i64::from(before.stream_window))?;
        frame::put(self.out(), (frame::SETTINGS, frame::ACK, 0), &[]);
        self.open_next();
        Ok(())
    }

    /// The peer has changed the window of all its streams (RFC 9113 section 6.9.2).
    fn change_windows(&mut self, by: i64) -> Result<(), Violation> {
        if by == 0 {
            return Ok(());
        }
        for (_, stream) in self.streams.iter_mut() {
            if !stream.send_window.change(by) {
                return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
            }
            stream.wake_sender();
        }
        Ok(())
    }

    fn ping(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if payload.len() != 8 {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        }
        if !head.has(frame::ACK) {
            self.nuisance(now)?;
            frame::put(self.out(), (frame::PING, frame::ACK, 0), payload);
        } else if payload == GRACE_PING && self.leave == Leave::Announced {
            self.go();
        } else if payload == USER_PING && self.ping == UserPing::Sent {
            self.ping = UserPing::Answered;
            if let Some(waker) = self.ping_waker.take() {
                waker.wake();
            }
        } else {
            self.nuisance(now)?;
        }
        Ok(())
    }

    /// The peer goes. Streams beyond the last it will look at can be had elsewhere.
    fn goaway(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        self.nuisance(now)?;
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        if rest.len() < 4 {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        }
        let last = u32::from_be_bytes(*last) & LAST_STREAM;
        self.peer_goes = Some(self.peer_goes.map_or(last, |before| before.min(last)));
        if self.role == Role::Client {
            self.abandon(last);
        }
        Ok(())
    }

    fn abandon(&mut self, last: u32) {
        self.unopened.clear();
        let ignored = |id: u32| id == 0 || id > last;
        let places: Vec<usize> =
            self.streams.iter_mut().filter(|(_, stream)| ignored(stream.id)).map(|(place, _)| place).collect();
        for place in places {
            if let Some(stream) = self.streams.get(place).filter(|stream| !stream.is_closed()) {
                stream.fail(Error::NotProcessed);
                self.close(place);
            }
        }
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<(), Violation> {
        let increment = i64::from(number(payload)? & LAST_STREAM);
        self.nuisance(now)?;
        if head.stream == 0 {
            if increment == 0 {
                return Err(PROTOCOL);
            }
            if !self.send_window.change(increment) {
                return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
            }
            self.wake_line();
            return Ok(());
        }
        let place = match self.named(head.stream) {
            Named::Idle => return Err(PROTOCOL),
            Named::Reset | Named::Closed => return Ok(()),
            Named::Open(place) => place,
        };
        let Some(stream) = self.streams.get(place) else { return Ok(()) };
        if increment == 0 {
            return Err(Violation::Stream(head.stream, Reason::PROTOCOL_ERROR));
        }
        if !stream.send_window.change(increment) {
            return Err(Violation::Stream(head.stream, Reason::FLOW_CONTROL_ERROR));
        }
        stream.wake_sender();
        Ok(())
    }
}

/// A frame that is larger than we have said is refused before it is held.
#[inline]
fn checked(head: FrameHead) -> Result<FrameHead, Violation> {
    match head.len > DEFAULT_MAX_FRAME_BYTES {
        true => Err(Violation::Connection(Reason::FRAME_SIZE_ERROR)),
        false => Ok(head),
    }
}
