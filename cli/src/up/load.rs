//! The demo's load: `weir-demo load` as a child, and what it counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;

use crate::run::spawn;

/// How long the last answers may take once it is told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Counts since the load began; a line of its output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Seconds since it began.
    pub second: u64,
    /// Requests sent.
    pub sent: u64,
    /// Of those, answered well.
    pub ok: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Why.
    pub reasons: BTreeMap<String, u64>,
    /// Of those, sent once more because a kept connection had been closed.
    pub repeated: u64,
    /// Not answered yet.
    pub in_flight: u64,
    /// Answered in the last second.
    pub answered: u64,
    /// 99th percentile of the last second, microseconds.
    pub p99_us: u64,
    /// The longest of the last second.
    pub max_us: u64,
}

/// What happened between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Requests sent.
    pub sent: u64,
    /// Failed.
    pub failed: u64,
    /// Why.
    pub reasons: BTreeMap<String, u64>,
    /// Sent once more on a new connection, as RFC 9112 has it.
    pub repeated: u64,
}

/// The load.
pub struct Load {
    child: Child,
    counts: watch::Receiver<Counts>,
}

impl Load {
    /// Starts it.
    pub fn start(program: &Path, to: &[SocketAddr], rate: u32) -> Result<Load, String> {
        let mut command = spawn::child(program.as_os_str());
        command.args(["load", "--rate", &rate.to_string()]);
        command.args(to.iter().flat_map(|edge| ["--to".to_owned(), edge.to_string()]));
        let told = |error: std::io::Error| format!("cannot start {}: {error}", program.display());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(told)?;
        let (sender, counts) = watch::channel(Counts::default());
        if let Some(output) = child.stdout.take() {
            tokio::spawn(read(output, sender));
        }
        Ok(Load { child, counts })
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// Waits for the next line.
    pub async fn next(&mut self) -> Result<Counts, String> {
        self.counts.changed().await.map_err(|_| "the load has ended by itself".to_owned())?;
        Ok(self.counts())
    }

    /// Waits for so many lines.
    pub async fn seconds(&mut self, seconds: u32) -> Result<Counts, String> {
        for _ in 0..seconds {
            self.next().await?;
        }
        Ok(self.counts())
    }

    /// Waits until everything that was sent before now has been answered, or given up.
    pub async fn settled(&mut self) -> Result<Counts, String> {
        let sent = self.counts().sent;
        loop {
            let counts = self.next().await?;
            if counts.ok + counts.failed >= sent && counts.in_flight < counts.answered.max(1) {
                return Ok(counts);
            }
        }
    }

    /// Ends it: what is in flight is answered first.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await;
    }
}

impl Counts {
    /// What has happened since `before`.
    pub fn since(&self, before: &Counts) -> Difference {
        let more = |(reason, count): (&String, &u64)| {
            let new = count - before.reasons.get(reason).copied().unwrap_or_default();
            (new > 0).then(|| (reason.clone(), new))
        };
        Difference {
            sent: self.sent - before.sent,
            failed: self.failed - before.failed,
            reasons: self.reasons.iter().filter_map(more).collect(),
            repeated: self.repeated - before.repeated,
        }
    }
}

async fn read(output: ChildStdout, counts: watch::Sender<Counts>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(new) = serde_json::from_str(&line) {
            counts.send_replace(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_only_what_is_new() {
        let line = |text: &str| serde_json::from_str::<Counts>(text).unwrap();
        let before = line(r#"{"second":1,"sent":10,"failed":2,"reasons":{"500":2},"repeated":1}"#);
        let after = line(r#"{"second":2,"sent":30,"failed":5,"reasons":{"500":2,"timeout":3},"repeated":1}"#);
        let seen = after.since(&before);
        assert_eq!((seen.sent, seen.failed, seen.repeated), (20, 3, 0));
        assert_eq!(seen.reasons, BTreeMap::from([("timeout".to_owned(), 3)]));
    }
}
