//! TLS between a socket and its user: rustls's unbuffered connection, with buffers lent by the worker only while
//! something is in them. So an idle encrypted connection holds keys and counters, and no buffer.
//!
//! What lies in each:
//!
//! ```text
//! socket -> incoming (records) -> [rustls] -> the reader's buffer, or `rest` where that has no room
//! socket <- outgoing (records) <- [rustls] <- what is written
//! ```

use std::fmt;
use std::io;
use std::rc::Rc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};

use super::{BUFFER_BYTES, Buf, BufferPool};

/// Most bytes of records held at a time. A record has up to 16,645 (RFC 8446 section 5.2); the rest is for handshake
/// messages that span several.
const MAX_INCOMING: usize = 4 * BUFFER_BYTES;
/// Most bytes a peer may send in a handshake: certificate chains are a few thousand.
const MAX_HANDSHAKE_BYTES: usize = 128 * 1024;
/// Plaintext put into one record, such that the record fits a pooled buffer: header, content type and tag take 22 bytes.
const RECORD_BYTES: usize = BUFFER_BYTES - 64;
/// What a record adds to its plaintext, at most.
const OVERHEAD_BYTES: usize = BUFFER_BYTES - RECORD_BYTES;
/// Most bytes that wait for the socket: a record, or a certificate chain of a handshake.
const MAX_OUTGOING: usize = 8 * BUFFER_BYTES;
/// Room for an alert, a key update or a close_notify.
const CONTROL_BYTES: usize = 128;

/// Either end of a connection.
pub(crate) enum Session {
    /// We accepted.
    Server(UnbufferedServerConnection),
    /// We connected.
    Client(UnbufferedClientConnection),
}

/// TLS on one connection.
#[derive(Debug)]
pub(crate) struct Tls {
    session: Session,
    pool: Rc<BufferPool>,
    incoming: Buf,
    outgoing: Buf,
    /// Decrypted, for which the reader had no room.
    rest: Vec<u8>,
    rest_taken: usize,
    /// Bytes received while shaking hands.
    shaken: usize,
    /// The peer has said that it sends no more.
    ended: bool,
    /// We have said so.
    closed: bool,
    /// It broke the rules, or we could not go on.
    failed: bool,
    /// The peer is not to take the end of the connection for the end of what it carried.
    silent: bool,
}

/// What is wanted of rustls.
#[derive(Debug, Clone, Copy)]
enum Task<'a> {
    /// To go on with what was received.
    Read,
    /// To encrypt this.
    Write(&'a [u8]),
    /// To tell the peer that no more will be written.
    Close,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Something else had to be done first: ask again.
    Again,
    /// More must be received first.
    Blocked,
    /// It is done.
    Done,
}

impl fmt::Debug for Session {
    /// Keys are in it, so nothing of it is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Session::Server(_) => "Session(server)",
            Session::Client(_) => "Session(client)",
        })
    }
}

impl Session {
    /// True until application data may flow both ways.
    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Session::Server(session) => session.is_handshaking(),
            Session::Client(session) => session.is_handshaking(),
        }
    }

    /// The peer's certificate, if it has shown one.
    pub(crate) fn peer_certificate(&self) -> Option<&rustls::pki_types::CertificateDer<'static>> {
        match self {
            Session::Server(session) => session.peer_certificates()?.first(),
            Session::Client(session) => session.peer_certificates()?.first(),
        }
    }
}

impl Tls {
    /// `received` is what was read from the socket already.
    pub(super) fn new(session: Session, pool: Rc<BufferPool>, received: Buf) -> Self {
        let shaken = received.len();
        Tls {
            session,
            pool,
            incoming: received,
            outgoing: Buf::default(),
            rest: Vec::new(),
            rest_taken: 0,
            shaken,
            ended: false,
            closed: false,
            failed: false,
            silent: false,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// True if there may be something to read without waiting for the socket.
    pub(super) fn has_received(&self) -> bool {
        self.ended || !self.rest.is_empty() || !self.incoming.is_empty()
    }

    /// The peer has said, in a way nobody else can, that it sends no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && self.rest.is_empty()
    }

    /// Room for what comes from the socket.
    pub(super) fn incoming(&mut self) -> io::Result<&mut Buf> {
        self.pool.fill(&mut self.incoming);
        if !self.incoming.make_room(MAX_INCOMING) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long"));
        }
        Ok(&mut self.incoming)
    }

