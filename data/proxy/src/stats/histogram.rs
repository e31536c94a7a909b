//! A latency histogram with fixed buckets.

use super::counter::Counter;

/// Upper bounds of the latency buckets in microseconds; one more bucket holds what is above the last.
pub const LATENCY_BOUNDS_US: [u64; LATENCY_BUCKETS - 1] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_000_000, 2_000_000,
    4_000_000, 8_000_000, 16_000_000,
];

/// Number of latency buckets.
pub const LATENCY_BUCKETS: usize = 18;

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
        self.buckets[bucket(micros)].inc();
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

/// The first bucket whose bound is at least `micros` (a bound belongs to its bucket, as in Prometheus's `le`).
#[inline]
fn bucket(micros: u64) -> usize {
    LATENCY_BOUNDS_US.partition_point(|&bound| bound < micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        assert_eq!(bucket(0), 0);
        for (index, &bound) in LATENCY_BOUNDS_US.iter().enumerate() {
            assert_eq!(bucket(bound), index);
            assert_eq!(bucket(bound + 1), index + 1);
        }
    }

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
