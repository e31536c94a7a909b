//! The access log: one JSON line per request, written by a thread of its own.
//!
//! Workers gather lines and hand them over in batches. A writer that cannot keep up loses batches, which are counted;
//! it never holds up a request.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::options::AccessLog;

/// A worker hands its lines over at this size (bytes), or when its clock ticks.
const BATCH_BYTES: usize = 16 * 1024;
/// Batches on their way to the writer.
const MAX_BATCHES: usize = 64;

/// Between two tries to reach a writer that is behind, when it is to write out what it has.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// What the writer is given.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Lines.
    Lines(Vec<u8>),
    /// Tell when all before is written.
    Flush(oneshot::Sender<()>),
    /// What comes after goes to a file that is opened anew: the one there was has been moved away. Tell what came of it.
    Reopen(oneshot::Sender<io::Result<()>>),
}

/// Starts the writer.
///
/// # Errors
/// If the file cannot be opened or the thread cannot be started.
pub(crate) fn start(target: &AccessLog) -> io::Result<SyncSender<Batch>> {
    let (out, target) = (open(target)?, target.clone());
    let (sender, receiver) = sync_channel(MAX_BATCHES);
    std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(out, &target, &receiver))?;
    Ok(sender)
}

fn open(target: &AccessLog) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        AccessLog::Stdout => Box::new(io::stdout()),
        AccessLog::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    })
}

fn write_all(mut out: Box<dyn Write + Send>, target: &AccessLog, batches: &Receiver<Batch>) {
    for batch in batches {
        match batch {
            Batch::Lines(lines) => {
                if let Err(error) = out.write_all(&lines).and_then(|()| out.flush()) {
                    tracing::warn!(%error, "cannot write the access log; lines are lost");
                }
            }
            // Nobody listens if the time for it was over.
            Batch::Flush(done) => drop(done.send(())),
            // Likewise. A file that can't be opened leaves the one before.
            Batch::Reopen(done) => drop(done.send(open(target).map(|opened| out = opened))),
        }
    }
}

/// Resolves when all that the writer was given is written.
pub(crate) async fn flush(writer: &SyncSender<Batch>) {
    let (done, written) = oneshot::channel();
    hand_over(writer, Batch::Flush(done)).await;
    // A writer that has gone writes nothing more.
    let _ = written.await;
}

/// Opens the file anew, after what the writer was given before is written.
///
/// # Errors
/// If it can't be opened; lines go on to the one before.
pub(crate) async fn reopen(writer: &SyncSender<Batch>) -> io::Result<()> {
    let (done, opened) = oneshot::channel();
    hand_over(writer, Batch::Reopen(done)).await;
    opened.await.unwrap_or(Ok(()))
}

async fn hand_over(writer: &SyncSender<Batch>, mut batch: Batch) {
    while let Err(TrySendError::Full(unsent)) = writer.try_send(batch) {
        batch = unsent;
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Lines of one worker that were not handed over yet.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    lines: RefCell<Vec<u8>>,
    writer: SyncSender<Batch>,
}

impl LogBuffer {
    pub(crate) fn new(writer: SyncSender<Batch>) -> Self {
        LogBuffer { lines: RefCell::default(), writer }
    }

    /// Adds a line. False if lines were lost.
    pub(crate) fn push(&self, line: &Line<'_>) -> bool {
        let mut lines = self.lines.borrow_mut();
        // Serialising plain fields into memory does not fail.
        let _ = serde_json::to_writer(&mut *lines, line);
        lines.push(b'\n');
        lines.len() < BATCH_BYTES || self.send(std::mem::take(&mut lines))
    }

    /// Hands over what is there. False if lines were lost.
    pub(crate) fn flush(&self) -> bool {
        let lines = self.lines.take();
        lines.is_empty() || self.send(lines)
    }

    fn send(&self, batch: Vec<u8>) -> bool {
        match self.writer.try_send(Batch::Lines(batch)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// One request. Absent values are left out.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Line<'a> {
    /// Milliseconds since 1970.
    pub(crate) time_ms: u64,
    pub(crate) listener: &'a str,
    pub(crate) peer: &'a str,
    /// Who the caller is by its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<&'a str>,
    /// Of RPC protocols: `host` is the service then, `method` the method. Of TCP: `host` is the server that TLS asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    /// 0: ended without an answer.
    pub(crate) status: u16,
    /// Status in the RPC protocol's own terms; `status` is the HTTP status nearest to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rpc_status: Option<u16>,
    pub(crate) duration_us: u64,
    pub(crate) route: &'a str,
    pub(crate) cluster: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<std::net::SocketAddr>,
    /// From the caller; of TCP, as the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_received: Option<u64>,
    /// To the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_sent: Option<u64>,
    /// Why the proxy itself answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_writer_loses_lines_and_nobody_waits() {
        let (writer, receiver) = sync_channel(1);
        let buffer = LogBuffer::new(writer);
        let path = "/".repeat(BATCH_BYTES);
        let line = Line {
            time_ms: 1,
            listener: "in",
            peer: "::1",
            identity: None,
            protocol: None,
            method: "GET",
            host: "h\"",
            path: &path,
            status: 200,
            rpc_status: None,
            duration_us: 5,
            route: "r",
            cluster: "c",
            endpoint: None,
            bytes_received: None,
            bytes_sent: None,
            refused: None,
            trace_id: None,
        };
        assert!(buffer.push(&line));
        assert!(!buffer.push(&line));
        let Batch::Lines(batch) = receiver.recv().unwrap() else { panic!("lines were sent") };
        let parsed: serde_json::Value = serde_json::from_slice(&batch).unwrap();
        assert_eq!((parsed["status"].as_u64(), parsed["host"].as_str()), (Some(200), Some("h\"")));
    }
}