    /// True if the reader had no room for what was decrypted.
    pub(super) fn is_full(&self) -> bool {
        !self.rest.is_empty()
    }

    /// What is to be written to the socket.
    pub(super) fn outgoing(&mut self) -> &mut Buf {
        &mut self.outgoing
    }

    /// Gives buffers back that hold nothing.
    pub(super) fn release(&mut self) {
        self.pool.release_if_empty(&mut self.incoming);
        self.pool.release_if_empty(&mut self.outgoing);
    }

    /// Gives the buffers back with whatever is in them.
    pub(super) fn discard(&mut self) {
        self.pool.discard(&mut self.incoming);
        self.pool.discard(&mut self.outgoing);
    }

    /// Decrypts what was received and hands it to `put`, which returns how many bytes it took; what it does not take is
    /// kept for the next time. Returns how many it took in all.
    pub(super) fn open(&mut self, put: &mut dyn FnMut(&[u8]) -> usize) -> io::Result<usize> {
        let mut taken = self.take_rest(put);
        while self.rest.is_empty() && !self.ended {
            let mut counted = |bytes: &[u8]| {
                let took = put(bytes);
                taken += took;
                took
            };
            if self.pass(Task::Read, &mut counted).map_err(invalid)? == Pass::Blocked {
                break;
            }
        }
        Ok(taken)
    }

    fn take_rest(&mut self, put: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        if self.rest.is_empty() {
            return 0;
        }
        let taken = put(&self.rest[self.rest_taken..]);
        self.rest_taken += taken;
        if self.rest_taken == self.rest.len() {
            (self.rest, self.rest_taken) = (Vec::new(), 0);
        }
        taken
    }

