//! A connection without a socket: what it is made of, how it begins and how it ends.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;
use std::time::Instant;

use crate::error::{By, Error, Reason, Violation};
use crate::flow::{DEFAULT_WINDOW, RecvWindow, SendWindow};
use crate::frame::{self, PREFACE};
use crate::hpack::Decoder;
use crate::limits::{Bucket, Config, NUISANCES, RESETS};
use crate::settings::{self, PeerSettings, Role};
use crate::stream::{Half, Stream};
use crate::streams::Streams;

/// What a ping of ours says; the acknowledgement says the same.
pub(crate) const GRACE_PING: [u8; 8] = *b"farewell";
pub(crate) const USER_PING: [u8; 8] = *b"are you?";
/// The number of a stream beyond all (RFC 9113 section 6.8).
pub(crate) const LAST_STREAM: u32 = (1 << 31) - 1;

/// How far we are with going away.
///
/// ```text
/// ## Staying => Announced   the peer is told that we will go; it may have sent requests meanwhile
/// ## Announced => Going     it has answered the ping behind that, so we know the last stream
/// ## Staying => Going       a client needs no announcement
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leave {
    Staying,
    Announced,
    Going,
}

/// A ping on behalf of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserPing {
    None,
    Sent,
    Answered,
}

/// A header block that has not come whole.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) stream: u32,
    pub(crate) end_stream: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) role: Role,
    pub(crate) config: Config,
    /// The beginning of a frame that has not come whole.
    pub(crate) partial: Vec<u8>,
    /// Bytes of the preface still to come.
    pub(crate) preface_left: usize,
    /// The peer's first SETTINGS have come.
    pub(crate) settled: bool,
    pub(crate) decoder: Decoder,
    pub(crate) block: Option<Box<Block>>,
    pub(crate) streams: Streams,
    /// Requests that nobody has looked at.
    pub(crate) accepted: VecDeque<u32>,
    /// Requests that wait until the peer takes another stream.
    pub(crate) unopened: VecDeque<u32>,
    /// Streams that wait for room: in the connection's window, or before the socket.
    pub(crate) line: VecDeque<u32>,
    /// What is to be written; so much of it has been.
    pub(crate) out: Vec<u8>,
    pub(crate) written: usize,
    /// The peer has been told that our encoder uses no dynamic table.
    pub(crate) told_no_table: bool,
    pub(crate) recv_window: RecvWindow,
    pub(crate) send_window: SendWindow,
    pub(crate) peer: PeerSettings,
    /// The last stream that the peer opened.
    pub(crate) last_peer: u32,
    /// The last stream that the peer was told we look at: later ones never count as looked at (RFC 9113 section 6.8).
    told: u32,
    /// The next stream that we open.
    pub(crate) next: u32,
    /// The peer will look at none of our streams beyond this one.
    pub(crate) peer_goes: Option<u32>,
    pub(crate) leave: Leave,
    pub(crate) nuisances: Bucket,
    pub(crate) resets: Bucket,
    /// Why the connection is over.
    pub(crate) error: Option<Error>,
    /// The peer has closed in order.
    pub(crate) closed: bool,
    pub(crate) ping: UserPing,
    pub(crate) ping_waker: Option<Waker>,
    /// The task that reads and writes.
    pub(crate) waker: Option<Waker>,
    /// Those who may send requests.
    pub(crate) senders: usize,
}

impl Conn {
    pub(crate) fn new(role: Role, mut config: Config) -> Self {
        config.stream_window_bytes = config.stream_window_bytes.max(DEFAULT_WINDOW);
        config.connection_window_bytes = config.connection_window_bytes.max(DEFAULT_WINDOW);
        let mut out = crate::pool::take();
        if role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        settings::put_own(&mut out, &config, role);
        Conn {
            role,
            partial: Vec::new(),
            preface_left: if role == Role::Server { PREFACE.len() } else { 0 },
            settled: false,
            decoder: Decoder::default(),
            block: None,
            streams: Streams::default(),
            accepted: VecDeque::new(),
            unopened: VecDeque::new(),
            line: VecDeque::new(),
            out,
            written: 0,
            told_no_table: false,
            recv_window: RecvWindow::new(config.connection_window_bytes),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            peer: PeerSettings::default(),
            last_peer: 0,
            told: LAST_STREAM,
            next: 1,
            peer_goes: None,
            leave: Leave::Staying,
            nuisances: Bucket::new(NUISANCES),
            resets: Bucket::new(RESETS),
            error: None,
            closed: false,
            ping: UserPing::None,
            ping_waker: None,
            waker: None,
            senders: 0,
            config,
        }
    }

