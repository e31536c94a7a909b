//! Has this batch done harm?
//!
//! The *treated* (already changed) instances of a batch are compared with *control* (not yet changed) instances of the
//! same app, unit, stack and group, over the same seconds. A service that is failing by itself fails on both sides and
//! does not block the change. Five metrics are compared per stratum: failed requests as the instance reports them,
//! failed requests as its callers saw them, failed calls it made, slow requests ([`slow`]), and faults of the proxy's
//! own. Each comparison is a sequential test ([`evalue`]) that may be looked at every second; the bound on false alarms
//! is split over all comparisons of a batch and over the batches of a change.
//!
//! Errors come in clumps, so they are counted in two ways ([`tally`]): in full, and with clumps trimmed. What speaks for harm
//! is kept from batch to batch ([`carry`]), so that rare errors add up; strata are judged alone, all of an app together, and all
//! together. Two rules keep single hosts from deciding alone: harm must show in at least [`HARMED_WINDOWS`] windows, and it
//! must be the version's rather than one host's ([`spread`]): on more than half of the treated instances, and again after a
//! while where these are few. These only ever withhold a failure, so the bound on false alarms stands. One guard needs no test: changed instances of which (nearly) every request fails, while those beside them
//! do not.
//!
//! A batch does not pass because evidence of harm falls short of proof: while a comparison is suspicious (or proof would
//! be there, but on one instance alone) the batch is held, until the evidence decides or the events have stopped for as
//! long as a whole bake.
//!
//! Where no control instance is left (an app of one instance, the last batch), an instance is compared with its own
//! last seconds before the change, replayed backwards beside it, with a wider tolerance since the hour has moved on. What
//! it showed in those seconds is also kept in the evidence, as a *baseline*. When a look finds changed instances with
//! requests and nothing beside them (telemetry was lost with the control plane, or the replay has come to its end), these
//! requests are counted apart and compared, all together, with the baseline, or with what the control showed while there
//! was one. That is a new test of all of them at each look, so each look spends a share of its own of alpha
//! ([`LOOKS_SPEND`]). Where not even a baseline is known, events cannot be blamed, but many of them
//! ([`UNKNOWN_SHARE`]) hold the batch.
//!
//! Everything the judge knows is in the [`Verdict`], which is stored: after a restart it goes on from there.

pub mod blame;
mod carry;
mod controls;
pub mod evalue;
mod gather;
mod slow;
mod spread;
mod tally;
mod words;

use std::borrow::Cow;
use std::collections::BTreeSet;

use weir_model::change::{Earlier, Evidence, Outcome, Point, Verdict};

pub use carry::carried;
pub use controls::Roster;
pub use gather::{Beside, Group, Reading, Treated, gather, shortly_before};

use carry::of_this_batch;
use tally::Cut;

