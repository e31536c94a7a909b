//! Sums of requests over time, coarser the longer ago.

use jiff::Timestamp;
use weir_model::slo::Sum;

/// Width of a sum (seconds), and how many are kept: minutes for an hour's alerts, then five minutes, hours, days.
const RINGS: [(i64, usize); 4] = [(60, 12), (300, 75), (3_600, 74), (86_400, 32)];

/// All requests and the bad ones, by time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    /// As many as [`RINGS`], each oldest first.
    rings: [Vec<Sum>; RINGS.len()],
}

impl Series {
    /// From what a status has kept; what is of another shape is left out.
    pub fn restore(sums: &[Vec<Sum>]) -> Series {
        let mut series = Series::default();
        for ((ring, kept), (width, room)) in series.rings.iter_mut().zip(sums).zip(RINGS) {
            let legal = |s: &&Sum| s.0.rem_euclid(width) == 0 && s.2 <= s.1;
            ring.extend(kept.iter().filter(legal).copied());
            ring.sort_by_key(|s| s.0);
            ring.dedup_by_key(|s| s.0);
            ring.drain(..ring.len().saturating_sub(room));
        }
        series
    }

    /// As a status keeps them.
    pub fn sums(&self) -> Vec<Vec<Sum>> {
        if self.rings.iter().all(Vec::is_empty) { Vec::new() } else { self.rings.to_vec() }
    }

    /// Counts requests of this moment. A clock that has gone back counts into the newest sum.
    pub fn add(&mut self, at: Timestamp, requests: u64, bad: u64) {
        if requests == 0 {
            return;
        }
        for (ring, (width, room)) in self.rings.iter_mut().zip(RINGS) {
            let start = at.as_second().div_euclid(width) * width;
            match ring.last_mut().filter(|last| last.0 >= start) {
                Some(last) => (last.1, last.2) = (last.1.saturating_add(requests), last.2.saturating_add(bad)),
                None => ring.push(Sum(start, requests, bad)),
            }
            ring.drain(..ring.len().saturating_sub(room));
        }
    }

    /// Requests of about the last `seconds`, all and bad, from the finest sums that reach back so far.
    pub fn sum(&self, seconds: u64, now: Timestamp) -> (u64, u64) {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let reaches = |(width, room): (i64, usize)| width.saturating_mul(room as i64 - 1) >= seconds;
        let fit = RINGS.iter().position(|ring| reaches(*ring)).unwrap_or(RINGS.len() - 1);
        let (width, since) = (RINGS[fit].0, now.as_second().saturating_sub(seconds));
        let within = self.rings[fit].iter().filter(|s| s.0 + width > since);
        within.fold((0, 0), |(requests, bad), s| (requests + s.1, bad + s.2))
    }
}