    /// Goes on with the handshake as far as what was received allows; true once it is done. What is to be sent then lies
    /// in `outgoing`, also after an error: the alert that tells the peer why.
    pub(super) fn shake(&mut self) -> Result<bool, rustls::Error> {
        loop {
            // What comes behind the handshake already is kept for the reader.
            match self.pass(Task::Read, &mut |_| 0) {
                Ok(Pass::Again) => {}
                Ok(Pass::Blocked | Pass::Done) => return Ok(!self.session.is_handshaking()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Counts bytes received for the handshake; false if there were too many.
    pub(super) fn count_shaken(&mut self, bytes: usize) -> bool {
        self.shaken += bytes;
        self.shaken <= MAX_HANDSHAKE_BYTES
    }

    /// Encrypts as much of the slices as fits into one record; returns how much that was.
    pub(super) fn seal(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let (Some(first), second) = (filled.next(), filled.next()) else { return Ok(0) };
        if second.is_none() || first.len() >= RECORD_BYTES {
            return self.seal_one(&first[..first.len().min(RECORD_BYTES)]);
        }
        // One record costs less than several, and the copy next to nothing.
        let mut gathered = self.pool.take_vec();
        for slice in slices {
            let room = RECORD_BYTES - gathered.len();
            gathered.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let sealed = self.seal_one(&gathered);
        self.pool.put_vec(gathered);
        sealed
    }

    fn seal_one(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.ask(Task::Write(bytes))?;
        Ok(bytes.len())
    }

    /// Says that no more will be written.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.closed, true) {
            self.ask(Task::Close)?;
        }
        Ok(())
    }

    /// While set, the end of the connection is not announced: the peer is to see that it broke off.
    pub(super) fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// True if the peer is to be told of the connection's end, and can be.
    pub(super) fn says_goodbye(&self) -> bool {
        !self.silent && !self.failed && !self.session.is_handshaking()
    }

    /// Asks until it is done.
    fn ask(&mut self, task: Task<'_>) -> io::Result<()> {
        loop {
            match self.pass(task, &mut |_| 0).map_err(invalid)? {
                Pass::Again => {}
                Pass::Blocked => return Err(io::ErrorKind::NotConnected.into()),
                Pass::Done => return Ok(()),
            }
        }
    }

    /// One step of rustls; each makes progress or says that there is none to be made. After an error there is no other
    /// step, but that the alert which tells the peer lies in `outgoing`.
    fn pass(&mut self, task: Task<'_>, put: &mut dyn FnMut(&[u8]) -> usize) -> Result<Pass, rustls::Error> {
        if self.failed {
            return Err(rustls::Error::General("the connection has failed before".into()));
        }
        let passed = self.step(task, put);
        if passed.is_err() {
            (self.failed, self.closed) = (true, true);
            // A second error would tell nothing new.
            let _ = self.step(Task::Read, &mut |_| 0);
        }
        passed
    }

    fn step(&mut self, task: Task<'_>, put: &mut dyn FnMut(&[u8]) -> usize) -> Result<Pass, rustls::Error> {
        let Tls { session, pool, incoming, outgoing, rest, ended, .. } = self;
        let mut keep = |bytes: &[u8]| rest.extend_from_slice(&bytes[put(bytes)..]);
        let mut sides = Sides { keep: &mut keep, pool, outgoing, ended };
        let (discard, pass) = match session {
            Session::Server(session) => sides.step(session.process_tls_records(incoming.filled_mut()), task),
            Session::Client(session) => sides.step(session.process_tls_records(incoming.filled_mut()), task),
        };
        incoming.consume(discard);
        pass
    }
}

/// Where a step puts what comes of it.
struct Sides<'a> {
    keep: &'a mut dyn FnMut(&[u8]),
    pool: &'a BufferPool,
    outgoing: &'a mut Buf,
    ended: &'a mut bool,
}

impl Sides<'_> {
    /// Also tells how much of `incoming` is used up.
    fn step<D>(&mut self, status: UnbufferedStatus<'_, '_, D>, task: Task<'_>) -> (usize, Result<Pass, rustls::Error>) {
        let mut discard = status.discard;
        let pass = match status.state {
            Err(error) => Err(error),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    Some(Ok(record)) => {
                        discard += record.discard;
                        (self.keep)(record.payload);
                    }
                    Some(Err(error)) => break Err(error),
                    None => break Ok(Pass::Again),
                }
            },
            Ok(ConnectionState::EncodeTlsData(data)) => self.encode(data),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // It lies in `outgoing`, which is written in order.
                data.done();
                Ok(Pass::Again)
            }
            Ok(ConnectionState::PeerClosed) => {
                *self.ended = true;
                Ok(Pass::Again)
            }
            Ok(ConnectionState::WriteTraffic(writer)) => self.write(writer, task),
            // Early data is not offered; what a newer rustls may want more is not known here.
            Ok(_) => Ok(Pass::Blocked),
        };
        (discard, pass)
    }

    /// Takes over a message of rustls's own: of the handshake, an alert, a key update.
    fn encode<D>(&mut self, mut data: EncodeTlsData<'_, D>) -> Result<Pass, rustls::Error> {
        let mut needed = CONTROL_BYTES;
        loop {
            self.reserve(needed)?;
            match data.encode(self.outgoing.spare()) {
                Ok(written) => {
                    self.outgoing.advance_end(written);
                    return Ok(Pass::Again);
                }
                Err(EncodeError::InsufficientSize(more)) if more.required_size > needed => needed = more.required_size,
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
        }
    }

    fn write<D>(&mut self, mut writer: WriteTraffic<'_, D>, task: Task<'_>) -> Result<Pass, rustls::Error> {
        let mut needed = CONTROL_BYTES;
        loop {
            let written = match task {
                Task::Read => return Ok(Pass::Blocked),
                Task::Write(bytes) => {
                    self.reserve(needed.max(bytes.len() + OVERHEAD_BYTES))?;
                    writer.encrypt(bytes, self.outgoing.spare())
                }
                Task::Close => {
                    self.reserve(needed)?;
                    writer.queue_close_notify(self.outgoing.spare())
                }
            };
            match written {
                Ok(written) => {
                    self.outgoing.advance_end(written);
                    return Ok(Pass::Done);
                }
                Err(EncryptError::InsufficientSize(more)) if more.required_size > needed => needed = more.required_size,
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
        }
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), rustls::Error> {
        self.pool.fill(self.outgoing);
        let fits = self.outgoing.reserve(bytes, MAX_OUTGOING);
        if fits { Ok(()) } else { Err(rustls::Error::General("too much is waiting to be sent".into())) }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