/// Events of one instance in one window that always count.
pub const CLUMP: u64 = 10;
/// Windows with events on changed instances that harm must show in.
pub const HARMED_WINDOWS: u32 = 3;
/// Chance, at most, that a harmless batch is held for suspicion, which costs it time and nothing else: as more is seen,
/// chance wears off and harm does not. The bound is loose, since comparisons tell much the same.
pub const HELD_BY_CHANCE: f64 = 0.5;
/// Chance, at most, that a harmless comparison is put to a second test.
pub const ASKED_AGAIN_BY_CHANCE: f64 = 0.3;
/// A comparison without events for so long (or the bake, if that is longer) is suspicious no more, in seconds.
pub const QUIET_SECONDS: u64 = 10;
/// Tolerated relative increase, at least, where an instance is compared with the past.
pub const REPLAY_TOLERANCE: f64 = 1.0;
/// Tolerated relative increase, at least, of slow requests: a few percent more time on every request of a host already
/// puts a quarter more of them above the 99th percentile.
pub const SLOW_TOLERANCE: f64 = 0.5;
/// Requests of which nearly all failed that are proof without a test.
pub const ALL_FAILED_REQUESTS: u64 = 20;
/// Share of failed requests that counts as all of them.
pub const ALL_FAILED_SHARE: f64 = 0.98;
/// So few changed instances may all have had a burst of their hosts': harm on them must come again.
pub const FEW_INSTANCES: u32 = 3;
/// Share of events that holds a batch where nothing at all is known to compare with.
pub const UNKNOWN_SHARE: f64 = 0.02;
/// Points kept of how a comparison's evidence has grown.
pub const COURSE_POINTS: usize = 40;
/// Look number k at requests without a control must be this times k² as strong, so that the chances of a false alarm of
/// all looks, however many, sum to that of one (1 + 1/4 + 1/9 + ... = π²/6).
pub const LOOKS_SPEND: f64 = std::f64::consts::PI * std::f64::consts::PI / 6.0;
/// Share of a comparison's alpha that is spent against the baseline; the rest is for what has a control beside it.
pub const BASELINE_SHARE: f64 = 0.1;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Failed requests, as the instance reports.
    Errors,
    /// Failed requests, as its callers report.
    CallerErrors,
    /// Failed calls of the instance to others.
    CallErrors,
    /// Requests slower than what was the 99th percentile on the other side.
    Slow,
    /// Faults of the proxy itself.
    Faults,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 5] =
        [Metric::Errors, Metric::CallerErrors, Metric::CallErrors, Metric::Slow, Metric::Faults];

    /// As in evidence.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Errors => "errors",
            Metric::CallerErrors => "errors seen by callers",
            Metric::CallErrors => "errors of its calls",
            Metric::Slow => "slow requests",
            Metric::Faults => "proxy faults",
        }
    }

    /// Its share of alpha: most of it where harm is most often seen.
    pub fn share(self) -> f64 {
        match self {
            Metric::Errors | Metric::CallerErrors => 0.35,
            Metric::CallErrors | Metric::Slow | Metric::Faults => 0.1,
        }
    }

    fn share_of(name: &str) -> f64 {
        Metric::ALL.into_iter().find(|metric| metric.name() == name).map_or(0.1, Metric::share)
    }

    /// Relative increase that is tolerated whatever the change says.
    pub fn least_tolerance(self) -> f64 {
        if self == Metric::Slow { SLOW_TOLERANCE } else { 0.0 }
    }
}

/// What one instance showed in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Events among them.
    pub events: u64,
}

impl Seen {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Seen) -> Seen {
        Seen { requests: self.requests + other.requests, events: self.events + other.events }
    }
}

/// What one comparison showed since the last look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What is compared.
    pub metric: Metric,
    /// Where.
    pub stratum: String,
    /// Changed instances and their windows.
    pub treated: Vec<(String, Vec<Seen>)>,
    /// Windows of unchanged instances.
    pub control: Vec<Seen>,
    /// What instances of `treated` showed before they changed, each once: in the sample of the second in which it was back.
    pub baseline: Seen,
    /// Latency histogram of the other side, while it is not known yet which requests are slow; else empty.
    pub latency: Vec<u64>,
    /// Seconds of reports of the changed instance that reported most.
    pub seconds: u64,
    /// Length of a window in seconds.
    pub window_seconds: u64,
    /// Tolerated relative increase.
    pub tolerance: f64,
    /// What control is, in words.
    pub compared_with: String,
    /// The stratum of another comparison of the same instances: only what both show is harm.
    pub paired: Option<String>,
}

impl Sample {
    /// Nobody needs a record of calls that an app never makes.
    fn says_something(&self) -> bool {
        let windows = self.treated.iter().flat_map(|(_, windows)| windows);
        let mut all = windows.chain(&self.control).chain(std::iter::once(&self.baseline));
        !self.latency.is_empty() || all.any(|seen| *seen != Seen::default())
    }
}

/// What the verdict is asked of.
#[derive(Debug, Clone)]
pub struct Question {
    /// Chance of a false block over the whole change.
    pub alpha: f64,
    /// Number of the batch, from 1.
    pub batch: u32,
    /// Strata in the batch.
    pub strata: usize,
    /// All its instances have changed and are watched.
    pub baking: bool,
    /// Bake time wanted (seconds).
    pub bake_seconds: u64,
    /// Requests wanted.
    pub min_requests: u64,
    /// Static health that is not (yet) as it must be, in words.
    pub unhealthy: Vec<String>,
}

