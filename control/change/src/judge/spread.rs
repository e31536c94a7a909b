//! Is it the version, or one host's bad minute?
//!
//! A sequential test tells that changed instances show more events than they should. It does not tell why: a host that
//! has a burst of its own looks the same. Two things tell them apart:
//! - Where a comparison has several changed instances, harm must remain when the worst of them is left out ([`spread`]).
//! - Where it has one, harm must come again: some time after the first suspicion ([`LASTING_SECONDS`] at most) a second
//!   test begins, which knows nothing of what was before, and must find harm by itself ([`again`]).
//!
//! Both only ever withhold a failure, so the bound on false alarms stands. What is withheld holds the batch: until it is
//! confirmed, or until the second test has watched for a whole bake and found nothing; then the burst is set aside, in
//! words, and the comparison goes on from the second test.

use weir_model::change::{Again, Evidence, Harmed, Outcome, Verdict};

use super::evalue::{self, Counts};
use super::{QUIET_SECONDS, Question, Sample, Seen, words};

/// Changed instances named in a comparison's evidence: those with most events.
pub const HARMED_NAMED: usize = 32;
/// Longest time between a suspicion on one instance and the second test, in seconds; less where the bake is short.
pub const LASTING_SECONDS: u64 = 60;
/// What the second test, and a comparison without its worst instance, must reach: `ln 20`.
pub const CONFIRMED: f64 = 2.995_732_273_553_991;

/// Events on both sides from which a second test that speaks against harm has had its chance to find it.
pub const ENOUGH_EVENTS: u64 = 50;
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

/// Harm remains without the worst of several changed instances.
pub(super) fn spread(evidence: &Evidence, known: Seen, tolerance: f64) -> bool {
    let instances = u64::from(evidence.treated_instances);
    if instances < 2 {
        return false;
    }
    let rest = evidence.treated_requests / instances * (instances - 1);
    let treated = evidence.treated_events.saturating_sub(worst(evidence).1.events);
    let share = evalue::tolerated_share(rest, known.requests, tolerance);
    share.is_some_and(|theta0| {
        let counts = Counts { treated, control: known.events };
        evalue::ln_factor(theta0, Counts::default(), counts) >= CONFIRMED
    })
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

/// The second test has found harm by itself.
pub(super) fn confirmed(evidence: &Evidence) -> bool {
    evidence.again.is_some_and(|again| again.log_e >= CONFIRMED)
}

/// Begins second tests where one instance alone is suspicious, and sets aside bursts that did not come again.
pub(super) fn follow_up(verdict: &mut Verdict, question: &Question, suspicion: f64) {
    if verdict.outcome == Outcome::Fail {
        return;
    }
    let lasting = LASTING_SECONDS.min(question.bake_seconds / 10);
    let watched = question.bake_seconds.max(QUIET_SECONDS);
    for evidence in &mut verdict.evidence {
        match evidence.again {
            None if evidence.log_e >= suspicion => {
                evidence.again = Some(Again { from: evidence.seconds + lasting, ..Again::default() });
            }
            Some(again) if evidence.seconds >= again.from + watched && refuted(again) => {
                verdict.set_aside.push(words::burst(evidence));
                begin_anew(evidence, again);
            }
            _ => {}
        }
    }
}

fn refuted(again: Again) -> bool {
    let enough = again.treated_counted + again.control_counted >= ENOUGH_EVENTS;
    again.log_e < 0.0 && (enough || again.treated_counted <= FEW_EVENTS)
        || again.log_e == 0.0 && again.treated_counted == 0
}

/// The comparison goes on from the second test. Each new beginning is another chance of a false alarm, so each must be
/// twice as strong as the one before.
fn begin_anew(evidence: &mut Evidence, again: Again) {
    evidence.bursts += 1;
    evidence.log_e = again.log_e - std::f64::consts::LN_2 * f64::from(evidence.bursts);
    (evidence.treated_counted, evidence.control_counted) = (again.treated_counted, again.control_counted);
    evidence.again = None;
}
