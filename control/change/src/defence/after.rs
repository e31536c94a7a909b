//! Checks of the catalogue that are asked after a batch has changed.

use std::collections::BTreeSet;

use weir_model::change::{Batch, Evidence, Outcome};
use weir_model::slo::Alert;

use super::{Answer, Facts, Stage, listed};
use crate::judge::Metric;
use crate::world::{Member, SloFact};

/// Instances of the batch that are still there.
fn members<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Member> {
    let batch = batch(facts);
    let ours = move |m: &&Member| batch.is_some_and(|b| b.done.contains_key(&*m.name));
    let left = &facts.change.status.left;
    facts.world.members.iter().filter(ours).filter(|m| !left.contains_key(&*m.name))
}

fn batch<'a>(facts: &Facts<'a>) -> Option<&'a Batch> {
    match facts.stage {
        Stage::Changed { batch, .. } => Some(batch),
        _ => None,
    }
}

pub(super) fn converged(facts: &Facts) -> Option<Answer> {
    let target = facts.change.spec.target();
    let other: Vec<&str> = members(facts).filter(|m| &*m.running != target).map(|m| &*m.name).collect();
    Some(match other.is_empty() {
        true => Answer::pass(format!("all {} instances run {}", members(facts).count(), facts.change.spec.action)),
        false => Answer::wait(format!("{} do not run {}", listed(&other), facts.change.spec.action)),
    })
}

pub(super) fn healthy(facts: &Facts) -> Option<Answer> {
    let Stage::Changed { unhealthy, batch } = facts.stage else { return None };
    Some(match unhealthy.first() {
        None => Answer::pass(format!("all {} instances serve, each with a self-check that passed", batch.done.len())),
        Some(first) => Answer::wait(format!("{} of {} do not: {first}", unhealthy.len(), batch.done.len())),
    })
}

pub(super) fn verdict(facts: &Facts) -> Option<Answer> {
    let verdict = batch(facts)?.verdict.as_ref()?;
    let reason = verdict.reason.clone();
    Some(match verdict.outcome {
        Outcome::Pass => Answer::pass(reason),
        Outcome::Inconclusive => Answer::wait(reason),
        Outcome::Fail => Answer::fail(reason),
    })
}

/// Of the judge's comparisons, those of what callers saw.
pub(super) fn callers(facts: &Facts) -> Option<Answer> {
    let verdict = batch(facts)?.verdict.as_ref()?;
    let seen = verdict.evidence.iter().filter(|e| e.metric == Metric::CallerErrors.name());
    let strength = |e: &Evidence| e.log_e.max(e.uncompared_log_e);
    let harmed = seen.clone().find(|e| verdict.threshold > 0.0 && strength(e) >= verdict.threshold);
    let sum = |of: fn(&Evidence) -> u64| seen.clone().map(of).sum::<u64>();
    let (requests, errors) = (sum(|e| e.treated_requests), sum(|e| e.treated_events));
    Some(match harmed {
        Some(e) => Answer::fail(format!(
            "callers saw {} of {} requests to changed instances fail ({}), {} of {} elsewhere",
            e.treated_events, e.treated_requests, e.stratum, e.control_events, e.control_requests
        )),
        None if requests == 0 => Answer::pass("no caller in the mesh has called them yet"),
        None => Answer::pass(format!("callers saw {errors} of {requests} requests fail, no more than elsewhere")),
    })
}

/// An app of the batch has begun to burn at paging speed since the batch began: the judge may still call it the app's
/// own fault, but nothing goes on meanwhile.
pub(super) fn burn(facts: &Facts) -> Option<Answer> {
    let began = batch(facts)?.started_at?;
    let apps: BTreeSet<&str> = members(facts).map(|m| &*m.app).collect();
    let ours = |slo: &&SloFact| apps.contains(&*slo.app);
    let newly = |slo: &&SloFact| slo.alert == Alert::Page && slo.alert_since.is_some_and(|since| since >= began);
    let burning: Vec<&str> = facts.world.slos.iter().filter(ours).filter(newly).map(|s| &*s.name).collect();
    Some(match burning.is_empty() {
        true => Answer::pass("no objective of its apps has begun to burn at paging speed"),
        false => Answer::wait(format!(
            "slo/{} has burned at paging speed since after the batch began; it is held until that ends",
            listed(&burning)
        )),
    })
}
