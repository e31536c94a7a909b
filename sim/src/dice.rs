//! Seeded chance.

/// A source of chance; the same seed gives the same world.
#[derive(Debug, Clone)]
pub struct Dice(fastrand::Rng);

/// Above this mean a Poisson number is drawn as a rounded normal one.
const NORMAL_FROM: f64 = 12.0;

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(fastrand::Rng::with_seed(seed))
    }

    /// Another source, independent of how much is drawn from this one.
    pub fn fork(&mut self) -> Dice {
        Dice(self.0.fork())
    }

    /// In [0, 1).
    pub fn share(&mut self) -> f64 {
        self.0.f64()
    }

    /// In [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.f64()
    }

    /// In [low, high].
    pub fn whole(&mut self, low: i64, high: i64) -> i64 {
        self.0.i64(low..=high)
    }

    /// True with the chance given.
    pub fn chance(&mut self, chance: f64) -> bool {
        self.0.f64() < chance
    }

    /// One of them.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.0.usize(..items.len())]
    }

    /// A standard normal number (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.0.f64()).cos()
    }

    /// Lognormal with this median.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Poisson with this mean (Knuth's product where the mean is small).
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean >= NORMAL_FROM {
            return (mean + mean.sqrt() * self.normal() + 0.5).max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.0.f64(), 0);
        while product > limit {
            product *= self.0.f64();
            count += 1;
        }
        count
    }
}

/// The chance that a standard normal number is at most `x` (Abramowitz and Stegun 7.1.26, error below 1.5e-7).
pub fn normal_below(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let erf = 1.0 - poly.iter().rev().fold(0.0, |sum, c| (sum + c) * t) * (-z * z).exp();
    if x < 0.0 { 0.5 * (1.0 - erf) } else { 0.5 * (1.0 + erf) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..20).map(|n| dice.poisson(f64::from(n))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn poisson_has_its_mean() {
        let mut dice = Dice::new(1);
        for mean in [0.05, 3.0, 40.0] {
            let sum: u64 = (0..20_000).map(|_| dice.poisson(mean)).sum();
            let found = sum as f64 / 20_000.0;
            assert!((found - mean).abs() < 5.0 * (mean / 20_000.0).sqrt(), "{found} is not {mean}");
        }
    }

    #[test]
    fn the_normal_distribution_at_known_places() {
        for (x, p) in [(0.0, 0.5), (1.0, 0.841_344_7), (-2.326_348, 0.01)] {
            assert!((normal_below(x) - p).abs() < 1e-6, "{x}");
        }
    }
}
