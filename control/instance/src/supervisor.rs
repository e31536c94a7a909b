//! What a supervisor (`weir run`) and those who give it orders say to each other.
//!
//! The supervisor listens on a unix socket in its own folder, open to its owner only. A peer sends one [`Request`] as a
//! line of JSON and gets one [`Reply`] as a line of JSON, any number of times per connection. Orders are level-triggered:
//! `swap` says which proxy is to run, not "restart"; giving the same order twice changes nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::provider::Artifact;

/// Name of the socket in the supervisor's folder.
pub const SOCKET: &str = "supervisor.sock";
/// Name of the file that the supervisor holds locked as long as it lives; it contains its process id.
pub const PID_FILE: &str = "supervisor.pid";
/// Name of the file that names the supervisor's children, for cleaning up after one that was killed.
pub const CHILDREN: &str = "children.json";
/// Longest line either side reads, bytes.
pub const MAX_LINE: u64 = 256 * 1024;
/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An order or a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase")]
pub enum Request {
    /// What runs?
    Status,
    /// This proxy is to run. A different one that runs is drained first.
    Swap(Artifact),
    /// No proxy is to run: the running one finishes what it has and ends. Connections wait until the next `swap`.
    Drain,
    /// Drain the proxy, stop the program, end.
    Stop,
}

/// The answer: the state after the order was taken, or why it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// Taken.
    Status(Box<Status>),
    /// Not taken, because.
    Error(String),
}

/// What a supervisor has running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of its instance.
    pub instance: String,
    /// Its own process id.
    pub pid: u32,
    /// The program, if it has one.
    pub app: Option<AppStatus>,
    /// The proxy.
    pub proxy: ProxyStatus,
    /// It is ending.
    pub stopping: bool,
}

/// The program beside the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// Process id.
    pub pid: u32,
    /// Since when.
    pub started_at: Timestamp,
    /// Release that runs; a supervisor of an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyStatus {
    /// What it is doing.
    pub state: ProxyState,
    /// Release that runs, or ran last; empty before the first.
    pub version: String,
    /// Release that is to run; empty: none, it has been drained.
    pub wanted: String,
    /// Process id, while it runs.
    pub pid: Option<u32>,
    /// Where its admin interface listens, while it runs.
    pub admin: Option<SocketAddr>,
    /// What went wrong or is awaited, in the words of its `/ready` where it answers.
    pub message: String,
    /// Times it ended unasked since it was last ready.
    pub crashes: u32,
}

/// What the proxy is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyState {
    /// None runs, as ordered.
    #[default]
    Stopped,
    /// It starts and checks itself, or waits to be started again.
    Starting,
    /// It serves.
    Ready,
    /// It finishes what it has.
    Draining,
    /// It does not become ready; the supervisor keeps trying.
    Failed,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The supervisor can't be reached or doesn't answer.
    #[error("the supervisor in {folder} does not answer: {source}")]
    Unreachable {
        /// Its folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It refused.
    #[error("the supervisor in {folder} refused: {reason}")]
    Refused {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Sends one request to the supervisor in `folder` and waits for the answer, [`PATIENCE`] at most.
///
/// # Errors
/// If it doesn't answer, or refuses.
pub async fn call(folder: &Path, request: &Request) -> Result<Status, CallError> {
    let timeout = io::Error::new(io::ErrorKind::TimedOut, "no answer in 5 s");
    let answer = tokio::time::timeout(PATIENCE, exchange(folder, request)).await.unwrap_or(Err(timeout));
    match answer {
        Ok(Reply::Status(status)) => Ok(*status),
        Ok(Reply::Error(reason)) => Err(CallError::Refused { folder: folder.to_owned(), reason }),
        Err(source) => Err(CallError::Unreachable { folder: folder.to_owned(), source }),
    }
}

async fn exchange(folder: &Path, request: &Request) -> io::Result<Reply> {
    let short = ShortPath::new(folder, SOCKET)?;
    let mut stream = UnixStream::connect(short.path()).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut answer).await?;
    Ok(serde_json::from_str(&answer)?)
}

/// True if a supervisor lives in `folder`: it holds the lock of its pid file, which the kernel lets go when it dies.
///
/// # Errors
/// If the pid file can't be opened for another reason than not being there.
pub fn alive(folder: &Path) -> io::Result<bool> {
    let file = match std::fs::File::open(folder.join(PID_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// A path to a file in a folder that fits a socket address (108 bytes, unix(7)) however deep the folder lies.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _folder: OwnedFd,
}

impl ShortPath {
    /// For `name` in `folder`.
    ///
    /// # Errors
    /// If the folder can't be opened.
    pub fn new(folder: &Path, name: &str) -> io::Result<ShortPath> {
        let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(ShortPath { path, _folder: folder })
    }

    /// Valid as long as this value lives, in this process.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let swap = r#"{"request":"swap","version":"B","path":"/usr/bin/weir-proxy"}"#;
        let Ok(Request::Swap(artifact)) = serde_json::from_str(swap) else { panic!("{swap}") };
        assert_eq!((artifact.version.as_str(), artifact.args.len()), ("B", 0));
        assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#"{"request":"status"}"#);
    }

    #[test]
    fn a_lock_tells_life() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!alive(folder.path()).unwrap(), "no file");
        let file = std::fs::File::create(folder.path().join(PID_FILE)).unwrap();
        assert!(!alive(folder.path()).unwrap(), "nobody holds it");
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(alive(folder.path()).unwrap());
        drop(file);
        assert!(!alive(folder.path()).unwrap(), "the holder is gone");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = call(folder.path(), &Request::Status).await.unwrap_err();
        assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    }
}
