//! From health windows to samples: who is compared with whom, over which seconds.

use jiff::{SignedDuration, Timestamp};
use weir_model::change::Verdict;
use weir_model::health::HealthWindow;
use weir_store::observed::{Telemetry, TimedWindow};

use super::{Metric, REPLAY_TOLERANCE, Sample, Seen, slow};

/// Most control instances of a stratum that are read; more add little evidence and much work.
pub const MAX_CONTROLS: usize = 200;

/// Seconds before its change that are kept as the baseline of an instance.
pub const BASELINE_SECONDS: i64 = 300;

/// Seconds after which a changed instance's latencies count: caches and connections are cold at first.
pub const SETTLE_SECONDS: i64 = 10;

/// A changed instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Treated {
    /// Its name.
    pub name: String,
    /// When its change began.
    pub started: Timestamp,
    /// When it was back.
    pub done: Timestamp,
}

/// The instances of one stratum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// In words: `app=order unit=east stack=demo`.
    pub stratum: String,
    /// Changed ones, of this batch.
    pub treated: Vec<Treated>,
    /// Unchanged ones; empty: the changed ones' own past is replayed beside them.
    pub control: Vec<String>,
}

/// Seconds of reports: from (inclusive) to (exclusive), by arrival.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Timestamp,
    to: Timestamp,
}

impl Span {
    fn holds(&self, time: Timestamp) -> bool {
        self.from <= time && time < self.to
    }

    fn after(self, start: Timestamp) -> Span {
        Span { from: self.from.max(start), ..self }
    }

    /// The span mirrored: what lies so far after `end` stands beside what lies so far before `start`.
    fn mirrored(self, end: Timestamp, start: Timestamp) -> Span {
        let mirror = |time: Timestamp| start.checked_sub(time.duration_since(end)).unwrap_or(Timestamp::MIN);
        Span { from: mirror(self.to), to: mirror(self.from) }
    }
}

/// What is read, and how.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// From where.
    pub telemetry: &'a Telemetry,
    /// The version of the proxy that changed instances run; empty: the change leaves the proxy as it is.
    pub target: &'a str,
    /// Tolerated relative increase.
    pub tolerance: f64,
    /// What has been found so far: the limits above which requests are slow.
    pub verdict: &'a Verdict,
}

/// Reads what arrived in `[from, to)` about every group.
pub fn gather(reading: Reading, groups: &[Group], (from, to): (Timestamp, Timestamp)) -> Vec<Sample> {
    let span = Span { from, to };
    let of_group = |group: &Group| {
        let events = Metric::ALL.into_iter().filter(|m| *m != Metric::Slow);
        let mut samples: Vec<Sample> =
            events.filter_map(|m| Reader { reading, metric: Counted::Events(m) }.sample(group, span)).collect();
        samples.extend(slow_sample(reading, group, span));
        samples
    };
    groups.iter().flat_map(of_group).collect()
}

/// While the limit is not known, the latencies of the other side are collected; then what is above it is counted.
fn slow_sample(reading: Reading, group: &Group, span: Span) -> Option<Sample> {
    let evidence = reading.verdict.evidence.iter();
    let known = evidence.filter(|e| e.metric == Metric::Slow.name()).find(|e| e.stratum == group.stratum);
    let settled = |t: &Treated| Treated { done: later(t.done, SETTLE_SECONDS), ..t.clone() };
    let group = Group { treated: group.treated.iter().map(settled).collect(), ..group.clone() };
    if let Some(limit) = known.and_then(|e| e.slow_above_us) {
        return Reader { reading, metric: Counted::Slow(limit) }.sample(&group, span);
    }
    let reader = Reader { reading, metric: Counted::Nothing };
    let mut sample = reader.sample(&group, span)?;
    sample.latency = reader.latencies(&group, span);
    Some(sample)
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// What is counted of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Events of this metric.
    Events(Metric),
    /// Requests above so many microseconds.
    Slow(u64),
    /// Slow ones, but it is not known yet what is slow.
    Nothing,
}

