//! How long requests take: lognormal, as counts per bucket of the proxy's histogram.

use weir_model::health::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};

use crate::dice::{Dice, normal_below};

/// Buckets less likely than this are left empty.
const NEGLIGIBLE: f64 = 1e-6;

/// A distribution of latencies.
#[derive(Debug, Clone)]
pub struct Latency {
    chances: Vec<(usize, f64)>,
}

impl Latency {
    /// Lognormal with this median (microseconds).
    pub fn new(median_us: f64, sigma: f64) -> Latency {
        let below = |bound: f64| normal_below((bound / median_us).ln() / sigma);
        let mut from = 0.0;
        let mut chances = Vec::new();
        for bucket in 0..LATENCY_BUCKETS {
            let to = LATENCY_BOUNDS_US.get(bucket).map_or(1.0, |bound| below(*bound as f64));
            if to - from > NEGLIGIBLE {
                chances.push((bucket, to - from));
            }
            from = to;
        }
        Latency { chances }
    }

    /// So many requests, on average, by bucket.
    pub fn draw(&self, requests: u64, dice: &mut Dice) -> Vec<u64> {
        let mut counts = vec![0; LATENCY_BUCKETS];
        for (bucket, chance) in &self.chances {
            counts[*bucket] = dice.poisson(requests as f64 * chance);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_requests_are_below_the_median() {
        let counts = Latency::new(5_000.0, 0.6).draw(100_000, &mut Dice::new(1));
        let below: u64 = counts[..=6].iter().sum();
        assert!((49_000..51_000).contains(&below), "{below}");
    }
}
