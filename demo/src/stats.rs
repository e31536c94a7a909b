//! Counts of a load, and its latencies in buckets an eighth of a doubling wide (at most 9 % off).

use std::collections::BTreeMap;

use serde::Serialize;

/// Buckets per doubling.
const PER_DOUBLING: f64 = 8.0;
/// The last bucket begins above an hour.
const BUCKETS: usize = 256;

/// What became of all requests so far; one line of the load's output.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Seconds since the load began.
    pub second: u64,
    /// Requests sent so far.
    pub sent: u64,
    /// Of those, answered with a status below 500.
    pub ok: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Why they failed: a status, `connect`, `reset`, `timeout`, `overload`.
    pub reasons: BTreeMap<String, u64>,
    /// Requests repeated on a new connection because a kept one had been closed. Each counts once in `sent`.
    pub repeated: u64,
    /// Not answered yet.
    pub in_flight: u64,
    /// Answered since the line before.
    pub answered: u64,
    /// Median latency since the line before, microseconds from the moment at which the request was due.
    pub p50_us: u64,
    /// 99th percentile likewise.
    pub p99_us: u64,
    /// The longest likewise.
    pub max_us: u64,
    /// The last line: everything has been answered, or given up.
    pub last: bool,
}

/// Counts so far.
#[derive(Debug, Default)]
pub struct Stats {
    line: Line,
    window: Histogram,
}

impl Stats {
    /// A request goes out.
    pub fn sent(&mut self) {
        self.line.sent += 1;
        self.line.in_flight += 1;
    }

    /// An answer came.
    pub fn answered(&mut self, status: u16, repeated: bool, micros: u64) {
        self.line.repeated += u64::from(repeated);
        self.window.record(micros);
        if status < 500 {
            self.line.in_flight -= 1;
            self.line.ok += 1;
        } else {
            self.failed(&status.to_string());
        }
    }

    /// It failed.
    pub fn failed(&mut self, reason: &str) {
        self.line.in_flight -= 1;
        self.line.failed += 1;
        *self.line.reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// Not answered yet.
    pub fn in_flight(&self) -> u64 {
        self.line.in_flight
    }

    /// The line at `second`; begins a new window.
    pub fn line(&mut self, second: u64, last: bool) -> Line {
        let window = std::mem::take(&mut self.window);
        Line {
            second,
            last,
            answered: window.count,
            p50_us: window.quantile(0.5),
            p99_us: window.quantile(0.99),
            max_us: window.max,
            ..self.line.clone()
        }
    }
}

#[derive(Debug)]
struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS], count: 0, max: 0 }
    }
}

impl Histogram {
    fn record(&mut self, micros: u64) {
        let bucket = ((micros.max(1) as f64).log2() * PER_DOUBLING) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Upper bound of the bucket in which the quantile lies; 0 if nothing was recorded.
    fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return (((bucket + 1) as f64 / PER_DOUBLING).exp2() as u64).min(self.max);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|micros| histogram.record(micros));
        assert!((500..=545).contains(&histogram.quantile(0.5)), "{}", histogram.quantile(0.5));
        assert!((990..=1000).contains(&histogram.quantile(0.99)), "{}", histogram.quantile(0.99));
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }

    #[test]
    fn every_request_ends_once() {
        let mut stats = Stats::default();
        (0..3).for_each(|_| stats.sent());
        stats.answered(200, true, 10);
        stats.answered(503, false, 10);
        stats.failed("timeout");
        let line = stats.line(1, true);
        assert_eq!((line.sent, line.ok, line.failed, line.in_flight, line.repeated), (3, 1, 2, 0, 1));
        assert_eq!(line.reasons["503"] + line.reasons["timeout"], 2);
    }
}
