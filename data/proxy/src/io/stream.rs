//! Connected sockets.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{Buf, BufferPool};

/// A host that acknowledges nothing for this long is gone (`TCP_USER_TIMEOUT`, see `tcp(7)`).
const VANISHED: Duration = Duration::from_secs(20);

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Stream(TcpStream);

/// Connects within the time given.
pub(crate) async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Stream> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(connected) => {
            let stream = connected?;
            notice_silence(&stream);
            Ok(Stream::new(stream))
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

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        // A socket that does not take the option still works, only slower.
        let _ = stream.set_nodelay(true);
        Stream(stream)
    }

    /// Waits until there is something to read, without holding a buffer meanwhile.
    #[inline]
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    /// Reads into the buffer's spare room; 0 means the peer will send no more.
    ///
    /// tokio takes a read that did not fill the room as proof that the socket is empty, so the next one waits for epoll
    /// without asking the kernel in vain.
    #[inline]
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<usize>> {
        let mut spare = ReadBuf::new(buf.spare());
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut spare))?;
        let read = spare.filled().len();
        buf.advance_end(read);
        Poll::Ready(Ok(read))
    }

    /// Both directions, to be used side by side.
    #[inline]
    pub(crate) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        let (reader, writer) = self.0.split();
        (Reader(reader), Writer(writer))
    }

    /// True if nothing was received and the peer has not closed: an idle connection that can be used again.
    ///
    /// Costs no system call unless epoll has reported something since the last read.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if self.0.poll_read_ready(&mut cx).is_pending() {
            return true;
        }
        let mut byte = [0];
        matches!(self.0.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(crate) fn into_tokio(self) -> TcpStream {
        self.0
    }
}

/// The receiving direction of a [`Stream`].
#[derive(Debug)]
pub(crate) struct Reader<'a>(ReadHalf<'a>);

/// The sending direction of a [`Stream`].
#[derive(Debug)]
pub(crate) struct Writer<'a>(WriteHalf<'a>);

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
        ready!(self.0.as_ref().poll_read_ready(cx))?;
        pool.fill(buf);
        let mut spare = ReadBuf::new(buf.spare());
        let polled = Pin::new(&mut self.0).poll_read(cx, &mut spare);
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

    /// True if reading is worth a try; otherwise the task is woken when it is.
    pub(crate) fn is_ready(&self, cx: &mut Context<'_>) -> bool {
        self.0.as_ref().poll_read_ready(cx).is_ready()
    }

    /// Whether the peer has reset the connection, as far as is known without reading what it sent.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>, watch: &mut bool) -> bool {
        if !*watch || self.0.as_ref().poll_read_ready(cx).is_pending() {
            return false;
        }
        let mut byte = [0];
        match self.0.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
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
        Ok(())
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let half = Pin::new(&mut self.0);
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
        let _ = SockRef::from(self.0.as_ref()).set_linger(reset.then_some(Duration::ZERO));
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.0).poll_shutdown(cx)).await
    }
}

/// A socket whose first bytes have been read already.
#[derive(Debug)]
pub(crate) struct Prefixed {
    prefix: Buf,
    stream: TcpStream,
}

impl Prefixed {
    pub(crate) fn new(prefix: Buf, stream: Stream) -> Self {
        Prefixed { prefix, stream: stream.into_tokio() }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
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
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
