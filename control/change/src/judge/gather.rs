//! From health windows to samples: who is compared with whom, over which seconds.

use jiff::{SignedDuration, Timestamp};
use weir_model::health::HealthWindow;
use weir_store::observed::{Telemetry, TimedWindow};

use super::{Metric, REPLAY_TOLERANCE, Sample, Seen};

/// Most control instances of a stratum that are read; more add little evidence and much work.
pub const MAX_CONTROLS: usize = 200;

/// Seconds before its change that are kept as the baseline of an instance.
pub const BASELINE_SECONDS: i64 = 300;

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

/// Reads what arrived in `[from, to)` about every group; `target` is the version that changed instances run.
pub fn gather(
    telemetry: &Telemetry,
    groups: &[Group],
    target: &str,
    tolerance: f64,
    (from, to): (Timestamp, Timestamp),
) -> Vec<Sample> {
    let reader = Reader { telemetry, target, tolerance };
    let span = Span { from, to };
    let of_group = |group| Metric::ALL.into_iter().map(move |metric| (group, metric));
    groups.iter().flat_map(of_group).filter_map(|(group, metric)| reader.sample(group, metric, span)).collect()
}

struct Reader<'a> {
    telemetry: &'a Telemetry,
    target: &'a str,
    tolerance: f64,
}

impl Reader<'_> {
    fn sample(&self, group: &Group, metric: Metric, span: Span) -> Option<Sample> {
        let treated: Vec<(String, Vec<Seen>)> = group
            .treated
            .iter()
            .map(|t| (t.name.clone(), self.seen(&t.name, metric, span.after(t.done), true)))
            .collect();
        let control = self.control(group, metric, span);
        let begins = group.treated.iter().any(|t| span.holds(t.done));
        if !begins && control.is_empty() && treated.iter().all(|(_, windows)| windows.is_empty()) {
            return None;
        }
        let replayed = group.control.is_empty();
        let tolerance = if replayed { self.tolerance.max(REPLAY_TOLERANCE) } else { self.tolerance };
        let compared_with = if replayed { "the same instances before the change" } else { "unchanged instances" };
        Some(Sample {
            metric,
            stratum: group.stratum.clone(),
            treated,
            control,
            baseline: self.baseline(group, metric, span),
            tolerance,
            compared_with: compared_with.to_owned(),
        })
    }

    fn control(&self, group: &Group, metric: Metric, span: Span) -> Vec<Seen> {
        if group.control.is_empty() {
            group.treated.iter().flat_map(|t| self.seen(&t.name, metric, self.replayed(t, span), false)).collect()
        } else {
            let controls = group.control.iter().take(MAX_CONTROLS);
            controls.flat_map(|name| self.seen(name, metric, span, false)).collect()
        }
    }

    /// What those that came back within `span` showed before they changed. Each comes back once, so that each is read
    /// once, and before the next restart.
    fn baseline(&self, group: &Group, metric: Metric, span: Span) -> Seen {
        let replayed = group.control.is_empty();
        let back = group.treated.iter().filter(|t| replayed && span.holds(t.done));
        let before = |t: &Treated| {
            let from = t.started.checked_sub(SignedDuration::from_secs(BASELINE_SECONDS)).unwrap_or(Timestamp::MIN);
            self.seen(&t.name, metric, Span { from, to: t.started }, false)
        };
        back.flat_map(before).fold(Seen::default(), |sum, seen| Seen {
            requests: sum.requests + seen.requests,
            events: sum.events + seen.events,
        })
    }

    /// The seconds before the change that stand beside `span`: the last before it beside the first after it, and so on
    /// backwards.
    fn replayed(&self, treated: &Treated, span: Span) -> Span {
        span.after(treated.done).mirrored(treated.done, treated.started)
    }

    fn seen(&self, name: &str, metric: Metric, span: Span, treated: bool) -> Vec<Seen> {
        // The telemetry's bound is exclusive.
        let since = span.from.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(span.from);
        if metric == Metric::CallerErrors {
            let views = self.telemetry.caller_views(name, since);
            let in_span = views.iter().filter(|v| span.holds(v.received));
            return in_span.map(|v| Seen { requests: v.requests, events: v.errors }).collect();
        }
        let windows = self.telemetry.windows(name, since);
        let fits = |w: &&TimedWindow| span.holds(w.received) && (w.proxy_version == self.target) == treated;
        windows.iter().filter(fits).map(|w| count(metric, &w.window)).collect()
    }
}

fn count(metric: Metric, window: &HealthWindow) -> Seen {
    let (inbound, outbound) = (&window.inbound, &window.outbound);
    match metric {
        Metric::Errors | Metric::CallerErrors => Seen { requests: inbound.requests, events: inbound.errors },
        Metric::CallErrors => Seen { requests: outbound.requests, events: outbound.errors },
        Metric::Faults => Seen { requests: inbound.requests + outbound.requests, events: window.faults.values().sum() },
    }
}
