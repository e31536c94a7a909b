//! Connected sockets.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::tls::{Session, Tls};
use super::{Buf, BufferPool};

/// A host that acknowledges nothing for this long is gone (`TCP_USER_TIMEOUT`, see `tcp(7)`).
const VANISHED: Duration = Duration::from_secs(20);

/// A connected socket, encrypted or not.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    /// Both directions use it, in turn: it is never borrowed across a wait.
    tls: Option<Box<RefCell<Tls>>>,
}

/// Connects within the time given.
pub(crate) async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Stream> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(connected) => {
            let stream = connected?;
            if !address.ip().is_loopback() {
                notice_silence(&stream);
            }
            Ok(Stream::new(stream, address))
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Has the kernel notice a host that vanished without a word: while an answer is awaited nothing else would.
fn notice_silence(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(VANISHED / 2).with_interval(VANISHED / 8);
    // Without the options, a request waits for its own timeout instead.
    let _ = socket.set_tcp_keepalive(&probes);
    let _ = socket.set_tcp_user_timeout(Some(VANISHED));
}

/// Between two programs of one host there is no congestion to control. Where BBR is the default it would pace what is
/// sent by timers all the same; Reno, which every kernel has, only counts (`TCP_CONGESTION`, see `tcp(7)`).
fn send_unpaced(stream: &TcpStream) {
    // As below.
    let _ = SockRef::from(stream).set_tcp_congestion(b"reno");
}

/// IPv4 as such, also on a socket for IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Stream {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        // A socket that does not take the option still works, only slower.
        let _ = stream.set_nodelay(true);
        if peer.ip().is_loopback() {
            send_unpaced(&stream);
        }
        Stream { socket: stream, tls: None }
    }

    /// Where the peer was going before the kernel turned the connection round (`SO_ORIGINAL_DST` and
    /// `IP6T_SO_ORIGINAL_DST`, Linux's `netfilter_ipv4.h`); `None` if it came straight here.
    pub(crate) fn original_destination(&self) -> Option<SocketAddr> {
        let socket = SockRef::from(&self.socket);
        let local = canonical(self.socket.local_addr().ok()?);
        let asked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
        let destination = canonical(asked.ok()?.as_socket()?);
        (destination != local).then_some(destination)
    }

    /// This end of the connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Waits until there is something to read, without holding a buffer meanwhile.
    #[inline]
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            Some(tls) if tls.borrow().has_received() => Poll::Ready(Ok(())),
            _ => self.socket.poll_read_ready(cx),
        }
    }

    /// Reads into the buffer's spare room; 0 means the peer will send no more.
    ///
    /// tokio takes a read that did not fill the room as proof that the socket is empty, so the next one waits for epoll
    /// without asking the kernel in vain.
    #[inline]
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            let (mut reader, _) = self.split();
            return reader.poll_open(cx, &mut |bytes| buf.put(bytes));
        }
        let mut spare = ReadBuf::new(buf.spare());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut spare))?;
        let read = spare.filled().len();
        buf.advance_end(read);
        Poll::Ready(Ok(read))
    }

    fn poll_read_into(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.socket).poll_read(cx, out);
        }
        let put = &mut |bytes: &[u8]| {
            let len = bytes.len().min(out.remaining());
            out.put_slice(&bytes[..len]);
            len
        };
        self.split().0.poll_open(cx, put).map_ok(drop)
    }

    /// Both directions, to be used side by side.
    #[inline]
    pub(crate) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        let (reader, writer) = self.socket.split();
        let tls = self.tls.as_deref();
        (Reader { half: reader, tls }, Writer { half: writer, tls })
    }

    /// True if nothing was received and the peer has not closed: an idle connection that can be used again.
    ///
    /// Costs no system call unless epoll has reported something since the last read.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if self.tls.is_some() {
            // Session tickets and the like may come at any time; anything to read may not.
            let (mut reader, _) = self.split();
            return reader.poll_open(&mut cx, &mut |_| 0).is_pending();
        }
        if self.socket.poll_read_ready(&mut cx).is_pending() {
            return true;
        }
        let mut byte = [0];
        matches!(self.socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The connection broke off and the peer is to see that: what it was sent last is not whole.
    pub(crate) fn abandon(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.get_mut().set_silent(true);
        }
    }

    /// Shakes hands; `received` was read from the socket already. The caller bounds the time it takes.
    pub(crate) async fn secure(
        &mut self,
        session: Session,
        pool: &Rc<BufferPool>,
        received: Buf,
    ) -> Result<(), Unsecured> {
        let tls = self.tls.insert(Box::new(RefCell::new(Tls::new(session, pool.clone(), received)))).get_mut();
        let (mut reader, mut writer) = self.socket.split();
        loop {
            let shaken = tls.shake();
            let sent = poll_fn(|cx| poll_drain(tls, &mut writer, cx)).await;
            if shaken.map_err(Unsecured::Tls)? {
                return sent.map_err(Unsecured::Io);
            }
            sent.map_err(Unsecured::Io)?;
            let read = poll_fn(|cx| poll_receive(tls, &mut reader, cx)).await.map_err(Unsecured::Io)?;
            if read == 0 {
                return Err(Unsecured::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            if !tls.count_shaken(read) {
                return Err(Unsecured::TooLong);
            }
        }
    }

    /// The certificate that the peer has shown, if it has.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.tls.as_ref().and_then(|tls| tls.borrow().session().peer_certificate().cloned())
    }
}

