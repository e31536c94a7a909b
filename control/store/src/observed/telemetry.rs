//! Health windows of instances: what each proxy says of itself, and what its callers saw of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use weir_model::health::{EndpointTraffic, HealthWindow};

/// Windows kept per instance (about 15 minutes at one per second).
pub const MAX_WINDOWS: usize = 900;
/// Instances kept; reports of further ones are dropped.
pub const MAX_INSTANCES: usize = 500_000;

/// A window and when it arrived, by the control plane's clock; comparisons use only this clock.
#[derive(Debug, Clone)]
pub struct TimedWindow {
    /// Arrival.
    pub received: Timestamp,
    /// Release the reporter runs.
    pub proxy_version: String,
    /// What it says.
    pub window: HealthWindow,
}

/// What callers saw of one instance in about a second.
#[derive(Debug, Clone, Default)]
pub struct CallerView {
    /// Arrival of the first report in it.
    pub received: Timestamp,
    /// Finished requests.
    pub requests: u64,
    /// Of those, failed.
    pub errors: u64,
}

#[derive(Debug, Default)]
struct Series {
    windows: VecDeque<TimedWindow>,
    callers: VecDeque<CallerView>,
}

/// Rings of windows.
#[derive(Debug, Default)]
pub struct Telemetry {
    series: Mutex<HashMap<String, Series>>,
}

impl Telemetry {
    /// Takes a window of `instance`'s proxy.
    pub fn record(&self, instance: &str, window: TimedWindow) {
        self.with(instance, |series| push(&mut series.windows, window));
    }

    /// Takes what one caller saw of `instance`; reports within the same second are added up.
    pub fn record_caller(&self, instance: &str, received: Timestamp, seen: &EndpointTraffic) {
        self.with(instance, |series| {
            let same = |last: &&mut CallerView| last.received.as_second() == received.as_second();
            match series.callers.back_mut().filter(same) {
                Some(last) => {
                    last.requests += seen.requests;
                    last.errors += seen.errors;
                }
                None => {
                    let view = CallerView { received, requests: seen.requests, errors: seen.errors };
                    push(&mut series.callers, view);
                }
            }
        });
    }

    /// Windows of `instance` that arrived after `since`, oldest first.
    pub fn windows(&self, instance: &str, since: Timestamp) -> Vec<TimedWindow> {
        let series = self.lock();
        let Some(found) = series.get(instance) else { return Vec::new() };
        found.windows.iter().filter(|w| w.received > since).cloned().collect()
    }

    /// What callers saw of `instance` after `since`, oldest first.
    pub fn caller_views(&self, instance: &str, since: Timestamp) -> Vec<CallerView> {
        let series = self.lock();
        let Some(found) = series.get(instance) else { return Vec::new() };
        found.callers.iter().filter(|w| w.received > since).cloned().collect()
    }

    /// The newest window of each instance.
    pub fn latest(&self) -> BTreeMap<String, TimedWindow> {
        let newest = |(name, series): (&String, &Series)| Some((name.clone(), series.windows.back()?.clone()));
        self.lock().iter().filter_map(newest).collect()
    }

    /// Forgets an instance that is gone for good.
    pub fn forget(&self, instance: &str) {
        self.lock().remove(instance);
    }

    fn with(&self, instance: &str, act: impl FnOnce(&mut Series)) {
        let mut series = self.lock();
        if series.contains_key(instance) || series.len() < MAX_INSTANCES {
            act(series.entry(instance.to_owned()).or_default());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Series>> {
        self.series.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T) {
    if ring.len() == MAX_WINDOWS {
        ring.pop_front();
    }
    ring.push_back(item);
}