/// Adds what was seen since the last look.
pub fn observe(verdict: &mut Verdict, samples: &[Sample]) {
    for sample in samples.iter().filter(|s| s.says_something()) {
        let index = evidence_of(verdict, sample);
        add(&mut verdict.evidence[index], sample);
    }
    let of = |metric: Metric| verdict.evidence.iter().filter(move |e| e.metric == metric.name());
    let requests = |metric| of(metric).map(|e| of_this_batch(e).treated_requests).sum::<u64>();
    let events = |metric| of(metric).map(|e| of_this_batch(e).treated_events).sum::<u64>();
    // An edge has callers outside the mesh only: its traffic shows in its calls.
    let seen = [Metric::Errors, Metric::CallErrors, Metric::CallerErrors];
    let busiest = seen.into_iter().max_by_key(|m| (requests(*m), *m == Metric::Errors)).unwrap_or(Metric::Errors);
    (verdict.requests, verdict.errors) = (requests(busiest), events(busiest));
}

/// For how many seconds changed instances reported: as many as the one that reported most.
pub fn watched_seconds(samples: &[Sample]) -> u64 {
    samples.iter().map(|s| s.seconds).max().unwrap_or(0)
}

fn evidence_of(verdict: &mut Verdict, sample: &Sample) -> usize {
    let same = |e: &Evidence| e.metric == sample.metric.name() && e.stratum == sample.stratum;
    verdict.evidence.iter().position(same).unwrap_or_else(|| {
        let (metric, stratum) = (sample.metric.name().to_owned(), sample.stratum.clone());
        verdict.evidence.push(Evidence { metric, stratum, ..Evidence::default() });
        verdict.evidence.len() - 1
    })
}

fn add(evidence: &mut Evidence, sample: &Sample) {
    let cut = Cut::new(evidence, sample);
    let (treated, control) = (cut.treated(sample), cut.control(sample));
    evidence.treated_instances = evidence.treated_instances.max(sample.treated.len() as u32);
    evidence.compared_with.clone_from(&sample.compared_with);
    evidence.paired.clone_from(&sample.paired);
    evidence.tolerance = sample.tolerance;
    learn_what_is_slow(evidence, &sample.latency);
    tally::note_scatter(evidence, &sample.control, cut);
    note_time(evidence, sample);
    evidence.treated_requests += treated.full.requests;
    evidence.treated_events += sample.treated.iter().flat_map(|(_, windows)| windows).map(|w| w.events).sum::<u64>();
    evidence.control_requests += control.full.requests;
    evidence.control_events += control.full.events;
    evidence.baseline_requests += sample.baseline.requests;
    evidence.baseline_events += sample.baseline.events;
    spread::note(evidence, sample, cut);
    if control.full.requests == 0 {
        return add_uncompared(evidence, sample, treated.full);
    }
    tally::add(evidence, treated, control, cut, sample);
    note_course(evidence);
}

fn learn_what_is_slow(evidence: &mut Evidence, latency: &[u64]) {
    slow::add(&mut evidence.latency, latency);
    evidence.slow_above_us = evidence.slow_above_us.or_else(|| slow::limit(&evidence.latency));
    if evidence.slow_above_us.is_some() {
        evidence.latency.clear();
    }
}

/// Keeps how the evidence grows, ever more coarsely.
fn note_course(evidence: &mut Evidence) {
    let step = evidence.seconds / COURSE_POINTS as u64;
    if evidence.course.last().is_none_or(|p| evidence.seconds > p.second + step) {
        evidence.course.push(Point { second: evidence.seconds, log_e: evidence.log_e });
    }
    if evidence.course.len() > COURSE_POINTS {
        let mut number = 0;
        evidence.course.retain(|_| {
            number += 1;
            number % 2 == 0
        });
    }
}

/// Requests of changed instances beside which there is no control.
fn add_uncompared(evidence: &mut Evidence, sample: &Sample, treated: Seen) {
    if treated.requests == 0 {
        return;
    }
    evidence.uncompared_requests += treated.requests;
    evidence.uncompared_events += treated.events;
    evidence.uncompared_looks = evidence.uncompared_looks.saturating_add(1);
    let (known, tolerance) = (reference(evidence), sample.tolerance.max(REPLAY_TOLERANCE));
    let uncompared = Seen { requests: evidence.uncompared_requests, events: evidence.uncompared_events };
    // The threshold is that of the other share.
    let share_spent = ((1.0 - BASELINE_SHARE) / BASELINE_SHARE).ln();
    let spent = share_spent + LOOKS_SPEND.ln() + 2.0 * f64::from(evidence.uncompared_looks).ln();
    let log_e = if known.requests > 0 { evalue::ln_e_of(uncompared, known, tolerance) - spent } else { 0.0 };
    evidence.uncompared_log_e = log_e / tally::clumpiness(evidence);
    spread::count_again_uncompared(evidence, treated, known, tolerance);
}