/// Why a handshake did not come to its end.
#[derive(Debug)]
pub(crate) enum Unsecured {
    /// By the rules of TLS.
    Tls(rustls::Error),
    /// The connection broke.
    Io(io::Error),
    /// The peer has sent too much.
    TooLong,
}

impl Drop for Stream {
    /// A connection that is let go in order says so, or its peer could not tell the end from an attack. Best effort: what
    /// the socket does not take at once is not waited for.
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            let tls = tls.get_mut();
            if tls.says_goodbye() && tls.seal_end().is_ok() {
                let _ = self.socket.try_write(tls.outgoing().filled());
            }
            tls.discard();
        }
    }
}

/// The receiving direction of a [`Stream`].
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    half: ReadHalf<'a>,
    tls: Option<&'a RefCell<Tls>>,
}

/// The sending direction of a [`Stream`].
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    half: WriteHalf<'a>,
    tls: Option<&'a RefCell<Tls>>,
}

/// Writes what is waiting to be sent, to its end.
fn poll_drain(tls: &mut Tls, half: &mut WriteHalf<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !tls.outgoing().is_empty() {
        ready!(poll_send(tls, half, cx))?;
    }
    Poll::Ready(Ok(()))
}

/// Writes what is waiting to be sent, with one call.
fn poll_send(tls: &mut Tls, half: &mut WriteHalf<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let written = ready!(Pin::new(half).poll_write(cx, tls.outgoing().filled()))?;
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    tls.outgoing().consume(written);
    tls.release();
    Poll::Ready(Ok(()))
}

/// Reads records from the socket; 0 means that the peer has closed it.
fn poll_receive(tls: &mut Tls, half: &mut ReadHalf<'_>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    ready!(half.as_ref().poll_read_ready(cx))?;
    let incoming = tls.incoming()?;
    let mut spare = ReadBuf::new(incoming.spare());
    let polled = Pin::new(half).poll_read(cx, &mut spare);
    let read = spare.filled().len();
    incoming.advance_end(read);
    if polled.is_pending() {
        tls.release();
    }
    polled.map_ok(|()| read)
}

impl Reader<'_> {
    /// Waits for something to read, lends the buffer memory only then, and reads into its spare room; 0 means the peer
    /// will send no more.
    #[inline]
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pool: &BufferPool,
        buf: &mut Buf,
    ) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            let polled = self.poll_open(cx, &mut |bytes| {
                pool.fill(buf);
                buf.put(bytes)
            });
            return polled;
        }
        ready!(self.half.as_ref().poll_read_ready(cx))?;
        pool.fill(buf);
        let mut spare = ReadBuf::new(buf.spare());
        let polled = Pin::new(&mut self.half).poll_read(cx, &mut spare);
        let read = spare.filled().len();
        buf.advance_end(read);
        match polled {
            Poll::Ready(result) => Poll::Ready(result.map(|()| read)),
            Poll::Pending => {
                pool.release_if_empty(buf);
                Poll::Pending
            }
        }
    }

    /// Hands to `put` what the peer has encrypted for us; see [`Tls::open`]. A connection that ends without the peer
    /// having said so is broken: anybody on the way can close it.
    fn poll_open(&mut self, cx: &mut Context<'_>, put: &mut dyn FnMut(&[u8]) -> usize) -> Poll<io::Result<usize>> {
        let Some(tls) = self.tls else { return Poll::Ready(Ok(0)) };
        let mut tls = tls.borrow_mut();
        loop {
            let opened = tls.open(put)?;
            tls.release();
            if opened > 0 || tls.has_ended() || tls.is_full() {
                return Poll::Ready(Ok(opened));
            }
            if ready!(poll_receive(&mut tls, &mut self.half, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// True if reading is worth a try; otherwise the task is woken when it is.
    pub(crate) fn is_ready(&self, cx: &mut Context<'_>) -> bool {
        self.tls.is_some_and(|tls| tls.borrow().has_received()) || self.half.as_ref().poll_read_ready(cx).is_ready()
    }

    /// Whether the peer has reset the connection, as far as is known without reading what it sent.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>, watch: &mut bool) -> bool {
        if !*watch || self.half.as_ref().poll_read_ready(cx).is_pending() {
            return false;
        }
        let mut byte = [0];
        match self.half.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            // Nothing after all.
            Poll::Pending => false,
            // The next request, or the peer will send no more but may well listen.
            Poll::Ready(Ok(_)) => {
                *watch = false;
                false
            }
            Poll::Ready(Err(_)) => true,
        }
    }
}

/// A write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotWritten {
    /// Not one byte was taken.
    pub(crate) nothing: bool,
}