    /// Lets the task that reads and writes look after it.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// The consequences of a violation, on the wire and for those concerned.
    pub(crate) fn punish(&mut self, violation: Violation, now: Instant) {
        match violation {
            Violation::Connection(reason) => self.fail(reason),
            Violation::Stream(id, reason) => {
                match self.streams.find(id) {
                    Some(place) => self.reset(place, reason),
                    None => {
                        self.streams.remember_reset(id);
                        frame::put_reset(self.out(), id, reason);
                    }
                }
                if !self.resets.take(now) {
                    self.fail(Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
    }

    /// Ends the connection for what the peer did.
    pub(crate) fn fail(&mut self, reason: Reason) {
        if self.error.is_none() {
            let last = self.last_peer.min(self.told);
            frame::put_goaway(self.out(), last, reason);
            self.end(Error::GoAway { reason, by: By::Us });
        }
    }

    /// The connection broke.
    pub(crate) fn broken(&mut self, kind: io::ErrorKind) {
        crate::pool::put(std::mem::take(&mut self.out));
        self.written = 0;
        self.end(Error::Io(kind));
    }

    /// The peer sends no more.
    pub(crate) fn ended(&mut self) {
        let whole = self.partial.is_empty() && self.block.is_none();
        if whole && self.streams.open() == 0 {
            self.closed = true;
            self.end(Error::Io(io::ErrorKind::UnexpectedEof));
        } else {
            self.broken(io::ErrorKind::UnexpectedEof);
        }
    }

    fn end(&mut self, error: Error) {
        if self.error.is_some() {
            return;
        }
        self.error = Some(error);
        self.unopened.clear();
        let places: Vec<usize> = self.streams.iter_mut().map(|(place, _)| place).collect();
        for place in places {
            let Some(stream) = self.streams.get(place) else { continue };
            let error = if stream.id == 0 { Error::NotProcessed } else { error };
            if !stream.is_closed() {
                stream.fail(error);
                self.close(place);
            }
        }
        if let Some(waker) = self.ping_waker.take() {
            waker.wake();
        }
        self.wake();
    }

    /// Resets a stream.
    pub(crate) fn reset(&mut self, place: usize, reason: Reason) {
        let Some(stream) = self.streams.get(place) else { return };
        if stream.is_closed() {
            return;
        }
        let id = stream.id;
        stream.fail(Error::Reset { reason, by: By::Us });
        if id == 0 {
            self.unopened.retain(|&unopened| unopened as usize != place);
        } else {
            self.streams.remember_reset(id);
            frame::put_reset(self.out(), id, reason);
        }
        self.close(place);
        self.wake();
    }

    /// To be called when a stream may have ended: the peer's part in it is over then.
    pub(crate) fn close(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place).filter(|stream| stream.is_closed()) else { return };
        let (id, let_go, in_order) = (stream.id, stream.is_let_go(), stream.error.is_none());
        self.streams.set_closed(id);
        if let_go {
            self.streams.remove(place);
        }
        if in_order {
            self.resets.give(1);
        }
        self.open_next();
        if self.is_leaving() && self.streams.open() == 0 {
            self.wake();
        }
    }

    /// Somebody who receives has let go of the stream.
    pub(crate) fn let_go_receiving(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        stream.receives = false;
        let unread = std::mem::take(&mut stream.data).len();
        (stream.head, stream.trailers) = (None, None);
        self.release_connection(unread);
        self.let_go(place);
    }

    /// Somebody who sends has.
    pub(crate) fn let_go_sending(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else { return };
        stream.sends = false;
        self.let_go(place);
    }

    fn let_go(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place).filter(|stream| stream.is_let_go()) else { return };
        if stream.is_closed() {
            self.streams.remove(place);
        } else {
            // A server that has answered needs no more of the request (RFC 9113 section 8.1).
            let answered = self.role == Role::Server && stream.send == Half::Done;
            self.reset(place, if answered { Reason::NO_ERROR } else { Reason::CANCEL });
        }
        // Whoever drives the connection may have waited for this, to close it or to see that it is idle.
        self.wake();
    }

    /// Tells the peer that we will go, so that it takes its next requests elsewhere.
    pub(crate) fn announce(&mut self) {
        if self.leave == Leave::Staying && self.error.is_none() {
            self.leave = Leave::Announced;
            frame::put_goaway(self.out(), LAST_STREAM, Reason::NO_ERROR);
            frame::put(self.out(), (frame::PING, 0, 0), &GRACE_PING);
            self.wake();
        }
    }

    /// Tells the peer which of its streams we look at.
    pub(crate) fn go(&mut self) {
        if self.leave < Leave::Going && self.error.is_none() {
            self.leave = Leave::Going;
            let last = self.last_peer;
            self.told = last;
            frame::put_goaway(self.out(), last, Reason::NO_ERROR);
        }
    }

    /// No new streams come about.
    fn is_leaving(&self) -> bool {
        self.leave == Leave::Going || self.peer_goes.is_some()
    }

    /// True once nothing is left to do but to write what waits.
    pub(crate) fn is_over(&mut self) -> bool {
        let none = self.streams.open() == 0 && self.unopened.is_empty() && self.accepted.is_empty();
        if self.role == Role::Client && self.senders == 0 && none && self.streams.len() == 0 {
            self.go();
        }
        let left = match self.role {
            Role::Server => self.leave == Leave::Going,
            Role::Client => self.is_leaving(),
        };
        self.error.is_some() || (left && none)
    }

    /// How the connection ended, if not in order.
    pub(crate) fn end_error(&self) -> Option<Error> {
        self.error.filter(|_| !self.closed)
    }

    /// Memory that is of no use while nothing moves.
    pub(crate) fn shrink(&mut self) {
        if self.streams.len() == 0 {
            for queue in [&mut self.accepted, &mut self.unopened, &mut self.line] {
                if queue.is_empty() && queue.capacity() > 4 {
                    *queue = VecDeque::new();
                }
            }
        }
    }

    /// A new stream, of which `Stream::new` knows the rest.
    pub(crate) fn new_stream(&self, id: u32) -> Stream {
        Stream::new(id, self.config.stream_window_bytes, self.peer.stream_window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of them wait at a time: no buffer, and little else.
    #[test]
    fn an_idle_connection_is_small() {
        let mut conn = Conn::new(Role::Server, Config::default());
        let settings = conn.pending().len();
        conn.advance(settings);
        let place = conn.streams.insert(Stream::new(1, 65_535, 65_535));
        conn.reset(place, Reason::CANCEL);
        conn.advance(conn.pending().len());
        let buffers = conn.out.capacity() + conn.partial.capacity();
        let bytes = size_of::<Conn>() + 4 * size_of::<Option<Stream>>();
        assert!(buffers == 0 && bytes <= 2048, "{buffers} in buffers, {bytes} besides");
    }
}
