//! From health windows to samples: who is compared with whom, over which seconds.

use jiff::{SignedDuration, Timestamp};
use weir_model::change::{Evidence, Verdict};
use weir_model::health::HealthWindow;
use weir_store::observed::{Telemetry, TimedWindow};

use super::{Metric, REPLAY_TOLERANCE, Sample, Seen, slow};

/// Most control instances of a stratum that are read; more add little evidence and much work.
pub const MAX_CONTROLS: usize = 200;

/// The fault that a proxy counts a request under that it had to cut.
const CUT: &str = "cut";

/// Refusals that a proxy counts neither as faults nor as errors, for the caller may have deserved them. A version that
/// refuses more of the same traffic than another is at fault all the same.
const SILENT_REFUSALS: [&str; 9] = [
    "head_bytes",
    "header_count",
    "frame_bytes",
    "unread",
    "head_timeout",
    "no_route",
    "unsupported",
    "loop",
    "plaintext_refused",
];

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

/// Changed instances of one stratum, and who they stand beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// In words: `app=order unit=east stack=demo`.
    pub stratum: String,
    /// Changed ones.
    pub treated: Vec<Treated>,
    /// Who they are compared with; empty: their own past is replayed beside them.
    pub control: Vec<String>,
    /// What these are.
    pub beside: Beside,
    /// The stratum of another comparison of the same instances: only what both show is harm.
    pub paired: Option<String>,
}

/// What changed instances are compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Beside {
    /// Unchanged instances of their stratum.
    #[default]
    Unchanged,
    /// Those that earlier batches changed.
    Earlier,
    /// Those that the newest batch changed.
    Later,
    /// Unchanged instances of their app in other units.
    Elsewhere,
    /// Themselves before the change.
    Past,
}

impl Beside {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Beside::Unchanged => "unchanged instances",
            Beside::Earlier => "instances changed by earlier batches",
            Beside::Later => "instances changed last",
            Beside::Elsewhere => "unchanged instances in other units",
            Beside::Past => "the same instances before the change",
        }
    }

    /// They run the new version themselves.
    fn changed(self) -> bool {
        matches!(self, Beside::Earlier | Beside::Later)
    }

    /// The hour has moved on, or the place is another one.
    fn least_tolerance(self) -> f64 {
        if matches!(self, Beside::Past | Beside::Elsewhere) { REPLAY_TOLERANCE } else { 0.0 }
    }
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

    fn together(self, other: Span) -> Span {
        Span { from: self.from.min(other.from), to: self.to.max(other.to) }
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
    groups.iter().flat_map(|group| Reader::new(reading, group, span).samples()).collect()
}

/// What the changed instances of the groups in `stratum` and those beside them showed of a metric in the minutes before they
/// changed, as far as it is still known.
pub fn shortly_before(reading: Reading, groups: &[Group], metric: &str, stratum: &str) -> [Seen; 2] {
    let Some(metric) = Metric::ALL.into_iter().find(|m| m.name() == metric) else { return [Seen::default(); 2] };
    let mut sides = [Seen::default(); 2];
    for group in groups.iter().filter(|g| g.stratum == stratum && g.beside == Beside::Unchanged) {
        let spans = group.treated.iter().map(before);
        for (treated, span) in group.treated.iter().zip(spans) {
            let reader = Reader::new(reading, group, span);
            reader
                .side(&treated.name, span, false, None)
                .of(metric)
                .into_iter()
                .for_each(|s| sides[0] = sides[0].and(s));
        }
        let Some(span) = group.treated.iter().map(before).reduce(Span::together) else { continue };
        let reader = Reader::new(reading, group, span);
        let names = group.control.iter().take(MAX_CONTROLS);
        let seen = names.flat_map(|name| reader.side(name, span, false, None).of(metric));
        seen.for_each(|s| sides[1] = sides[1].and(s));
    }
    sides
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// What one window, or one second of callers' views, says of each metric.
type Row = [Seen; Metric::ALL.len()];

/// One side of a comparison.
#[derive(Default)]
struct Side {
    rows: Vec<Row>,
    seconds: u64,
    windows: u64,
}

impl Side {
    fn of(&self, metric: Metric) -> Vec<Seen> {
        self.rows.iter().map(|row| row[metric as usize]).filter(|seen| *seen != Seen::default()).collect()
    }
}

/// Reads one group.
struct Reader<'a> {
    reading: Reading<'a>,
    group: &'a Group,
    span: Span,
    beside: Beside,
    /// Requests above this (microseconds) are slow, once that is known.
    slow_above: Option<u64>,
    /// Latencies of the other side, until then.
    latency: Vec<u64>,
}

