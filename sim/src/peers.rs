//! Judges that others have published, in the same simulation, to compare with.
//!
//! Each looks at what the proxies of one app reported, changed ones against unchanged ones, while a batch was watched.
//! - **Fixed thresholds**, as in Flagger's documentation: each minute at least 99 % of requests succeed and the 99th
//!   percentile is at most 500 ms; five failed checks stop the change.
//! - **Mann-Whitney**, as Kayenta's `NetflixACAJudge` does it: outliers removed (beyond three interquartile ranges), a
//!   confidence interval of 98 % of the Hodges-Lehmann shift, which must lie above a quarter of the shift; one point for
//!   each ten seconds, since bakes are short here. Metrics: error ratio and mean latency; one that rises is a failure.

use std::collections::BTreeMap;

use weir_model::change::Batch;
use weir_model::health::{HealthWindow, LATENCY_BOUNDS_US};
use weir_store::observed::{Telemetry, TimedWindow};

use crate::mesh::{Mesh, NEW, OLD, moment};

/// Who judges a simulated change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Weir's own.
    Weir,
    /// Fixed thresholds.
    Fixed,
    /// A rank test with a band.
    MannWhitney,
}

impl Judge {
    /// All of them.
    pub const ALL: [Judge; 3] = [Judge::Weir, Judge::MannWhitney, Judge::Fixed];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Judge::Weir => "Weir",
            Judge::Fixed => "fixed thresholds",
            Judge::MannWhitney => "Mann-Whitney",
        }
    }
}

/// A published judge at work on one change.
#[derive(Debug)]
pub struct Peer {
    judge: Judge,
    failed_checks: usize,
}

const POINT_SECONDS: i64 = 10;
const CHECK_SECONDS: i64 = 60;
const LEAST_SUCCESS: f64 = 0.99;
const SLOWEST_P99_US: u64 = 500_000;
const FAILED_CHECKS: usize = 5;
const Z_98: f64 = 2.326_347_874;
const BAND: f64 = 0.25;
const OUTLIER_RANGES: f64 = 3.0;

impl Peer {
    /// None for Weir's own judge, which is in the executor.
    pub fn new(judge: Judge) -> Option<Peer> {
        (judge != Judge::Weir).then_some(Peer { judge, failed_checks: 0 })
    }

    /// What it says of a batch that was watched until now.
    pub fn fails(&mut self, batch: &Batch, mesh: &Mesh, telemetry: &Telemetry, now: i64) -> bool {
        let Some(since) = batch.baking_since else { return false };
        let from = now - moment(now).duration_since(since).as_secs();
        let seconds = if self.judge == Judge::Fixed { CHECK_SECONDS } else { POINT_SECONDS };
        let slots = Slots { from, seconds, count: ((now - from) / seconds).max(0) as usize };
        let mut found = false;
        for app in apps(batch, mesh) {
            let (treated, control) = slots.read(&app, mesh, telemetry);
            found |= match self.judge {
                Judge::Fixed => self.check(&treated),
                Judge::MannWhitney | Judge::Weir => differ(&treated, &control),
            };
        }
        found
    }

    fn check(&mut self, treated: &[Point]) -> bool {
        self.failed_checks += treated.iter().filter(|p| p.requests > 0 && !p.within()).count();
        self.failed_checks >= FAILED_CHECKS
    }
}

fn apps(batch: &Batch, mesh: &Mesh) -> Vec<String> {
    let members = batch.done.keys().filter_map(|n| Some(&mesh.world.members[mesh.index(n)?]));
    let mut apps: Vec<String> = members.map(|m| m.app.to_string()).collect();
    apps.sort();
    apps.dedup();
    apps
}

/// Stretches of time.
struct Slots {
    from: i64,
    seconds: i64,
    count: usize,
}

/// What one side showed in one stretch.
#[derive(Debug, Clone, Default)]
struct Point {
    requests: u64,
    errors: u64,
    latency: BTreeMap<usize, u64>,
}

impl Point {
    fn add(&mut self, window: &HealthWindow) {
        self.requests += window.inbound.requests;
        self.errors += window.inbound.errors;
        let counts = window.inbound.latency.iter().enumerate().filter(|(_, n)| **n > 0);
        counts.for_each(|(bucket, n)| *self.latency.entry(bucket).or_default() += n);
    }

