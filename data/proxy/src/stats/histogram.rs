//! A latency histogram with fixed buckets.

use super::counter::Counter;

/// The buckets are those in which the control plane is told.
use weir_model::health::latency_bucket;
pub use weir_model::health::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};

/// Counts by latency, with one writer.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Counter; LATENCY_BUCKETS],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| Counter::default()), sum_us: Counter::default() }
    }
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub(crate) fn record(&self, micros: u64) {
        self.buckets[latency_bucket(micros)].inc();
        self.sum_us.add(micros);
    }

    /// Counts per bucket, not cumulative.
    pub(crate) fn counts(&self) -> [u64; LATENCY_BUCKETS] {
        std::array::from_fn(|index| self.buckets[index].get())
    }

    /// Sum of all durations.
    pub(crate) fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let histogram = Histogram::default();
        for micros in [1, 250, 251, 99_000_000] {
            histogram.record(micros);
        }
        assert_eq!(histogram.counts().iter().sum::<u64>(), 4);
        assert_eq!(histogram.counts()[LATENCY_BUCKETS - 1], 1);
        assert_eq!(histogram.sum_us(), 1 + 250 + 251 + 99_000_000);
    }
}
