//! What a proxy is told once, at start.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::stats::Span;

/// Start options of a [`Proxy`](crate::Proxy).
#[derive(Debug)]
pub struct Options {
    /// Worker threads, each with its own listeners, pools and counters (default 1).
    pub workers: usize,
    /// The version this proxy reports of itself (default: the crate's).
    pub release: String,
    /// A deliberate fault in the request path, announced loudly. Off by default.
    pub drill: Option<Drill>,
    /// Listening sockets that were handed over by the parent process, by listener name.
    pub inherited: InheritedSockets,
    /// Where access log lines go, for listeners that ask for them (default: standard output).
    pub access_log: AccessLog,
    /// Where finished spans of sampled traces go; a full channel drops and counts.
    pub spans: Option<SyncSender<Span>>,
    /// How long requests get to finish when it drains; `None`: as the configuration says.
    pub drain_time: Option<Duration>,
    /// How long callers get to learn of it before that (default 0).
    pub goodbye_time: Duration,
    /// Share of the traces begun here that are sampled, 0 to 1 (default 0.01); without `spans` none are. A caller's own
    /// decision is kept.
    pub trace_ratio: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 1,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            drill: None,
            inherited: InheritedSockets::default(),
            access_log: AccessLog::Stdout,
            spans: None,
            drain_time: None,
            goodbye_time: Duration::ZERO,
            trace_ratio: 0.01,
        }
    }
}

/// Where access log lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    #[default]
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// A fault on purpose: this share of inbound requests is answered 500 before reaching the application.
///
/// For exercising the machinery that must notice a bad proxy version: it passes the start-up self-check and harms
/// traffic. It is logged at start and every minute, exported as `weir_drill_active 1`, and shown by `/ready`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drill {
    /// Share of inbound requests to fail, 0 to 1.
    pub fail_ratio: f64,
}

/// Why an option's text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The drill is not `fail-ratio=SHARE`.
    #[error("drill `{0}` is not understood: use fail-ratio=SHARE with a share between 0 and 1, e.g. fail-ratio=0.2")]
    Drill(String),
    /// The environment promises sockets that cannot be taken.
    #[error("{variable}={value} does not describe inherited sockets: {reason}")]
    Inherited {
        /// Name of the environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl std::str::FromStr for Drill {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let share = text.strip_prefix("fail-ratio=").and_then(|share| share.parse().ok());
        match share {
            Some(fail_ratio) if (0.0..=1.0).contains(&fail_ratio) => Ok(Drill { fail_ratio }),
            _ => Err(OptionsError::Drill(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Drill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fail-ratio={}", self.fail_ratio)
    }
}

/// Listening sockets passed by a parent process by systemd's socket activation protocol (`sd_listen_fds(3)`):
/// descriptors from 3 on, counted by `LISTEN_FDS`, named by `LISTEN_FDNAMES`, meant for process `LISTEN_PID`.
///
/// A listener whose name is among them accepts on that socket instead of binding its own, so that connections which
/// arrive while a proxy is being replaced wait in the kernel's backlog.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    by_name: HashMap<String, OwnedFd>,
}

/// `SD_LISTEN_FDS_START` of `sd-daemon.h`.
const FIRST_INHERITED: RawFd = 3;
/// More descriptors than any parent passes; a larger count is a mistake.
const MAX_INHERITED: usize = 1024;

impl InheritedSockets {
    /// Takes the sockets which the environment announces to this process; none if it announces none.
    ///
    /// Call it once, first thing in `main`: afterwards the descriptors belong to the returned value.
    ///
    /// # Errors
    /// If the variables are malformed; an announcement meant for another process is ignored, as the protocol asks.
    pub fn from_env() -> Result<Self, OptionsError> {
        let Ok(count) = std::env::var("LISTEN_FDS") else {
            return Ok(Self::default());
        };
        if !meant_for_us()? {
            return Ok(Self::default());
        }
        let count = parse_count(&count)?;
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Ok(Self::take(count, &names))
    }

    /// Sockets given by the caller, by listener name.
    pub fn from_fds(sockets: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        InheritedSockets { by_name: sockets.into_iter().collect() }
    }

    fn take(count: usize, names: &str) -> Self {
        let mut names = names.split(':');
        let by_name = (0..count)
            .map(|index| {
                let fd = FIRST_INHERITED + index as RawFd;
                let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
                // SAFETY: the protocol makes descriptors 3..3+count ours, and `from_env` is called once, before anything
                // else in this process opened or took a descriptor.
                (name.to_owned(), unsafe { OwnedFd::from_raw_fd(fd) })
            })
            .collect();
        InheritedSockets { by_name }
    }

    /// Names of the sockets, for logs and the admin endpoint.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The socket for a listener.
    pub(crate) fn get(&self, listener: &str) -> Option<&OwnedFd> {
        self.by_name.get(listener)
    }
}

fn meant_for_us() -> Result<bool, OptionsError> {
    let Ok(pid) = std::env::var("LISTEN_PID") else {
        return Ok(true);
    };
    match pid.parse::<u32>() {
        Ok(parsed) => Ok(parsed == std::process::id()),
        Err(_) => Err(OptionsError::Inherited { variable: "LISTEN_PID", value: pid, reason: "it is not a process id" }),
    }
}

fn parse_count(text: &str) -> Result<usize, OptionsError> {
    match text.parse() {
        Ok(count) if count <= MAX_INHERITED => Ok(count),
        _ => Err(OptionsError::Inherited {
            variable: "LISTEN_FDS",
            value: text.to_owned(),
            reason: "it is not a count between 0 and 1024",
        }),
    }
}

/// How to end a proxy's traffic without a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainOptions {
    /// Keep accepting for this long after the announcement, since callers still learn of it (default 0: inherited
    /// sockets need none, for connections wait in their backlog).
    pub grace: Duration,
    /// Connections without a request are closed after having been quiet for this long (default 500 ms).
    pub quiet: Duration,
    /// What is not finished by then is cut (default 30 s, counted from the call).
    pub deadline: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        DrainOptions { grace: Duration::ZERO, quiet: Duration::from_millis(500), deadline: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_a_share() {
        assert_eq!("fail-ratio=0.2".parse(), Ok(Drill { fail_ratio: 0.2 }));
        for wrong in ["", "0.2", "fail-ratio=", "fail-ratio=1.1", "fail-ratio=-1", "fail-ratio=NaN", "slow=1"] {
            assert!(wrong.parse::<Drill>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_count_of_sockets_is_told() {
        assert_eq!(parse_count("2"), Ok(2));
        assert!(parse_count("-1").unwrap_err().to_string().contains("LISTEN_FDS=-1"));
    }
}
