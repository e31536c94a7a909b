//! Bytes both ways, after an upgrade or on a plain TCP listener.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::After;
use crate::io::{BUFFER_BYTES, Buf, Reader, Stream, Timer, Writer};
use crate::stats::{ClusterStats, Counter};
use crate::upstream::Lease;
use crate::worker::{Connection, Worker};

/// Passes bytes both ways until both sides have finished, one breaks, or both have been silent for too long. What each
/// side has sent already lies in `from_caller` and `from_upstream`.
pub(super) async fn run(
    connection: &mut Connection,
    from_caller: &mut Buf,
    mut lease: Lease,
    mut from_upstream: Buf,
) -> After {
    let view = connection.listener.view();
    let silence = view.compiled.config.limits.silence(true);
    let Connection { worker, stream, timer, .. } = connection;
    let (stats, up, down) = (lease.stats(), Cell::new(0), Cell::new(0));
    let moved = Moved { total: &stats, up: &up, down: &down };
    tunnel(worker, timer, silence, (stream, from_caller), (&mut lease.stream, &mut from_upstream), moved).await;
    After::Close
}

/// Where the bytes that pass are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved<'a> {
    /// Those of all connections to the cluster.
    pub(crate) total: &'a ClusterStats,
    /// From this caller.
    pub(crate) up: &'a Cell<u64>,
    /// To this caller.
    pub(crate) down: &'a Cell<u64>,
}

/// See [`run`].
pub(crate) async fn tunnel(
    worker: &Worker,
    timer: &mut Timer,
    silence: Option<Duration>,
    (caller, from_caller): (&mut Stream, &mut Buf),
    (upstream, from_upstream): (&mut Stream, &mut Buf),
    moved: Moved<'_>,
) {
    let (caller_reader, caller_writer) = caller.split();
    let (upstream_reader, upstream_writer) = upstream.split();
    let last = Cell::new(Instant::now());
    let sent = (moved.up, &moved.total.sent_bytes);
    let received = (moved.down, &moved.total.received_bytes);
    let mut up = Box::pin(pump(worker, from_caller, caller_reader, upstream_writer, &last, sent));
    let mut down = Box::pin(pump(worker, from_upstream, upstream_reader, caller_writer, &last, received));
    let (mut up_ended, mut down_ended) = (false, false);
    poll_fn(|cx| {
        for (pump, ended) in [(&mut up, &mut up_ended), (&mut down, &mut down_ended)] {
            match (!*ended).then(|| pump.as_mut().poll(cx)) {
                Some(Poll::Ready(Ok(()))) => *ended = true,
                Some(Poll::Ready(Err(_))) => return Poll::Ready(()),
                _ => {}
            }
        }
        match silence {
            _ if up_ended && down_ended => Poll::Ready(()),
            Some(silence) => timer.poll_until(cx, last.get() + silence).map(|_| ()),
            None => Poll::Pending,
        }
    })
    .await;
}

async fn pump(
    worker: &Worker,
    buf: &mut Buf,
    mut from: Reader<'_>,
    mut to: Writer<'_>,
    last: &Cell<Instant>,
    (moved, total): (&Cell<u64>, &Counter),
) -> io::Result<()> {
    loop {
        if !buf.is_empty() {
            to.write_all(buf.filled(), b"").await?;
            moved.set(moved.get() + buf.len() as u64);
            total.add(buf.len() as u64);
            buf.consume(buf.len());
        }
        worker.buffers.release_if_empty(buf);
        buf.make_room(BUFFER_BYTES);
        let read = poll_fn(|cx| from.poll_fill(cx, &worker.buffers, buf)).await?;
        if read == 0 {
            return to.finish().await;
        }
        last.set(Instant::now());
    }
}
