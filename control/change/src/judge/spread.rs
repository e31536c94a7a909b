//! Is it the version, or one host's bad minute?
//!
//! A sequential test tells that changed instances show more events than they should. It does not tell why: a host that
//! has a burst of its own looks the same. Two things tell them apart:
//! - Where a comparison has several changed instances, harm must remain when the worst quarter of them (at least one) is
//!   left out ([`spread`]): a version's harm shows on most.
//! - Where it has one, harm must come again: some time after the first suspicion ([`LASTING_SECONDS`] at most) a second
//!   test begins, which knows nothing of what was before, and must find harm by itself ([`again`]).
//!
//! Where the other side's own windows show events in clumps, all evidence is weakened accordingly ([`clumpiness`]).
//!
//! All of this only ever withholds a failure, so the bound on false alarms stands. What is withheld holds the batch: until it is
//! confirmed, or until the second test has watched for a whole bake and found nothing; then the burst is set aside, in
//! words, and the comparison goes on from the second test.

use weir_model::change::{Again, Evidence, Harmed, Outcome, Verdict};

use super::evalue::{self, Counts};
use super::{QUIET_SECONDS, Question, Sample, Seen, replayed, strength, words};

/// Changed instances named in a comparison's evidence: those with most events.
pub const HARMED_NAMED: usize = 32;
/// Longest time between a suspicion on one instance and the second test, in seconds; less where the bake is short.
pub const LASTING_SECONDS: u64 = 60;
/// The same where the comparison is with the instance's own past, in seconds; a bake at most.
pub const OUTAGE_SECONDS: u64 = 600;
/// What the second test must reach: `ln 20`.
pub const CONFIRMED: f64 = 2.995_732_273_553_991;
/// Below this the second test has found nothing: `ln e`.
const REFUTED: f64 = 1.0;
/// What a comparison without its worst instances must reach: `ln 10`.
pub const SPREAD: f64 = std::f64::consts::LN_10;

/// Events on both sides from which a second test that speaks against harm has had its chance to find it.
pub const ENOUGH_EVENTS: u64 = 50;
/// Events' worth of belief that each comes alone.
const SURELY_ONE: f64 = 5.0;
/// Evidence is weakened by this factor at most.
const MOST_CLUMPY: f64 = 20.0;
/// Bursts of a batch that are listed; what is cut off has been counted all the same.
const SET_ASIDE_LISTED: usize = 20;
/// With so few events on changed instances there is nothing left to suspect.
pub const FEW_EVENTS: u64 = 2;

/// Notes which changed instances had events.
pub(super) fn note(evidence: &mut Evidence, sample: &Sample) {
    for (name, windows) in &sample.treated {
        let harmed = windows.iter().filter(|w| w.events > 0).count() as u32;
        if harmed > 0 {
            let of = evidence.harmed.entry(name.clone()).or_default();
            of.windows += harmed;
            of.events += windows.iter().map(|w| w.events).sum::<u64>();
        }
    }
    while evidence.harmed.len() > HARMED_NAMED {
        let least = evidence.harmed.iter().min_by_key(|(_, h)| (h.events, h.windows)).map(|(name, _)| name.clone());
        evidence.harmed.remove(&least.unwrap_or_default());
    }
}

/// The instance with most events.
pub(super) fn worst(evidence: &Evidence) -> (&str, Harmed) {
    let most = evidence.harmed.iter().max_by_key(|(_, h)| h.events);
    most.map_or(("", Harmed::default()), |(name, harmed)| (name, *harmed))
}

/// Harm remains without the worst quarter of several changed instances.
pub(super) fn spread(evidence: &Evidence, known: Seen, tolerance: f64) -> bool {
    let instances = u64::from(evidence.treated_instances);
    if instances < 2 {
        return false;
    }
    let mut most: Vec<u64> = evidence.harmed.values().map(|h| h.events).collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    let left_out = instances.div_ceil(4);
    let rest = evidence.treated_requests / instances * (instances - left_out);
    let worst: u64 = most.iter().take(left_out as usize).sum();
    let counts = Counts { treated: evidence.treated_events.saturating_sub(worst), control: known.events };
    let share = evalue::tolerated_share(rest, known.requests, tolerance);
    share.is_some_and(|theta0| evalue::ln_factor(theta0, Counts::default(), counts) / clumpiness(evidence) >= SPREAD)
}

/// Harm remains without the worst quarter of the strata.
pub(super) fn over_strata(parts: &[&Evidence]) -> bool {
    let mut strengths: Vec<f64> = parts.iter().map(|e| strength(e)).collect();
    strengths.sort_unstable_by(|a, b| b.total_cmp(a));
    strengths.iter().skip(parts.len().div_ceil(4)).sum::<f64>() >= SPREAD
}

