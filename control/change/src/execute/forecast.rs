//! What is to come, as the status shows it, and how a new plan differs from the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_model::change::{Batch, BatchPhase, PlanVersion};

use super::step::Walk;
use crate::plan::{Plan, Planned, Wait};

/// Names listed before "and so on".
const LISTED: usize = 3;
/// Differences told of one planning.
const MAX_DIFFERENCES: usize = 20;

impl Walk<'_> {
    /// Shows the batches to come; keeps what is shown while the same instances are in them.
    pub(super) fn forecast(&mut self, plan: &Plan) {
        let shown: Vec<&Batch> = self.status.batches.iter().filter(|b| b.phase == BatchPhase::Waiting).collect();
        let same = |(batch, planned): (&&Batch, &Planned)| {
            let named = batch.instances.iter().map(String::as_str).eq(planned.instances.iter().map(|n| &**n));
            // After a restart the names behind the forecast are not known any more.
            named || batch.instances.is_empty() && batch.size as usize == planned.instances.len()
        };
        let unchanged = shown.len() == plan.batches.len() && shown.iter().zip(&plan.batches).all(same);
        let named = shown.iter().all(|b| !b.instances.is_empty());
        if unchanged && named && self.status.plan.is_some() {
            return;
        }
        if !unchanged || self.status.plan.is_none() {
            self.status.plan = Some(self.version(plan));
        }
        self.status.batches.retain(|b| b.phase != BatchPhase::Waiting);
        let first = self.status.batches.len() as u32 + 1;
        self.status.batches.extend((first..).zip(&plan.batches).map(|(number, planned)| waiting(number, planned)));
    }

    fn version(&self, plan: &Plan) -> PlanVersion {
        let before = self.status.plan.as_ref();
        let differences = before.map_or_else(Vec::new, |before| self.differences(before, plan));
        let reason = match (before, differences.first()) {
            (None, _) => "the first plan".to_owned(),
            (Some(_), Some(first)) => first.clone(),
            (Some(_), None) => "the control plane was restarted, or times have moved".to_owned(),
        };
        let scope: u64 = self.world.members.iter().filter(|m| m.in_scope).map(|m| m.weight).sum();
        let weight = |batch: &Planned| -> u64 {
            batch.instances.iter().filter_map(|n| self.by_name.get(&**n)).map(|m| m.weight).sum()
        };
        let largest = plan.batches.iter().map(weight).max().unwrap_or(0);
        PlanVersion {
            version: before.map_or(1, |b| b.version + 1),
            at: Some(self.now),
            reason,
            batches: plan.batches.len() as u32,
            instances: plan.batches.iter().map(|b| b.instances.len()).sum::<usize>() as u32,
            deferred: plan.deferred.len() as u32,
            ends: plan.batches.last().map(|b| b.end),
            largest_percent: if scope == 0 { 0.0 } else { largest as f64 * 100.0 / scope as f64 },
            differences,
        }
    }

    /// What a new planning changed, what matters most first.
    fn differences(&self, before: &PlanVersion, plan: &Plan) -> Vec<String> {
        let old =
            positions(self.status.batches.iter().filter(|b| b.phase == BatchPhase::Waiting).map(|b| &*b.instances));
        let new = positions(plan.batches.iter().map(|b| &b.instances));
        let mut told = Vec::new();
        let mut tell =
            |names: Vec<&str>, what: &str| told.extend(listed(&names).map(|names| format!("{names} {what}")));
        // Batches are numbered from the next one in both: those that have begun are in neither.
        if !old.is_empty() {
            let fresh = new.keys().filter(|n| !old.contains_key(*n)).copied().collect();
            tell(fresh, "came into the plan: new, or free to change now");
            let gone = old.keys().filter(|n| !new.contains_key(*n)).copied().filter(|n| !self.has_begun(n)).collect();
            tell(gone, "left the plan: gone, changed by somebody else, or held");
            let moved = |sooner: bool| {
                let both = old.iter().filter_map(|(n, at)| Some((*n, *at, *new.get(n)?)));
                both.filter(|(_, at, to)| if sooner { to < at } else { to > at }).map(|(n, ..)| n).collect()
            };
            tell(moved(true), "go in an earlier batch");
            tell(moved(false), "go in a later batch");
        }
        if before.deferred as usize != plan.deferred.len() {
            told.push(format!(
                "{} instances have to wait, {} had to{}",
                plan.deferred.len(),
                before.deferred,
                why(plan)
            ));
        }
        if before.batches as usize != plan.batches.len() {
            told.push(format!("{} batches are to come, {} were", plan.batches.len(), before.batches));
        }
        if let (Some(ends), Some(then)) = (plan.batches.last().map(|b| b.end), before.ends.filter(|_| !told.is_empty()))
        {
            told.push(format!("forecast end {ends:.0}, was {then:.0}"));
        }
        told.truncate(MAX_DIFFERENCES);
        told
    }

    fn has_begun(&self, name: &str) -> bool {
        let begun = self.status.batches.iter().filter(|b| b.phase != BatchPhase::Waiting);
        begun.into_iter().any(|b| b.started.contains_key(name))
    }
}

/// In which batch from the next one each instance is.
fn positions<'p, N: AsRef<str> + 'p>(batches: impl Iterator<Item = &'p Vec<N>>) -> BTreeMap<&'p str, usize> {
    batches.enumerate().flat_map(|(at, names)| names.iter().map(move |name| (name.as_ref(), at))).collect()
}

fn listed(names: &[&str]) -> Option<String> {
    let more = names.len().saturating_sub(LISTED);
    let first = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let text = if more > 0 { format!("{first} and {more} more") } else { first };
    (!names.is_empty()).then_some(text)
}

/// What the deferred wait for.
fn why(plan: &Plan) -> String {
    let reasons: BTreeSet<&str> = plan
        .deferred
        .iter()
        .filter_map(|d| match &d.wait {
            Wait::Window { reason, .. } => Some(&**reason),
            Wait::Health(_) => None,
        })
        .collect();
    let unwell = plan.deferred.iter().filter(|d| matches!(d.wait, Wait::Health(_))).count();
    let mut parts: Vec<String> = reasons.into_iter().take(LISTED).map(|r| format!("window: {r}")).collect();
    if unwell > 0 {
        parts.push(format!("{unwell} do not serve"));
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

/// A batch to come.
pub(super) fn waiting(number: u32, planned: &Planned) -> Batch {
    Batch {
        number,
        rung: planned.rung as u32,
        size: planned.instances.len() as u32,
        instances: Arc::new(planned.instances.iter().map(ToString::to_string).collect()),
        why: planned.why.clone(),
        forecast_start: Some(planned.start),
        forecast_end: Some(planned.end),
        ..Batch::default()
    }
}
