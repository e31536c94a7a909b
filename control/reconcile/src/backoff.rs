//! How long to wait after the n-th failure in a row.

use std::time::Duration;

/// Exponential backoff with full jitter: a random time up to `base * 2^(n-1)`, at most `cap`. Full jitter spreads those
/// that failed together over the whole interval (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
/// Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper end of the first delay.
    pub base: Duration,
    /// Upper end of any delay.
    pub cap: Duration,
    /// A change to a failing resource cuts its delay short, but not below this.
    pub floor: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(60), floor: Duration::from_secs(1) }
    }
}

impl Backoff {
    /// The delay after `failures` (from 1) in a row.
    pub fn delay(&self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        self.ceiling(failures).mul_f64(random.f64())
    }

    fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff::default();
        let ceilings: Vec<u128> = [1, 2, 3, 9, 10, u32::MAX].map(|n| backoff.ceiling(n).as_millis()).into();
        assert_eq!(ceilings, [200, 400, 800, 51_200, 60_000, 60_000]);
    }

    #[test]
    fn delays_spread_over_the_whole_interval() {
        let mut random = fastrand::Rng::with_seed(1);
        let delays: Vec<Duration> = (0..1_000).map(|_| Backoff::default().delay(3, &mut random)).collect();
        assert!(delays.iter().all(|d| *d <= Duration::from_millis(800)));
        assert!(delays.iter().any(|d| *d < Duration::from_millis(40)));
        assert!(delays.iter().any(|d| *d > Duration::from_millis(760)));
    }
}
