//! A request's body on its way to the upstream.

use std::future::poll_fn;

use weir_codec::http1::{Framing, Reject};

use super::body::Body;
use crate::io::{Buf, Reader, Writer};
use crate::upstream::Progress;
use crate::worker::Worker;

/// A request's body: what of it lies in the caller's buffer, and what is still to come.
///
/// Nothing is taken out of the buffer until more must be read into it. So a request that failed before that can be sent
/// again, whole.
#[derive(Debug)]
pub(super) struct Upload {
    body: Body,
    /// Bytes at the front of the buffer that belong to the body.
    claimed: usize,
    /// False once some of the body is no longer in the buffer.
    pub(super) replayable: bool,
}

/// Why an upload ended early.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The caller broke off.
    Caller,
    /// The caller's body is malformed.
    Malformed(Reject),
    /// The upstream takes no more.
    Upstream,
}

impl Upload {
    /// Looks at what is there of the body.
    pub(super) fn new(framing: Framing, buf: &Buf) -> Result<Self, Reject> {
        let mut body = Body::new(framing);
        let claimed = body.claim(buf.filled())?;
        Ok(Upload { body, claimed, replayable: true })
    }

    /// True if all of the body is in the buffer.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// What of the body is in the buffer.
    pub(super) fn claimed<'b>(&self, buf: &'b Buf) -> &'b [u8] {
        &buf.filled()[..self.claimed]
    }

    /// The request was sent for good: takes its bytes out of the buffer.
    pub(super) fn settle(&mut self, buf: &mut Buf) {
        if self.claimed > 0 {
            self.replayable = false;
            buf.consume(self.claimed);
            self.claimed = 0;
        }
    }

    /// Sends the head and what is there of the body, then goes on with what comes, until the body ends.
    pub(super) async fn run(
        &mut self,
        worker: &Worker,
        head: &[u8],
        buf: &mut Buf,
        (from, to): (&mut Reader<'_>, &mut Writer<'_>),
        progress: &Progress,
    ) -> Result<(), UploadError> {
        to.write_all(head, self.claimed(buf)).await.map_err(|_| UploadError::Upstream)?;
        while !self.is_complete() {
            self.read_more(worker, buf, from).await?;
            progress.note();
            to.write_all(self.claimed(buf), b"").await.map_err(|_| UploadError::Upstream)?;
            progress.note();
        }
        self.settle(buf);
        Ok(())
    }

    async fn read_more(&mut self, worker: &Worker, buf: &mut Buf, from: &mut Reader<'_>) -> Result<(), UploadError> {
        let read = poll_fn(|cx| {
            // Until something comes, the request can still be sent again.
            if from.is_ready(cx) {
                self.settle(buf);
                buf.make_room(crate::io::BUFFER_BYTES);
            }
            from.poll_fill(cx, &worker.buffers, buf)
        });
        match read.await {
            Ok(read) if read > 0 => {
                self.claimed = self.body.claim(buf.filled()).map_err(UploadError::Malformed)?;
                Ok(())
            }
            _ => Err(UploadError::Caller),
        }
    }
}