impl<'a> Reader<'a> {
    fn new(reading: Reading<'a>, group: &'a Group, span: Span) -> Reader<'a> {
        let of_group = |e: &&Evidence| e.metric == Metric::Slow.name() && e.stratum == group.stratum;
        let slow_above = reading.verdict.evidence.iter().find(of_group).and_then(|e| e.slow_above_us);
        let beside = if group.control.is_empty() && !group.beside.changed() { Beside::Past } else { group.beside };
        Reader { reading, group, span, beside, slow_above, latency: Vec::new() }
    }

    fn samples(mut self) -> Vec<Sample> {
        let side = |t: &Treated| {
            let mut side = self.side(&t.name, self.span.after(t.done), true, Some(t.done));
            side.rows.extend(self.cut(t));
            (t.name.clone(), side)
        };
        let treated: Vec<(String, Side)> = self.group.treated.iter().map(side).collect();
        let control = self.control();
        let baseline = self.baseline();
        let begins = self.group.treated.iter().any(|t| self.span.holds(t.done));
        if !begins && control.rows.is_empty() && treated.iter().all(|(_, side)| side.rows.is_empty()) {
            return Vec::new();
        }
        Metric::ALL.into_iter().map(|metric| self.sample(metric, &treated, &control, &baseline)).collect()
    }

    fn sample(&self, metric: Metric, treated: &[(String, Side)], control: &Side, baseline: &Side) -> Sample {
        let least = self.beside.least_tolerance().max(metric.least_tolerance());
        let longest = treated.iter().map(|(_, side)| side).max_by_key(|side| side.seconds);
        let seconds = longest.map_or(0, |side| side.seconds);
        Sample {
            metric,
            stratum: self.group.stratum.clone(),
            treated: treated.iter().map(|(name, side)| (name.clone(), side.of(metric))).collect(),
            control: control.of(metric),
            baseline: baseline.of(metric).into_iter().fold(Seen::default(), Seen::and),
            latency: if metric == Metric::Slow { self.latency.clone() } else { Vec::new() },
            seconds,
            window_seconds: longest.map_or(1, |side| seconds / side.windows.max(1)).max(1),
            tolerance: self.reading.tolerance.max(least),
            compared_with: self.beside.words().to_owned(),
            paired: self.group.paired.clone(),
        }
    }

    /// What the old proxy had to cut in order to go is harm of the change. Told once, when the instance is back.
    fn cut(&self, treated: &Treated) -> Option<Row> {
        let mut cut = 0;
        if self.span.holds(treated.done) {
            self.reading.telemetry.visit_windows(&treated.name, just_before(treated.started), |w| {
                let between = w.received <= treated.done;
                cut += w.window.faults.get(CUT).filter(|_| between).copied().unwrap_or_default();
            });
        }
        let mut row = Row::default();
        row[Metric::Faults as usize] = Seen { requests: cut, events: cut };
        (cut > 0).then_some(row)
    }

    fn control(&mut self) -> Side {
        let mut control = Side::default();
        if self.beside == Beside::Past {
            for treated in &self.group.treated {
                self.add(&mut control, &treated.name, self.replayed(treated), false, None);
            }
            return control;
        }
        for name in self.group.control.iter().take(MAX_CONTROLS) {
            self.add(&mut control, name, self.span, self.beside.changed(), None);
            self.add_latencies(name, self.span, self.beside.changed());
        }
        control
    }

    /// What those that came back within the span showed before they changed. Each comes back once, so that each is read
    /// once, and before the next restart.
    fn baseline(&mut self) -> Side {
        let mut baseline = Side::default();
        if self.beside != Beside::Past {
            return baseline;
        }
        let (group, span) = (self.group, self.span);
        let back = || group.treated.iter().filter(|t| span.holds(t.done));
        back().for_each(|treated| self.add_latencies(&treated.name, before(treated), false));
        let known = self.slow_above.or_else(|| slow::limit(&self.latency));
        let slow_above = std::mem::replace(&mut self.slow_above, known);
        back().for_each(|treated| self.add(&mut baseline, &treated.name, before(treated), false, None));
        self.slow_above = slow_above;
        baseline
    }

    /// The seconds before the change that stand beside the span: the last before it beside the first after it, and so on
    /// backwards.
    fn replayed(&self, treated: &Treated) -> Span {
        self.span.after(treated.done).mirrored(treated.done, treated.started)
    }

    fn side(&self, name: &str, span: Span, changed: bool, done: Option<Timestamp>) -> Side {
        let mut side = Side::default();
        self.add(&mut side, name, span, changed, done);
        side
    }

    fn add(&self, side: &mut Side, name: &str, span: Span, changed: bool, done: Option<Timestamp>) {
        let settled = done.map_or(Timestamp::MIN, |done| later(done, SETTLE_SECONDS));
        let slow_above = |w: &TimedWindow| self.slow_above.filter(|_| w.received >= settled);
        self.visit(name, span, changed, |w| {
            side.rows.push(row(&w.window, slow_above(w)));
            side.windows += 1;
            side.seconds += u64::from(w.window.duration_ms).div_ceil(1_000).max(1);
        });
        let views = self.reading.telemetry.caller_views(name, just_before(span.from));
        for view in views.iter().filter(|v| span.holds(v.received)) {
            let mut row = Row::default();
            row[Metric::CallerErrors as usize] = Seen { requests: view.requests, events: view.errors };
            side.rows.push(row);
        }
    }

    fn add_latencies(&mut self, name: &str, span: Span, changed: bool) {
        if self.slow_above.is_none() {
            let mut latency = std::mem::take(&mut self.latency);
            self.visit(name, span, changed, |w| slow::add(&mut latency, &w.window.inbound.latency));
            self.latency = latency;
        }
    }

    fn visit(&self, name: &str, span: Span, changed: bool, mut visit: impl FnMut(&TimedWindow)) {
        let (telemetry, target) = (self.reading.telemetry, self.reading.target);
        telemetry.visit_windows(name, just_before(span.from), |w| {
            // Where the proxy stays what it is, the time alone tells before from after.
            let fits = target.is_empty() || (w.proxy_version == target) == changed;
            if fits && span.holds(w.received) {
                visit(w);
            }
        });
    }
}