/// What requests without a control are compared with: the baseline, or what the control showed while there was one,
/// whichever rests on more requests.
fn reference(evidence: &Evidence) -> Seen {
    let baseline = Seen { requests: evidence.baseline_requests, events: evidence.baseline_events };
    let control = Seen { requests: evidence.control_requests, events: evidence.control_events };
    if baseline.requests > control.requests { baseline } else { control }
}

/// How much speaks for harm, beside a control or against the baseline.
fn strength(evidence: &Evidence) -> f64 {
    evidence.log_e.max(evidence.uncompared_log_e)
}

fn note_time(evidence: &mut Evidence, sample: &Sample) {
    let seconds = sample.seconds;
    let events = sample.treated.iter().flat_map(|(_, windows)| windows).any(|w| w.events > 0);
    evidence.quiet_seconds = if events { 0 } else { evidence.quiet_seconds + seconds };
    evidence.seconds += seconds;
}

/// The share of `alpha` that batch `number` may spend: shares of all batches, however many, sum to `alpha`.
fn share_of_alpha(alpha: f64, number: u32) -> f64 {
    let number = f64::from(number.max(1));
    alpha * 6.0 / (std::f64::consts::PI * number).powi(2)
}

/// What a comparison's `log_e` must reach: the batch's share of alpha, of which the metric has its `share`, split over its
/// comparisons (every stratum, those of an app and all of them together, each beside a control and against the baseline).
pub fn threshold(alpha: f64, batch: u32, strata: usize, share: f64) -> f64 {
    (comparisons_made(strata, share) / share_of_alpha(alpha, batch)).ln()
}

/// What a comparison's `log_e` must stay below for the batch to pass; never above the threshold.
pub fn held_from(alpha: f64, batch: u32, strata: usize, share: f64) -> f64 {
    (comparisons_made(strata, share) / HELD_BY_CHANCE).ln().min(threshold(alpha, batch, strata, share))
}

/// From this `log_e` on it is asked whether harm is the version's or one host's; never above the threshold.
pub fn suspicion(alpha: f64, batch: u32, strata: usize, share: f64) -> f64 {
    (comparisons_made(strata, share) / ASKED_AGAIN_BY_CHANCE).ln().min(threshold(alpha, batch, strata, share))
}

fn comparisons_made(strata: usize, share: f64) -> f64 {
    let strata = strata.max(1);
    let pooled = usize::from(strata > 1) + strata / 2;
    (strata + pooled) as f64 / share / (1.0 - BASELINE_SHARE)
}

/// Answers: sets the verdict's outcome and reason from its evidence.
pub fn decide(verdict: &mut Verdict, question: &Question) {
    let seen: BTreeSet<&str> = verdict.evidence.iter().map(|e| e.stratum.as_str()).collect();
    let question = &Question { strata: question.strata.max(seen.len()), ..question.clone() };
    let begun = verdict.evidence.iter_mut().filter(|e| e.since == 0);
    begun.for_each(|e| e.since = question.batch);
    verdict.threshold = threshold(question.alpha, question.batch, question.strata, Metric::Errors.share());
    verdict.excluded = verdict.evidence.iter().filter(|e| !compared(e)).map(words::excluded).collect();
    (verdict.outcome, verdict.reason) = answer(verdict, question);
    spread::follow_up(verdict, question);
}

impl Question {
    /// What proves harm.
    fn threshold(&self, of: &Evidence) -> f64 {
        threshold(self.alpha, of.since, self.strata, Metric::share_of(&of.metric))
    }

    fn suspicion(&self, of: &Evidence) -> f64 {
        suspicion(self.alpha, of.since, self.strata, Metric::share_of(&of.metric))
    }

    fn held_from(&self, of: &Evidence) -> f64 {
        held_from(self.alpha, of.since, self.strata, Metric::share_of(&of.metric))
    }
}

fn compared(evidence: &Evidence) -> bool {
    reference(evidence).requests > 0 || evidence.treated_requests == 0
}