    fn error_ratio(&self) -> f64 {
        self.errors as f64 / self.requests as f64
    }

    /// Requests stand in the middle of their bucket.
    fn mean_latency_us(&self) -> f64 {
        let bound = |bucket: usize| LATENCY_BOUNDS_US.get(bucket).copied().unwrap_or(20_000_000) as f64;
        let middle = |bucket: usize| if bucket == 0 { 50.0 } else { (bound(bucket - 1) + bound(bucket)) / 2.0 };
        let sum: f64 = self.latency.iter().map(|(bucket, n)| middle(*bucket) * *n as f64).sum();
        sum / self.latency.values().sum::<u64>().max(1) as f64
    }

    fn within(&self) -> bool {
        let slow: u64 = self.latency.iter().filter(|(b, _)| bound_of(**b) > SLOWEST_P99_US).map(|(_, n)| n).sum();
        1.0 - self.error_ratio() >= LEAST_SUCCESS && slow as f64 <= 0.01 * self.requests as f64
    }
}

fn bound_of(bucket: usize) -> u64 {
    LATENCY_BOUNDS_US.get(bucket).copied().unwrap_or(u64::MAX)
}

impl Slots {
    /// Changed instances and unchanged ones of an app.
    fn read(&self, app: &str, mesh: &Mesh, telemetry: &Telemetry) -> (Vec<Point>, Vec<Point>) {
        let (mut treated, mut control) = (vec![Point::default(); self.count], vec![Point::default(); self.count]);
        for member in mesh.world.members.iter().filter(|m| &*m.app == app) {
            for window in telemetry.windows(&member.name, moment(self.from)) {
                let side = if window.proxy_version == NEW { &mut treated } else { &mut control };
                self.put(&window, side);
            }
        }
        debug_assert_ne!(OLD, NEW);
        (treated, control)
    }

    fn put(&self, window: &TimedWindow, side: &mut [Point]) {
        let second = window.received.duration_since(moment(self.from)).as_secs() - 1;
        if let Some(point) = side.get_mut((second / self.seconds).max(0) as usize) {
            point.add(&window.window);
        }
    }
}

fn differ(treated: &[Point], control: &[Point]) -> bool {
    [Point::error_ratio, Point::mean_latency_us].into_iter().any(|metric| {
        let values = |points: &[Point]| -> Vec<f64> {
            without_outliers(points.iter().filter(|p| p.requests > 0).map(metric).collect())
        };
        rises(&values(treated), &values(control))
    })
}

fn without_outliers(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values.get(((values.len() as f64 - 1.0) * q).round() as usize).copied().unwrap_or(0.0);
    let (low, high) = (quantile(0.25), quantile(0.75));
    let reach = OUTLIER_RANGES * (high - low);
    let kept = |v: &&f64| reach == 0.0 || (**v >= low - reach && **v <= high + reach);
    values.iter().filter(kept).copied().collect()
}

/// The whole confidence interval of the shift is above a quarter of the shift.
pub(crate) fn rises(treated: &[f64], control: &[f64]) -> bool {
    if treated.is_empty() || control.is_empty() {
        return false;
    }
    let mut shifts: Vec<f64> = treated.iter().flat_map(|t| control.iter().map(move |c| t - c)).collect();
    shifts.sort_by(f64::total_cmp);
    let (m, n) = (treated.len() as f64, control.len() as f64);
    let below = m * n / 2.0 - Z_98 * (m * n * (m + n + 1.0) / 12.0).sqrt();
    if below < 0.0 {
        return false;
    }
    let estimate = shifts[shifts.len() / 2];
    shifts[below as usize] > BAND * estimate.abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// spinnaker/spinnaker#6278.
    #[test]
    fn the_rank_test_has_its_blind_spot() {
        let treated = [100.0, 100.0, 1.0, 100.0, 100.0, 1.0, 100.0, 100.0, 1.0, 100.0];
        assert!(!rises(&treated, &[1.0; 10]));
        assert!(rises(&[100.0; 10], &[1.0; 10]));
    }
}
