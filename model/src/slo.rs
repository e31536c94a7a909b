//! Slo: what an app promises its callers, and how much of what may go wrong has gone wrong.
//!
//! The error budget is the share of requests that may be bad: 0.1 % for an objective of 99.9 %. A burn rate of 1 spends it
//! exactly over the window; alerts are those of "The Site Reliability Workbook", chapter 5: a long and a short window
//! must both burn faster than their threshold.

mod rules;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health::LATENCY_BOUNDS_US;
use crate::kind::Kind;
use crate::object::{Resource, Spec};
use crate::validate::Validator;

pub use rules::rules;

/// An objective of an app.
pub type Slo = Resource<SloSpec>;

/// What is promised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SloSpec {
    /// The app that promises it.
    pub app: String,
    /// Share of requests that are good, in percent; below 100.
    pub objective_percent: f64,
    /// Over how many days, 1 to 30.
    #[serde(default = "thirty")]
    pub window_days: u32,
    /// Which requests are good.
    #[serde(default)]
    pub indicator: Indicator,
    /// Fewer requests than this in the long window of an alert, or of the budget, say nothing.
    #[serde(default = "hundred")]
    pub min_requests: u64,
}

fn thirty() -> u32 {
    30
}

fn hundred() -> u64 {
    100
}

/// Which requests are good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Indicator {
    /// Those that did not fail (5xx, reset, gRPC server error).
    #[default]
    Errors,
    /// Those that took at most so long, and one bound of the proxies' histograms must be just that.
    #[serde(rename_all = "camelCase")]
    Latency {
        /// In microseconds.
        threshold_us: u64,
    },
}

/// What is measured of an objective.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SloStatus {
    /// Share of the error budget that is left, at most 1; below 0: overspent. Absent: too few requests to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_left: Option<f64>,
    /// Requests in the window.
    pub requests: u64,
    /// Of those, bad.
    pub bad: u64,
    /// Burn rates, the shortest window first.
    pub burns: Vec<Burn>,
    /// How fast it burns.
    pub alert: Alert,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_since: Option<Timestamp>,
    /// In words.
    pub message: String,
    /// When it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<Timestamp>,
    /// What is counted, in words; sums of anything else are forgotten.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub measures: String,
    /// Sums by time, finest first, kept so that a restart does not lose them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Vec<Sum>>,
}

/// How fast an error budget is spent over a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Burn {
    /// Length of the window (seconds).
    pub window_seconds: u64,
    /// 1 spends the budget exactly over the objective's window.
    pub rate: f64,
    /// Requests in it.
    pub requests: u64,
}

/// Requests of a span of time: its beginning (seconds since 1970), all, and the bad ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sum(pub i64, pub u64, pub u64);

/// How urgent it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Alert {
    /// Nothing to do.
    #[default]
    None,
    /// Somebody should look within days.
    Ticket,
    /// Somebody should look now.
    Page,
}

/// When an alert fires: the budget burns at least so fast in a long and a short window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// How urgent that is.
    pub alert: Alert,
    /// Burn rate, for an objective over 30 days.
    pub rate: f64,
    /// Long window (seconds).
    pub long: u64,
    /// Short window (seconds): the alert ends soon after the burning has.
    pub short: u64,
}

const HOUR: u64 = 3_600;

/// The workbook's, the most urgent first.
pub const THRESHOLDS: [Threshold; 4] = [
    Threshold { alert: Alert::Page, rate: 14.4, long: HOUR, short: 300 },
    Threshold { alert: Alert::Page, rate: 6.0, long: 6 * HOUR, short: 1_800 },
    Threshold { alert: Alert::Ticket, rate: 3.0, long: 24 * HOUR, short: 2 * HOUR },
    Threshold { alert: Alert::Ticket, rate: 1.0, long: 72 * HOUR, short: 6 * HOUR },
];

/// Every window of [`THRESHOLDS`], the shortest first (seconds).
pub const BURN_WINDOWS: [u64; 7] = [300, 1_800, HOUR, 2 * HOUR, 6 * HOUR, 24 * HOUR, 72 * HOUR];

impl SloSpec {
    /// Share of requests that may be bad.
    pub fn budget(&self) -> f64 {
        (100.0 - self.objective_percent) / 100.0
    }
}

impl Spec for SloSpec {
    const KIND: Kind = Kind::Slo;
    type Status = SloStatus;

    fn validate(&self, v: &mut Validator) {
        v.name("app", &self.app);
        v.range("objectivePercent", self.objective_percent, 1.0, 99.9999);
        v.range("windowDays", self.window_days, 1, 30);
        if let Indicator::Latency { threshold_us } = self.indicator {
            let nearest = LATENCY_BOUNDS_US.iter().min_by_key(|b| b.abs_diff(threshold_us)).copied().unwrap_or(0);
            if nearest != threshold_us {
                let message = format!("{threshold_us} is no bound of the proxies' histograms");
                v.error_with_hint("indicator.latency.thresholdUs", message, format!("the nearest is {nearest}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn read(spec: &str) -> Result<Slo, String> {
        let text = format!("apiVersion: weir.dev/v1\nkind: Slo\nmetadata: {{name: s}}\nspec: {spec}\n");
        let objects = parse::objects(&text).map_err(|e| e.to_string())?;
        objects.into_iter().next().ok_or("none")?.try_into().map_err(|e: crate::Invalid| e.to_string())
    }

    #[test]
    fn an_objective_reads_as_people_write_it() {
        let slo = read("{app: stock, objectivePercent: 99.9}").unwrap().spec;
        assert_eq!((slo.window_days, slo.indicator, slo.min_requests), (30, Indicator::Errors, 100));
        assert!((slo.budget() - 0.001).abs() < 1e-12);
        let slow = read("{app: stock, objectivePercent: 99, indicator: {latency: {thresholdUs: 250000}}}").unwrap();
        assert_eq!(slow.spec.indicator, Indicator::Latency { threshold_us: 250_000 });
    }

    #[test]
    fn what_can_not_be_measured_is_refused() {
        let wrong = read("{app: stock, objectivePercent: 99, indicator: {latency: {thresholdUs: 200000}}}");
        assert!(wrong.unwrap_err().contains("the nearest is 250000"));
        for spec in ["{app: stock, objectivePercent: 100}", "{app: stock, objectivePercent: 99, windowDays: 31}"] {
            assert!(read(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn every_window_of_a_threshold_is_measured() {
        let all = THRESHOLDS.iter().flat_map(|t| [t.long, t.short]);
        assert!(all.into_iter().all(|w| BURN_WINDOWS.contains(&w)));
    }
}
