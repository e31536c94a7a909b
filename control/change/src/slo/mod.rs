//! Objectives: how many requests of an app were good, how fast its error budget burns, and how much of it is left.
//!
//! Each proxy reports its windows by the second; here they are summed per objective ([`Series`]), finer for the last minutes
//! and coarser for the last weeks, so that an objective over 30 days takes a few kilobytes. The sums are kept in the
//! Slo's status: a restart loses what came in since the last minute.

mod controller;
mod series;

use jiff::Timestamp;
use weir_model::health::{LATENCY_BOUNDS_US, LATENCY_BUCKETS, Traffic};
use weir_model::slo::{Alert, BURN_WINDOWS, Burn, Indicator, SloSpec, SloStatus, THRESHOLDS};

pub use controller::SloController;
pub use series::Series;

/// All requests of a window, and the bad ones.
pub fn count(indicator: Indicator, traffic: &Traffic) -> (u64, u64) {
    match indicator {
        Indicator::Errors => (traffic.requests, traffic.errors),
        Indicator::Latency { threshold_us } if traffic.latency.len() == LATENCY_BUCKETS => {
            let slowest_good = LATENCY_BOUNDS_US.partition_point(|bound| *bound <= threshold_us);
            (traffic.latency.iter().sum(), traffic.latency[slowest_good..].iter().sum())
        }
        Indicator::Latency { .. } => (0, 0),
    }
}

/// What the sums say of an objective.
pub fn measure(spec: &SloSpec, series: &Series, before: &SloStatus, now: Timestamp) -> SloStatus {
    let rate = |(requests, bad): (u64, u64)| {
        if requests == 0 { 0.0 } else { bad as f64 / requests as f64 / spec.budget() }
    };
    let burn = |window: u64| {
        let sums = series.sum(window, now);
        Burn { window_seconds: window, rate: rate(sums), requests: sums.0 }
    };
    let burns: Vec<Burn> = BURN_WINDOWS.iter().map(|window| burn(*window)).collect();
    let alert = alert(&burns, spec.min_requests);
    let (requests, bad) = series.sum(u64::from(spec.window_days) * 86_400, now);
    let budget_left = (requests >= spec.min_requests.max(1)).then(|| 1.0 - rate((requests, bad)));
    let same = before.alert == alert && before.alert_since.is_some();
    let mut status = SloStatus {
        budget_left,
        requests,
        bad,
        alert,
        alert_since: if same { before.alert_since } else { Some(now) },
        message: String::new(),
        measured_at: Some(now),
        measures: measures(spec),
        sums: series.sums(),
        burns,
    };
    status.message = words(spec, &status);
    status
}

/// What the sums are of: of another app or indicator they mean nothing.
pub(crate) fn measures(spec: &SloSpec) -> String {
    match spec.indicator {
        Indicator::Errors => format!("failed requests to {}", spec.app),
        Indicator::Latency { threshold_us } => {
            format!("requests to {} that took more than {threshold_us} µs", spec.app)
        }
    }
}

fn alert(burns: &[Burn], min_requests: u64) -> Alert {
    let burn = |window: u64| burns.iter().find(|b| b.window_seconds == window).copied().unwrap_or_default();
    let fires = |long: Burn, short: Burn, rate: f64| {
        long.rate >= rate && short.rate >= rate && long.requests >= min_requests.max(1)
    };
    let firing = THRESHOLDS.iter().filter(|t| fires(burn(t.long), burn(t.short), t.rate));
    firing.map(|t| t.alert).max().unwrap_or_default()
}

fn words(spec: &SloSpec, status: &SloStatus) -> String {
    let SloStatus { requests, bad, budget_left, .. } = status;
    let days = spec.window_days;
    let Some(left) = budget_left else {
        return format!("{requests} requests in {days} days: too few to say, {} are wanted", spec.min_requests);
    };
    let budget = match *left {
        left if left <= 0.0 => format!("the error budget is spent, and {:.0} % more", -left * 100.0),
        left => format!("{:.1} % of the error budget is left", left * 100.0),
    };
    let alert = match status.alert {
        Alert::None => "",
        Alert::Ticket => "; it burns faster than it should",
        Alert::Page => "; it burns at paging speed",
    };
    format!("{bad} of {requests} requests in {days} days were bad: {budget}{alert}")
}

#[cfg(test)]
mod tests;
