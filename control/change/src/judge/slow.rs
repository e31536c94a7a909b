//! Slow requests: those above what was the 99th percentile on the side that changed instances are compared with, before
//! they are counted.
//!
//! Proxies report latencies in buckets ([`LATENCY_BOUNDS_US`]), so the limit is the bound whose tail comes nearest to one
//! percent. It is fixed before the windows that it is applied to, which keeps the test anytime-valid; a batch keeps
//! its limit, the next one takes its own.

use weir_model::health::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};

use super::Seen;

/// Requests of the other side that must be known before a limit is set.
pub const LIMIT_FROM_REQUESTS: u64 = 500;
/// The share of requests that should be above the limit.
const WANTED_TAIL: f64 = 0.01;
/// A larger share than this is no tail.
const LARGEST_TAIL: f64 = 0.1;

/// Adds one histogram to another; one that is not of the agreed shape is left out.
pub(super) fn add(sum: &mut Vec<u64>, latency: &[u64]) {
    if latency.len() != LATENCY_BUCKETS {
        return;
    }
    sum.resize(LATENCY_BUCKETS, 0);
    sum.iter_mut().zip(latency).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
}

/// Requests, and those above `limit` microseconds.
pub(super) fn count(latency: &[u64], limit: u64) -> Seen {
    if latency.len() != LATENCY_BUCKETS {
        return Seen::default();
    }
    let above = LATENCY_BOUNDS_US.partition_point(|bound| *bound <= limit);
    Seen { requests: latency.iter().sum(), events: latency[above..].iter().sum() }
}

/// The bound whose tail is nearest to one percent, once enough is known.
pub(super) fn limit(latency: &[u64]) -> Option<u64> {
    let requests: u64 = latency.iter().sum();
    if requests < LIMIT_FROM_REQUESTS {
        return None;
    }
    let tail = |bound: u64| (count(latency, bound).events as f64 + 0.5) / (requests as f64 + 1.0);
    let distance = |bound: u64| (tail(bound) / WANTED_TAIL).ln().abs();
    let bounds = LATENCY_BOUNDS_US.iter().copied().filter(|bound| tail(*bound) <= LARGEST_TAIL);
    bounds.min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(u64, u64)]) -> Vec<u64> {
        let mut latency = vec![0; LATENCY_BUCKETS];
        counts.iter().for_each(|(micros, count)| latency[weir_model::health::latency_bucket(*micros)] += count);
        latency
    }

    #[test]
    fn the_limit_is_where_the_tail_is_nearest_to_a_hundredth() {
        let latency = histogram(&[(900, 900), (1_900, 88), (4_900, 11), (9_000, 1)]);
        assert_eq!(limit(&latency), Some(2_000));
        assert_eq!(count(&latency, 2_000), Seen { requests: 1_000, events: 12 });
        assert_eq!(limit(&histogram(&[(900, 499)])), None);
        assert_eq!(limit(&histogram(&[(900, 1_000)])), Some(1_000));
        assert_eq!(limit(&histogram(&[(20_000_000, 1_000)])), None, "everything is beyond the last bound");
    }

    #[test]
    fn a_histogram_of_another_shape_is_left_out() {
        let mut sum = Vec::new();
        add(&mut sum, &[1, 2, 3]);
        assert!(sum.is_empty());
        assert_eq!(count(&[1, 2, 3], 100), Seen::default());
    }
}
