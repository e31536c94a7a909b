//! What a connection may cost.

use std::time::{Duration, Instant};

use crate::frame::DEFAULT_MAX_FRAME_BYTES;

/// What is offered to a peer, and what is taken from it at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Streams the peer may have open at a time; more are refused. It counts those that have ended for the peer while
    /// their task still runs, so opening and resetting gains nothing (CVE-2023-44487).
    pub max_streams: usize,
    /// Largest header list: names, values and 32 bytes for each field (RFC 9113 section 6.5.2).
    pub max_header_list_bytes: usize,
    /// What a stream may have in flight towards us, bytes; that much is held at most. Not below 65,535.
    pub stream_window_bytes: u32,
    /// The same over all streams. Not below 65,535.
    pub connection_window_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_streams: 100,
            max_header_list_bytes: 64 * 1024,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
        }
    }
}

/// Data is framed while less than this waits for the socket, bytes.
pub(crate) const OUT_BYTES: usize = 64 * 1024;
/// While more than this waits for the socket, nothing is read, bytes: what a peer does not take are answers to what it sends.
pub(crate) const MAX_WAITING: usize = 4 * OUT_BYTES;
/// A compressed header block may be twice the list it stands for, and a frame more: one-byte fields are as long as that
/// in no sound encoding. It bounds what CONTINUATION frames pile up (CVE-2024-27316).
pub(crate) fn max_block_bytes(config: &Config) -> usize {
    2 * config.max_header_list_bytes + DEFAULT_MAX_FRAME_BYTES
}

/// Streams that we reset and for which frames may still be under way.
pub(crate) const MAX_REMEMBERED_RESETS: usize = 64;
/// Streams of ours that the peer may have open before it has told its limit.
pub(crate) const STREAMS_BEFORE_SETTINGS: usize = 100;

/// Frames that may come at once and achieve nothing: pings, settings, empty data, priorities, unknown frames.
pub(crate) const NUISANCES: Allowance = Allowance { burst: 1000, per_second: 50 };
/// Streams that may be reset at once, by the peer or by us for what it did (CVE-2023-44487, CVE-2025-8671).
pub(crate) const RESETS: Allowance = Allowance { burst: 500, per_second: 50 };

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// What is left of an allowance. It grows with time, and with what a peer does that is of use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    allowance: Allowance,
    left: u32,
    at: Option<Instant>,
}

impl Bucket {
    pub(crate) fn new(allowance: Allowance) -> Self {
        Bucket { allowance, left: allowance.burst, at: None }
    }

    /// Takes one; false if none is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            self.refill(now);
        }
        self.at.get_or_insert(now);
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    /// Puts some back.
    pub(crate) fn give(&mut self, n: u32) {
        self.left = (self.left + n).min(self.allowance.burst);
    }

    fn refill(&mut self, now: Instant) {
        let Some(at) = self.at else { return };
        let elapsed = now.saturating_duration_since(at).min(Duration::from_secs(3600));
        let grown = elapsed.as_millis() as u64 * u64::from(self.allowance.per_second) / 1000;
        if grown > 0 {
            self.at = Some(now);
            self.give(grown as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_grows_with_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Allowance { burst: 10, per_second: 5 });
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        assert!(!bucket.take(start + Duration::from_millis(199)));
        assert!(bucket.take(start + Duration::from_millis(200)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 10);
        bucket.give(3);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 3);
    }
}