/// Notes how much the windows of the other side scatter around their mean, within one look: what the app suffers as a
/// whole moves all of them and is no scatter.
pub(super) fn note_scatter(evidence: &mut Evidence, control: &[Seen]) {
    let windows = control.len() as f64;
    if windows < 2.0 {
        return;
    }
    let mean = control.iter().map(|w| w.events as f64).sum::<f64>() / windows;
    evidence.scatter += control.iter().map(|w| (w.events as f64 - mean).powi(2)).sum::<f64>();
    evidence.scatter_expected += (windows - 1.0) * mean;
}

/// Variance of the windows' events over their mean, drawn towards 1 where little is known: 1 where each event comes alone
/// (Poisson), more where they come in clumps, each of which says no more than one event does.
pub(super) fn clumpiness(evidence: &Evidence) -> f64 {
    ((evidence.scatter + SURELY_ONE) / (evidence.scatter_expected + SURELY_ONE)).clamp(1.0, MOST_CLUMPY)
}

/// Counts a window in the second test, once that has begun.
pub(super) fn count_again(evidence: &mut Evidence, theta0: f64, now: Counts) {
    let seconds = evidence.seconds;
    let Some(again) = evidence.again.as_mut().filter(|a| seconds > a.from) else { return };
    let before = Counts { treated: again.treated_counted, control: again.control_counted };
    let factor = evalue::ln_factor(theta0, before, now);
    again.log_e += if factor.is_finite() { factor } else { 0.0 };
    again.treated_counted += now.treated;
    again.control_counted += now.control;
}

/// The same where nothing stands beside the changed instances but what is known of before.
pub(super) fn count_again_uncompared(evidence: &mut Evidence, treated: Seen, known: Seen, tolerance: f64) {
    let seconds = evidence.seconds;
    let Some(again) = evidence.again.as_mut().filter(|a| seconds > a.from) else { return };
    again.uncompared_requests += treated.requests;
    again.uncompared_events += treated.events;
    let share = evalue::tolerated_share(again.uncompared_requests, known.requests, tolerance);
    let counts = Counts { treated: again.uncompared_events, control: known.events };
    let log_e = share.map_or(0.0, |theta0| evalue::ln_factor(theta0, Counts::default(), counts));
    again.uncompared_log_e = if log_e.is_finite() { log_e } else { 0.0 };
}

/// The second test has found harm by itself.
pub(super) fn confirmed(evidence: &Evidence) -> bool {
    evidence.again.is_some_and(|again| again.log_e.max(again.uncompared_log_e) / clumpiness(evidence) >= CONFIRMED)
}

/// Begins second tests where one instance alone is suspicious, and sets aside bursts that did not come again.
pub(super) fn follow_up(verdict: &mut Verdict, question: &Question, suspicion: f64) {
    if verdict.outcome == Outcome::Fail {
        return;
    }
    let watched = question.bake_seconds.max(QUIET_SECONDS);
    for evidence in &mut verdict.evidence {
        match evidence.again {
            None if strength(evidence) >= suspicion => {
                let lasting = lasting_seconds(evidence, question.bake_seconds);
                evidence.again = Some(Again { from: evidence.seconds + lasting, ..Again::default() });
            }
            Some(again) if evidence.seconds < again.from + watched => {}
            Some(again) if refuted(again) => {
                if verdict.set_aside.len() < SET_ASIDE_LISTED {
                    verdict.set_aside.push(words::burst(evidence));
                }
                begin_anew(evidence, again);
            }
            // It says something of the time it has watched; what is now is asked of another one.
            Some(_) => evidence.again = Some(Again { from: evidence.seconds, ..Again::default() }),
            None => {}
        }
    }
}

/// How long after a suspicion the second test begins: a host's burst is over by then, and where an instance is compared
/// with its own past, an ordinary outage of its app too.
fn lasting_seconds(evidence: &Evidence, bake_seconds: u64) -> u64 {
    if replayed(evidence) { OUTAGE_SECONDS.min(bake_seconds) } else { LASTING_SECONDS.min(bake_seconds / 3) }
}

fn refuted(again: Again) -> bool {
    let treated = again.treated_counted + again.uncompared_events;
    let enough = treated + again.control_counted >= ENOUGH_EVENTS;
    let log_e = again.log_e.max(again.uncompared_log_e);
    treated == 0 || log_e < REFUTED && (enough || treated <= FEW_EVENTS)
}

/// The comparison goes on from the second test. Each new beginning is another chance of a false alarm, so each must be
/// twice as strong as the one before.
fn begin_anew(evidence: &mut Evidence, again: Again) {
    evidence.bursts += 1;
    evidence.log_e = again.log_e - std::f64::consts::LN_2 * f64::from(evidence.bursts);
    (evidence.treated_counted, evidence.control_counted) = (again.treated_counted, again.control_counted);
    evidence.uncompared_requests = again.uncompared_requests;
    evidence.uncompared_events = again.uncompared_events;
    evidence.uncompared_log_e = 0.0;
    evidence.again = None;
}
