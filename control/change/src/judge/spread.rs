//! Is it the version, or one host's bad minute?
//!
//! A sequential test tells that changed instances show more events than they should. It does not tell why: a host that
//! has a burst of its own looks the same. Two things tell them apart:
//! - Where a comparison has several changed instances, harm must remain when the worse half of them is
//!   left out ([`spread`]): a version's harm shows on most.
//! - Where it has one, harm must come again: some time after the first suspicion ([`LASTING_SECONDS`] at most) a second
//!   test begins, which knows nothing of what was before, and must find harm by itself ([`again`]).
//!
//! Where the other side's own windows show events in clumps, all evidence is weakened accordingly ([`tally`](super::tally)).
//!
//! All of this only ever withholds a failure, so the bound on false alarms stands. What is withheld holds the batch: until it is
//! confirmed, or until the second test has watched for a whole bake and found nothing; then the burst is set aside, in
//! words, and the comparison goes on from the second test.

use weir_model::change::{Again, Evidence, Harmed, Outcome, Verdict};

use super::tally::{Cut, clumpiness, clumpiness_trimmed, go_on_from};
use super::{Question, Sample, Seen, believed, evalue, reference, replayed, strength, words};

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
/// At this the second test speaks against what was suspected: `-ln 10`.
const LOST: f64 = -std::f64::consts::LN_10;
/// What a comparison without its worst instances must reach: `ln 10`.
pub const SPREAD: f64 = std::f64::consts::LN_10;

/// Bursts of a batch that are listed; what is cut off has been counted all the same.
const SET_ASIDE_LISTED: usize = 20;
/// With so few events on changed instances there is nothing left to suspect.
pub const FEW_EVENTS: u64 = 2;

/// Notes which changed instances had events.
pub(super) fn note(evidence: &mut Evidence, sample: &Sample, cut: Cut) {
    for (name, windows) in &sample.treated {
        let harmed = windows.iter().filter(|w| w.events > 0).count() as u32;
        if harmed > 0 {
            let of = evidence.harmed.entry(name.clone()).or_default();
            of.windows += harmed;
            of.events += windows.iter().map(|w| w.events).sum::<u64>();
            of.counted += windows.iter().map(|w| cut.counted(w)).sum::<u64>();
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

/// Harm remains without the worse half of several changed instances, with events counted in full or with clumps trimmed.
pub(super) fn spread(evidence: &Evidence) -> bool {
    let instances = u64::from(evidence.treated_instances);
    if instances < 2 {
        return false;
    }
    let left_out = instances / 2;
    let requests = evidence.treated_requests / instances * (instances - left_out);
    let without = |events: u64, of: fn(&Harmed) -> u64| {
        let worst = most(evidence, of, left_out as usize);
        Seen { requests, events: events.saturating_sub(worst) }
    };
    let tolerance = evidence.tolerance;
    let in_full = evalue::ln_e_of(without(evidence.treated_events, |h| h.events), reference(evidence), tolerance);
    let counted = without(evidence.treated_counted, |h| h.counted);
    let beside = Seen { requests: evidence.control_requests, events: evidence.control_counted };
    let trimmed = evalue::ln_e_of(counted, beside, tolerance);
    (in_full / clumpiness(evidence)).max(trimmed / clumpiness_trimmed(evidence)) >= SPREAD
}

/// Events of the so many worst instances.
fn most(evidence: &Evidence, of: fn(&Harmed) -> u64, count: usize) -> u64 {
    let mut most: Vec<u64> = evidence.harmed.values().map(of).collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    most.iter().take(count).sum()
}

/// Harm remains without the worst quarter of the strata.
pub(super) fn over_strata(parts: &[&Evidence], question: &Question) -> bool {
    let mut strengths: Vec<f64> = parts.iter().map(|e| believed(e, strength(e), question)).collect();
    strengths.sort_unstable_by(|a, b| b.total_cmp(a));
    strengths.iter().skip(parts.len().div_ceil(4)).sum::<f64>() >= SPREAD
}

/// The same where nothing stands beside the changed instances but what is known of before.
pub(super) fn count_again_uncompared(evidence: &mut Evidence, treated: Seen, known: Seen, tolerance: f64) {
    let seconds = evidence.seconds;
    let Some(again) = evidence.again.as_mut().filter(|a| seconds > a.from) else { return };
    again.uncompared_requests += treated.requests;
    again.uncompared_events += treated.events;
    let uncompared = Seen { requests: again.uncompared_requests, events: again.uncompared_events };
    again.uncompared_log_e = evalue::ln_e_of(uncompared, known, tolerance);
}

/// The second test has found harm by itself.
pub(super) fn confirmed(evidence: &Evidence) -> bool {
    let confirms = |again: &Again| again.log_e.max(again.uncompared_log_e / clumpiness(evidence)) >= CONFIRMED;
    evidence.again.as_ref().is_some_and(confirms)
}

/// Begins second tests where one instance alone is suspicious, and sets aside bursts that did not come again.
pub(super) fn follow_up(verdict: &mut Verdict, question: &Question) {
    if verdict.outcome == Outcome::Fail {
        return;
    }
    let watched = question.bake_seconds.max(LASTING_SECONDS);
    for evidence in &mut verdict.evidence {
        match &evidence.again {
            None if strength(evidence) >= question.suspicion(evidence) => {
                let lasting = lasting_seconds(evidence, question.bake_seconds);
                evidence.again = Some(Again { from: evidence.seconds + lasting, ..Again::default() });
            }
            Some(again) if evidence.seconds < again.from + watched => {}
            Some(again) if refuted(evidence, again) => {
                if verdict.set_aside.len() < SET_ASIDE_LISTED {
                    verdict.set_aside.push(words::burst(evidence));
                }
                begin_anew(evidence);
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

fn refuted(evidence: &Evidence, again: &Again) -> bool {
    let treated = again.treated_counted + again.uncompared_events;
    let log_e = again.log_e.max(again.uncompared_log_e);
    treated == 0 || log_e < REFUTED && (treated <= FEW_EVENTS || lost_bet(evidence, again))
}

/// The bet that has won most on the suspicion has lost since: had the harm gone on, there would be more of it.
fn lost_bet(evidence: &Evidence, again: &Again) -> bool {
    let best = evidence.won.iter().zip(&again.won).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.is_some_and(|(_, since)| *since <= LOST)
}

/// The comparison goes on from the second test. Each new beginning is another chance of a false alarm, so each must be
/// twice as strong as the one before.
fn begin_anew(evidence: &mut Evidence) {
    let Some(again) = evidence.again.take() else { return };
    evidence.bursts += 1;
    evidence.uncompared_requests = again.uncompared_requests;
    evidence.uncompared_events = again.uncompared_events;
    evidence.uncompared_log_e = 0.0;
    go_on_from(evidence, again, std::f64::consts::LN_2 * f64::from(evidence.bursts));
}