impl Writer<'_> {
    /// Like [`Writer::write_all`], but tells whether the peer may have got some of it.
    pub(crate) async fn write_all_or_tell(&mut self, first: &[u8], second: &[u8]) -> Result<(), NotWritten> {
        let written =
            poll_fn(|cx| self.poll_write(cx, first, second)).await.map_err(|_| NotWritten { nothing: true })?;
        let of_first = written.min(first.len());
        let rest = self.write_all(&first[of_first..], &second[written - of_first..]);
        rest.await.map_err(|_| NotWritten { nothing: false })
    }

    /// Writes both slices whole, with one call if the socket takes them.
    pub(crate) async fn write_all(&mut self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        while !first.is_empty() || !second.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, first, second)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_first = written.min(first.len());
            first = &first[of_first..];
            second = &second[written - of_first..];
        }
        if self.tls.is_some() {
            poll_fn(|cx| self.poll_flush(cx)).await?;
        }
        Ok(())
    }

    /// Nothing that was written waits here any more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.tls {
            Some(tls) => poll_drain(&mut tls.borrow_mut(), &mut self.half, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Encrypts what fits into one record and tries to send it; what the socket does not take waits.
    fn poll_seal(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(tls) = self.tls else { return Poll::Ready(Ok(0)) };
        let mut tls = tls.borrow_mut();
        ready!(poll_drain(&mut tls, &mut self.half, cx))?;
        let sealed = tls.seal(slices)?;
        if sealed == 0 {
            return Poll::Ready(Ok(0));
        }
        match poll_send(&mut tls, &mut self.half, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(sealed)),
        }
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            return self.poll_seal(cx, &[io::IoSlice::new(first), io::IoSlice::new(second)]);
        }
        let half = Pin::new(&mut self.half);
        match (first.is_empty(), second.is_empty()) {
            (_, true) => half.poll_write(cx, first),
            (true, false) => half.poll_write(cx, second),
            _ => half.poll_write_vectored(cx, &[io::IoSlice::new(first), io::IoSlice::new(second)]),
        }
    }

    /// While set, closing the socket resets the connection, whoever closes it: for a message whose end is told by
    /// closing, and which must not look complete if it breaks off.
    pub(crate) fn reset_on_close(&self, reset: bool) {
        // A socket that does not take the option is gone already.
        let _ = SockRef::from(self.half.as_ref()).set_linger(reset.then_some(Duration::ZERO));
        if let Some(tls) = self.tls {
            tls.borrow_mut().set_silent(reset);
        }
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = self.tls {
            tls.borrow_mut().seal_end()?;
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.half).poll_shutdown(cx)
    }
}

/// A stream as tokio's traits have it, whose first bytes may have been read already.
#[derive(Debug)]
pub(crate) struct Prefixed {
    prefix: Buf,
    stream: Stream,
}

impl Prefixed {
    pub(crate) fn new(prefix: Buf, stream: Stream) -> Self {
        Prefixed { prefix, stream }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return self.stream.poll_read_into(cx, out);
        }
        let len = self.prefix.len().min(out.remaining());
        out.put_slice(&self.prefix.filled()[..len]);
        self.prefix.consume(len);
        if self.prefix.is_empty() {
            self.prefix = Buf::default();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.split().1.poll_write(cx, bytes, b"")
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.stream.tls {
            Some(_) => self.stream.split().1.poll_seal(cx, slices),
            None => Pin::new(&mut self.stream.socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.split().1.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.split().1.poll_finish(cx)
    }
}