impl Counted {
    fn metric(self) -> Metric {
        match self {
            Counted::Events(metric) => metric,
            Counted::Slow(_) | Counted::Nothing => Metric::Slow,
        }
    }

    fn of(self, window: &HealthWindow) -> Seen {
        match self {
            Counted::Events(metric) => count(metric, window),
            Counted::Slow(limit) => slow::count(&window.inbound.latency, limit),
            Counted::Nothing => Seen::default(),
        }
    }
}

struct Reader<'a> {
    reading: Reading<'a>,
    metric: Counted,
}

impl Reader<'_> {
    fn sample(&self, group: &Group, span: Span) -> Option<Sample> {
        let treated: Vec<(String, Vec<Seen>)> =
            group.treated.iter().map(|t| (t.name.clone(), self.seen(&t.name, span.after(t.done), true))).collect();
        let control = self.control(group, span);
        let begins = group.treated.iter().any(|t| span.holds(t.done));
        if !begins && control.is_empty() && treated.iter().all(|(_, windows)| windows.is_empty()) {
            return None;
        }
        let replayed = group.control.is_empty();
        let metric = self.metric.metric();
        let least = if replayed { REPLAY_TOLERANCE } else { metric.least_tolerance() };
        let compared_with = if replayed { "the same instances before the change" } else { "unchanged instances" };
        Some(Sample {
            metric,
            stratum: group.stratum.clone(),
            treated,
            control,
            baseline: self.baseline(group, span),
            latency: Vec::new(),
            tolerance: self.reading.tolerance.max(least),
            compared_with: compared_with.to_owned(),
        })
    }

    fn control(&self, group: &Group, span: Span) -> Vec<Seen> {
        if group.control.is_empty() {
            group.treated.iter().flat_map(|t| self.seen(&t.name, self.replayed(t, span), false)).collect()
        } else {
            let controls = group.control.iter().take(MAX_CONTROLS);
            controls.flat_map(|name| self.seen(name, span, false)).collect()
        }
    }

    /// What those that came back within `span` showed before they changed. Each comes back once, so that each is read
    /// once, and before the next restart.
    fn baseline(&self, group: &Group, span: Span) -> Seen {
        let replayed = group.control.is_empty();
        let back = group.treated.iter().filter(|t| replayed && span.holds(t.done));
        back.flat_map(|t| self.seen(&t.name, before(t), false)).fold(Seen::default(), |sum, seen| Seen {
            requests: sum.requests + seen.requests,
            events: sum.events + seen.events,
        })
    }

    /// The seconds before the change that stand beside `span`: the last before it beside the first after it, and so on
    /// backwards.
    fn replayed(&self, treated: &Treated, span: Span) -> Span {
        span.after(treated.done).mirrored(treated.done, treated.started)
    }

    fn seen(&self, name: &str, span: Span, treated: bool) -> Vec<Seen> {
        if self.metric == Counted::Events(Metric::CallerErrors) {
            let views = self.reading.telemetry.caller_views(name, just_before(span.from));
            let in_span = views.iter().filter(|v| span.holds(v.received));
            return in_span.map(|v| Seen { requests: v.requests, events: v.errors }).collect();
        }
        self.windows(name, span, treated).iter().map(|w| self.metric.of(&w.window)).collect()
    }

    fn windows(&self, name: &str, span: Span, treated: bool) -> Vec<TimedWindow> {
        let mut windows = self.reading.telemetry.windows(name, just_before(span.from));
        let target = self.reading.target;
        // Where the proxy stays what it is, the time alone tells before from after.
        let fits = |w: &TimedWindow| target.is_empty() || (w.proxy_version == target) == treated;
        windows.retain(|w| span.holds(w.received) && fits(w));
        windows
    }

    /// Latencies of the side that treated instances are compared with.
    fn latencies(&self, group: &Group, span: Span) -> Vec<u64> {
        let mut sum = Vec::new();
        let mut add = |name: &str, span| {
            self.windows(name, span, false).iter().for_each(|w| slow::add(&mut sum, &w.window.inbound.latency));
        };
        if group.control.is_empty() {
            let back = group.treated.iter().filter(|t| span.holds(t.done));
            back.for_each(|t| add(&t.name, before(t)));
        } else {
            group.control.iter().take(MAX_CONTROLS).for_each(|name| add(name, span));
        }
        sum
    }
}