fn answer(verdict: &Verdict, question: &Question) -> (Outcome, String) {
    let all = comparisons(verdict, question);
    if let Some(broken) = all.iter().find(|e| all_failed(e)) {
        return (Outcome::Fail, words::broken(broken));
    }
    let harmful = |e: &&Cow<Evidence>| strength(e) >= question.threshold(e) && of_the_version(e);
    if let Some(harm) = all.iter().filter(harmful).max_by(|a, b| strength(a).total_cmp(&strength(b))) {
        return (Outcome::Fail, words::harm(harm, question.threshold(harm)));
    }
    let baked = verdict.watched_seconds;
    if !question.baking {
        (Outcome::Inconclusive, words::changing(verdict))
    } else if let Some(problem) = question.unhealthy.first() {
        (Outcome::Inconclusive, format!("waits for static health: {problem}"))
    } else if baked < question.bake_seconds {
        (Outcome::Inconclusive, words::baking(verdict, baked, question.bake_seconds))
    } else if verdict.requests < question.min_requests {
        (Outcome::Inconclusive, words::too_little(verdict, question.min_requests))
    } else if let Some(doubt) = doubt(verdict, &all, question) {
        (Outcome::Inconclusive, words::doubt(doubt))
    } else {
        (Outcome::Pass, words::pass(verdict, baked))
    }
}

/// What proves harm, if anything does.
pub fn proof<'v>(verdict: &'v Verdict, question: &Question) -> Option<Cow<'v, Evidence>> {
    let harmful = |e: &Cow<Evidence>| all_failed(e) || strength(e) >= question.threshold(e) && of_the_version(e);
    let all = comparisons(verdict, question).into_iter().filter(harmful);
    all.max_by(|a, b| strength(a).total_cmp(&strength(b)))
}

/// What a comparison has counted, on changed instances and on those beside them.
pub fn sides(evidence: &Evidence) -> [Seen; 2] {
    let treated = Seen { requests: evidence.treated_requests, events: evidence.treated_events };
    [treated, reference(evidence)]
}

/// The strongest reason not to let the batch pass yet.
fn doubt<'e>(verdict: &Verdict, all: &'e [Cow<Evidence>], question: &Question) -> Option<&'e Evidence> {
    let too_many = |e: &Evidence| e.treated_events as f64 > e.treated_requests as f64 * UNKNOWN_SHARE;
    let unknown = |e: &Evidence| !compared(e) && too_many(e) && !pair_of(e, verdict).is_some_and(compared);
    let suspicious = |e: &Evidence| strength(e) >= question.held_from(e) || unknown(e);
    let quiet = question.bake_seconds.max(QUIET_SECONDS);
    let doubtful = all.iter().map(|e| &**e).filter(|e| of_this_batch(e).treated_requests > 0);
    let doubtful = doubtful.filter(|e| suspicious(e) && e.quiet_seconds < quiet);
    doubtful.max_by(|a, b| strength(a).total_cmp(&strength(b)))
}

fn pair_of<'v>(evidence: &Evidence, verdict: &'v Verdict) -> Option<&'v Evidence> {
    let paired = evidence.paired.as_ref()?;
    verdict.evidence.iter().find(|e| e.metric == evidence.metric && e.stratum == *paired)
}

/// Each stratum's evidence, and where there are several, that of an app's together and that of all together: independent
/// E-values multiply to an E-value. Of a pair, the weaker one.
fn comparisons<'v>(verdict: &'v Verdict, question: &Question) -> Vec<Cow<'v, Evidence>> {
    let alone: Vec<&Evidence> = verdict.evidence.iter().filter(|e| !is_outdone(verdict, e)).collect();
    let mut all: Vec<Cow<Evidence>> = alone.iter().map(|e| Cow::Borrowed(*e)).collect();
    for metric in Metric::ALL {
        let mut of_metric: Vec<&Evidence> = alone.iter().copied().filter(|e| e.metric == metric.name()).collect();
        of_metric.sort_by_key(|e| &e.stratum);
        let apps: Vec<&[&Evidence]> = of_metric.chunk_by(|a, b| app_of(a) == app_of(b)).collect();
        let several = apps.len() > 1;
        let of_apps = apps.iter().filter(|_| several).map(|parts| (app_of(parts[0]), *parts));
        let together = std::iter::once(("all", of_metric.as_slice())).chain(of_apps);
        let together = together.filter(|(_, parts)| parts.len() > 1 && spread::over_strata(parts, question));
        all.extend(together.map(|(name, parts)| Cow::Owned(pooled(metric, name, parts, question))));
    }
    all
}

/// The app in a stratum's words.
fn app_of(evidence: &Evidence) -> &str {
    evidence.stratum.split(" unit=").next().unwrap_or_default()
}