fn row(window: &HealthWindow, slow_above: Option<u64>) -> Row {
    let (inbound, outbound) = (&window.inbound, &window.outbound);
    let mut row = Row::default();
    row[Metric::Errors as usize] = Seen { requests: inbound.requests, events: inbound.errors };
    row[Metric::CallErrors as usize] = Seen { requests: outbound.requests, events: outbound.errors };
    row[Metric::Slow as usize] = slow_above.map_or(Seen::default(), |limit| slow::count(&inbound.latency, limit));
    let refused = SILENT_REFUSALS.iter().filter_map(|reason| window.refused.get(*reason)).sum::<u64>();
    row[Metric::Faults as usize] = Seen {
        requests: inbound.requests + outbound.requests + refused,
        events: window.faults.values().sum::<u64>() + refused,
    };
    row
}

/// The seconds before its change that are an instance's baseline.
fn before(treated: &Treated) -> Span {
    Span { from: later(treated.started, -BASELINE_SECONDS), to: treated.started }
}

/// The telemetry's bound is exclusive.
fn just_before(time: Timestamp) -> Timestamp {
    time.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(time)
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
        let groups = [Group { stratum: "all".into(), treated, control: names, ..Group::default() }];
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
    fn requests_cut_while_instances_were_away_are_harm() {
        let judged = |cut: u64| {
            let telemetry = Telemetry::default();
            let treated = vec![Treated { name: "new-1".into(), started: at(100), done: at(110) }];
            let mut window = HealthWindow::default();
            window.faults.extend((cut > 0).then(|| (CUT.to_owned(), cut)));
            telemetry.record("new-1", TimedWindow { received: at(105), proxy_version: "a".into(), window });
            let groups = [Group { stratum: "all".into(), treated, control: vec!["old-1".into()], ..Group::default() }];
            let verdict = open_verdict();
            let reading = Reading { telemetry: &telemetry, target: "b", tolerance: 0.1, verdict: &verdict };
            let seen = |from, to| {
                let samples = gather(reading, &groups, (at(from), at(to)));
                let faults = samples.into_iter().find(|s| s.metric == Metric::Faults);
                faults.map_or(0, |s| s.treated.iter().flat_map(|(_, seen)| seen).map(|seen| seen.events).sum::<u64>())
            };
            [seen(100, 110), seen(110, 111), seen(111, 112)]
        };
        assert_eq!(judged(7), [0, 7, 0], "told once");
        assert_eq!(judged(0), [0, 0, 0]);
    }

    #[test]
    fn refusals_that_are_no_errors_are_compared_among_the_faults() {
        let mut window = HealthWindow::default();
        window.inbound.requests = 10;
        window.faults.insert("protocol".into(), 1);
        window.refused.extend([
            ("head_bytes".to_owned(), 3),
            ("no_route".to_owned(), 2),
            ("bad_request".to_owned(), 1),
        ]);
        let seen = row(&window, None)[Metric::Faults as usize];
        assert_eq!((seen.requests, seen.events), (15, 6), "a bad request is counted as a fault already");
    }

    #[test]
    fn slower_than_its_own_past_is_harm_where_nothing_stands_beside() {
        assert_eq!(judged(9, &[]).outcome, Outcome::Fail);
        assert_ne!(judged(1, &[]).outcome, Outcome::Fail);
    }
}
