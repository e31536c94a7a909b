//! Health windows of instances: what each proxy says of itself, and what its callers saw of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use weir_model::health::{EndpointTraffic, HealthWindow};

/// Windows kept per instance (about 15 minutes at one per second) while there are few instances.
pub const MAX_WINDOWS: usize = 900;
/// Windows kept per instance however many there are: what a judgement needs.
pub const MIN_WINDOWS: usize = 60;
/// Windows kept over all instances as long as that leaves each [`MIN_WINDOWS`]; about a kilobyte each.
pub const MAX_WINDOWS_IN_ALL: usize = 300_000;
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
        self.with(instance, |series, limit| {
            if let Some(last) = series.windows.back_mut() {
                // What it saw of others is kept by callee; here the newest is enough.
                last.window.endpoints = Vec::new();
            }
            push(&mut series.windows, window, limit);
        });
    }

    /// Takes what one caller saw of `instance`; reports within the same second are added up.
    pub fn record_caller(&self, instance: &str, received: Timestamp, seen: &EndpointTraffic) {
        self.with(instance, |series, limit| {
            let same = |last: &&mut CallerView| last.received.as_second() == received.as_second();
            match series.callers.back_mut().filter(same) {
                Some(last) => {
                    last.requests += seen.requests;
                    last.errors += seen.errors;
                }
                None => {
                    let view = CallerView { received, requests: seen.requests, errors: seen.errors };
                    push(&mut series.callers, view, limit);
                }
            }
        });
    }

    /// Windows of `instance` that arrived after `since`, oldest first.
    pub fn windows(&self, instance: &str, since: Timestamp) -> Vec<TimedWindow> {
        let series = self.lock();
        let Some(found) = series.get(instance) else { return Vec::new() };
        after(&found.windows, |window| window.received > since)
    }

    /// Shows windows of `instance` that arrived after `since`, newest first, without copying them.
    pub fn visit_windows(&self, instance: &str, since: Timestamp, visit: impl FnMut(&TimedWindow)) {
        if let Some(found) = self.lock().get(instance) {
            found.windows.iter().rev().take_while(|window| window.received > since).for_each(visit);
        }
    }

    /// True if a window of `instance` arrived after `since`.
    pub fn reported_since(&self, instance: &str, since: Timestamp) -> bool {
        let series = self.lock();
        series.get(instance).and_then(|found| found.windows.back()).is_some_and(|newest| newest.received > since)
    }

    /// What callers saw of `instance` after `since`, oldest first.
    pub fn caller_views(&self, instance: &str, since: Timestamp) -> Vec<CallerView> {
        let series = self.lock();
        let Some(found) = series.get(instance) else { return Vec::new() };
        after(&found.callers, |view| view.received > since)
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

    /// Gives `act` the instance's series and how many windows it may have.
    fn with(&self, instance: &str, act: impl FnOnce(&mut Series, usize)) {
        let mut series = self.lock();
        if !series.contains_key(instance) {
            if series.len() >= MAX_INSTANCES {
                return;
            }
            series.insert(instance.to_owned(), Series::default());
        }
        let limit = windows_each(series.len());
        if let Some(found) = series.get_mut(instance) {
            act(found, limit);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Series>> {
        self.series.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn windows_each(instances: usize) -> usize {
    (MAX_WINDOWS_IN_ALL / instances.max(1)).clamp(MIN_WINDOWS, MAX_WINDOWS)
}

fn push<T>(ring: &mut VecDeque<T>, item: T, limit: usize) {
    while ring.len() >= limit {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// The newest that are `new`, oldest first. Asked every second for the last few, so it begins at the end.
fn after<T: Clone>(ring: &VecDeque<T>, new: impl Fn(&T) -> bool) -> Vec<T> {
    let mut found: Vec<T> = ring.iter().rev().take_while(|item| new(item)).cloned().collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn window(sequence: u64) -> TimedWindow {
        let endpoints = vec![seen(1, 0)];
        let window = HealthWindow { sequence, endpoints, ..HealthWindow::default() };
        TimedWindow { received: at(sequence as i64 * 1_000), proxy_version: "A".to_owned(), window }
    }

    fn seen(requests: u64, errors: u64) -> EndpointTraffic {
        EndpointTraffic { requests, errors, ..EndpointTraffic::default() }
    }

    #[test]
    fn windows_are_those_that_arrived_after_the_given_time() {
        let telemetry = Telemetry::default();
        (1..=5).for_each(|n| telemetry.record("i", window(n)));
        let sequences = |since| -> Vec<u64> {
            telemetry.windows("i", at(since)).iter().map(|window| window.window.sequence).collect()
        };
        assert_eq!(sequences(0), [1, 2, 3, 4, 5]);
        assert_eq!(sequences(3_000), [4, 5]);
        assert_eq!(sequences(5_000), [0; 0]);
        assert!(telemetry.reported_since("i", at(4_999)) && !telemetry.reported_since("i", at(5_000)));
        assert!(telemetry.windows("unknown", at(0)).is_empty());
    }

    #[test]
    fn only_the_newest_window_keeps_what_it_saw_of_others() {
        let telemetry = Telemetry::default();
        (1..=3).for_each(|n| telemetry.record("i", window(n)));
        let kept: Vec<usize> = telemetry.windows("i", at(0)).iter().map(|w| w.window.endpoints.len()).collect();
        assert_eq!(kept, [0, 0, 1]);
        assert_eq!(telemetry.latest()["i"].window.sequence, 3);
    }

    #[test]
    fn callers_within_a_second_are_added_up() {
        let telemetry = Telemetry::default();
        for (millis, requests) in [(1_000, 10), (1_900, 20), (2_000, 5)] {
            telemetry.record_caller("i", at(millis), &seen(requests, 1));
        }
        let views = telemetry.caller_views("i", at(0));
        let sums: Vec<_> = views.iter().map(|view| (view.received, view.requests, view.errors)).collect();
        assert_eq!(sums, [(at(1_000), 30, 2), (at(2_000), 5, 1)]);
        assert_eq!(telemetry.caller_views("i", at(1_000)).len(), 1);
    }

    #[test]
    fn rings_are_bounded_and_the_forgotten_are_gone() {
        let telemetry = Telemetry::default();
        (0..1_000).for_each(|n| telemetry.record("i", window(n)));
        assert_eq!(telemetry.windows("i", at(-1)).len(), MAX_WINDOWS);
        telemetry.forget("i");
        assert!(telemetry.latest().is_empty());
    }

    #[test]
    fn many_instances_share_the_room_but_each_has_enough_to_be_judged() {
        assert_eq!([1, 333, 1_000, 5_000, 500_000].map(windows_each), [900, 900, 300, 60, 60]);
    }
}