/// The seconds before its change that are an instance's baseline.
fn before(treated: &Treated) -> Span {
    Span { from: later(treated.started, -BASELINE_SECONDS), to: treated.started }
}

/// The telemetry's bound is exclusive.
fn just_before(time: Timestamp) -> Timestamp {
    time.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(time)
}

fn count(metric: Metric, window: &HealthWindow) -> Seen {
    let (inbound, outbound) = (&window.inbound, &window.outbound);
    match metric {
        Metric::Errors | Metric::CallerErrors => Seen { requests: inbound.requests, events: inbound.errors },
        Metric::CallErrors => Seen { requests: outbound.requests, events: outbound.errors },
        Metric::Slow => Seen::default(),
        Metric::Faults => Seen { requests: inbound.requests + outbound.requests, events: window.faults.values().sum() },
    }
}

#[cfg(test)]
mod tests {
    use weir_model::change::Outcome;
    use weir_model::health::{LATENCY_BUCKETS, Traffic, latency_bucket};

    use super::super::{Question, decide, observe, open_verdict};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment in 1970")
    }

    /// A second of a hundred requests, `slow` of which take 40 ms and the others 4.
    fn report(telemetry: &Telemetry, name: &str, version: &str, second: i64, slow: u64) {
        let mut latency = vec![0; LATENCY_BUCKETS];
        latency[latency_bucket(4_000)] = 100 - slow;
        latency[latency_bucket(40_000)] = slow;
        let inbound = Traffic { requests: 100, errors: 0, latency };
        let window = HealthWindow { inbound, ..HealthWindow::default() };
        telemetry.record(name, TimedWindow { received: at(second), proxy_version: version.into(), window });
    }

    fn judged(treated_slow: u64, control: &[&str]) -> Verdict {
        let telemetry = Telemetry::default();
        let changed = |n: &str| Treated { name: n.into(), started: at(100), done: at(110) };
        let treated = vec![changed("new-1"), changed("new-2")];
        (0..100).for_each(|s| treated.iter().for_each(|t| report(&telemetry, &t.name, "a", s, 1)));
        let names = control.iter().map(|n| (*n).to_owned()).collect();
        let groups = [Group { stratum: "all".into(), treated, control: names }];
        let mut verdict = open_verdict();
        for second in 110..200 {
            groups[0].treated.iter().for_each(|t| report(&telemetry, &t.name, "b", second, treated_slow));
            control.iter().for_each(|name| report(&telemetry, name, "a", second, 1));
            let reading = Reading { telemetry: &telemetry, target: "b", tolerance: 0.1, verdict: &verdict };
            let samples = gather(reading, &groups, (at(second), at(second + 1)));
            observe(&mut verdict, &samples);
            let question = Question {
                alpha: 0.001,
                batch: 1,
                strata: 1,
                baking: true,
                bake_seconds: 0,
                min_requests: 100_000,
                unhealthy: Vec::new(),
            };
            decide(&mut verdict, &question);
            if verdict.outcome == Outcome::Fail {
                break;
            }
        }
        verdict
    }

    #[test]
    fn slower_than_those_beside_it_is_harm() {
        let verdict = judged(5, &["old-1", "old-2"]);
        assert_eq!(verdict.outcome, Outcome::Fail);
        assert!(verdict.reason.starts_with("slow requests rose"), "{}", verdict.reason);
        let slow = verdict.evidence.iter().find(|e| e.metric == "slow requests").expect("it was compared");
        assert_eq!(slow.slow_above_us, Some(5_000));
        assert_ne!(judged(1, &["old-1", "old-2"]).outcome, Outcome::Fail);
    }

    #[test]
    fn slower_than_its_own_past_is_harm_where_nothing_stands_beside() {
        assert_eq!(judged(9, &[]).outcome, Outcome::Fail);
        assert_ne!(judged(1, &[]).outcome, Outcome::Fail);
    }
}