/// The other of its pair shows less.
fn is_outdone(verdict: &Verdict, evidence: &Evidence) -> bool {
    pair_of(evidence, verdict)
        .is_some_and(|other| (strength(other), &other.stratum) < (strength(evidence), &evidence.stratum))
}

fn pooled(metric: Metric, name: &str, parts: &[&Evidence], question: &Question) -> Evidence {
    let fresh = parts.iter().filter(|e| of_this_batch(e).treated_requests > 0);
    let sum = |of: fn(&Evidence) -> u64| parts.iter().map(|e| of(e)).sum();
    Evidence {
        metric: metric.name().to_owned(),
        stratum: if name == "all" {
            format!("all {} strata", parts.len())
        } else {
            format!("{name}, {} strata", parts.len())
        },
        since: question.batch,
        earlier: Earlier {
            treated_requests: sum(|e| e.earlier.treated_requests),
            treated_events: sum(|e| e.earlier.treated_events),
            ..Earlier::default()
        },
        treated_requests: sum(|e| e.treated_requests),
        treated_events: sum(|e| e.treated_events),
        control_requests: sum(|e| e.control_requests),
        control_events: sum(|e| e.control_events),
        log_e: parts.iter().map(|e| believed(e, e.log_e, question)).sum(),
        uncompared_requests: sum(|e| e.uncompared_requests),
        uncompared_events: sum(|e| e.uncompared_events),
        uncompared_log_e: parts.iter().map(|e| believed(e, e.uncompared_log_e, question)).sum(),
        baseline_requests: sum(|e| e.baseline_requests),
        baseline_events: sum(|e| e.baseline_events),
        treated_instances: parts.iter().map(|e| e.treated_instances).sum(),
        treated_counted: sum(|e| e.treated_counted),
        control_counted: sum(|e| e.control_counted),
        quiet_seconds: fresh.map(|e| e.quiet_seconds).min().unwrap_or(0),
        tolerance: parts.iter().map(|e| e.tolerance).fold(0.0, f64::max),
        harmed: parts.iter().flat_map(|e| e.harmed.clone()).collect(),
        ..Evidence::default()
    }
}

/// What a part of a pool says: a stratum that is suspicious by itself counts for no more until it is confirmed, lest a few
/// bursts of hosts add up.
fn believed(evidence: &Evidence, log_e: f64, question: &Question) -> f64 {
    if spread::confirmed(evidence) { log_e } else { log_e.min(question.suspicion(evidence)) }
}

/// Harm is the version's, not one host's or one moment's.
fn of_the_version(evidence: &Evidence) -> bool {
    let windows: u32 = evidence.harmed.values().map(|h| h.windows).sum();
    let over_strata = evidence.compared_with.is_empty();
    if over_strata {
        return windows >= HARMED_WINDOWS;
    }
    if evidence.treated_instances == 1 || replayed(evidence) {
        return windows >= HARMED_WINDOWS && spread::confirmed(evidence);
    }
    let few = evidence.treated_instances <= FEW_INSTANCES;
    windows >= HARMED_WINDOWS && spread::spread(evidence) && (!few || spread::confirmed(evidence))
}

/// It rests on the instances' own past only, so an outage of the app's looks like harm while it lasts.
fn replayed(evidence: &Evidence) -> bool {
    evidence.compared_with == Beside::Past.words()
}

/// Nearly every request fails, and not beside them (as far as that is known).
fn all_failed(evidence: &Evidence) -> bool {
    let known = reference(evidence);
    let windows: u32 = evidence.harmed.values().map(|h| h.windows).sum();
    let Earlier { treated_requests: requests, treated_events: events, .. } = of_this_batch(evidence);
    evidence.metric == Metric::Errors.name()
        && requests >= ALL_FAILED_REQUESTS
        && windows >= HARMED_WINDOWS
        && events as f64 >= requests as f64 * ALL_FAILED_SHARE
        && known.events * 2 <= known.requests
}

/// Nothing seen yet.
pub fn open_verdict() -> Verdict {
    Verdict {
        outcome: Outcome::Inconclusive,
        reason: String::new(),
        evidence: Vec::new(),
        excluded: Vec::new(),
        set_aside: Vec::new(),
        blame: Vec::new(),
        requests: 0,
        errors: 0,
        judged_until: None,
        watched_seconds: 0,
        threshold: 0.0,
    }
}

#[cfg(test)]
mod tests;
