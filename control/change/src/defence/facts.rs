//! The facts as checks of somebody's own see them: CEL expressions by name, HTTP plugins as JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_model::change::{Batch, BatchPhase};
use weir_model::check::At;

use super::{Facts, Stage};
use crate::plan::Planned;
use crate::world::Member;

/// Entries of a list; the rest is left out, and counts say how many there are.
pub const MAX_LIST: usize = 100;

/// Everything a check may go by: `at`, `now`, `change`, `batch`, `verdict`, `slos`; the same names in CEL.
pub fn json(facts: &Facts, at: At) -> Value {
    json!({
        "at": at,
        "now": facts.now.to_string(),
        "change": change(facts),
        "batch": batch(facts),
        "verdict": verdict(facts),
        "slos": slos(facts),
    })
}

fn change(facts: &Facts) -> Value {
    let (spec, status) = (&facts.change.spec, &facts.change.status);
    let apps: BTreeSet<&str> = facts.world.members.iter().filter(|m| m.in_scope).map(|m| &*m.app).collect();
    json!({
        "name": facts.change.name(),
        "action": spec.action.to_string(),
        "version": spec.target(),
        "level": spec.level,
        "phase": status.phase,
        "apps": apps.iter().take(MAX_LIST).collect::<Vec<_>>(),
        "appCount": apps.len(),
        "instances": status.progress.total,
        "done": status.progress.done,
        "labels": facts.change.metadata.labels,
    })
}

/// The batch that is to begin, that is under way, or that has changed.
fn batch(facts: &Facts) -> Value {
    let open = |b: &&Batch| !matches!(b.phase, BatchPhase::Passed | BatchPhase::Failed);
    match facts.stage {
        Stage::Planned { next: Some(next), number, .. } => planned(facts, number, next),
        Stage::Changed { batch, .. } => changed(facts, batch),
        _ => match facts.change.status.batches.iter().find(open) {
            Some(batch) => changed(facts, batch),
            None => members(facts, 0, 0, &[]),
        },
    }
}

fn planned(facts: &Facts, number: u32, next: &Planned) -> Value {
    let names: Vec<&str> = next.instances.iter().map(|n| &**n).collect();
    members(facts, number, next.rung, &names)
}

fn changed(facts: &Facts, batch: &Batch) -> Value {
    let names: Vec<&str> = batch.instances.iter().map(String::as_str).collect();
    members(facts, batch.number, batch.rung as usize, &names)
}

fn members(facts: &Facts, number: u32, rung: usize, names: &[&str]) -> Value {
    let wanted: BTreeSet<&str> = names.iter().copied().collect();
    let found = || facts.world.members.iter().filter(|m| wanted.contains(&*m.name));
    let distinct = |of: fn(&Member) -> &str| -> Vec<&str> {
        found().map(of).collect::<BTreeSet<_>>().into_iter().take(MAX_LIST).collect()
    };
    json!({
        "number": number,
        "size": names.len(),
        "percent": facts.change.spec.ladder.get(rung).map_or(100.0, |r| r.percent),
        "instances": names.iter().take(MAX_LIST).collect::<Vec<_>>(),
        "apps": distinct(|m| &m.app),
        "units": distinct(|m| &m.unit),
    })
}

fn verdict(facts: &Facts) -> Value {
    let verdict = match facts.stage {
        Stage::Changed { batch, .. } => batch.verdict.as_ref(),
        _ => None,
    };
    match verdict {
        Some(v) => json!({"outcome": v.outcome, "requests": v.requests, "errors": v.errors, "reason": v.reason}),
        None => json!({"outcome": "", "requests": 0, "errors": 0, "reason": ""}),
    }
}

fn slos(facts: &Facts) -> Vec<Value> {
    let told = facts.world.slos.iter().take(MAX_LIST);
    told.map(
        |s| json!({"name": &*s.name, "app": &*s.app, "budgetLeft": s.budget_left.unwrap_or(1.0), "alert": s.alert}),
    )
    .collect()
}

/// What a check asked per instance sees beside the rest, as `instance`.
pub fn instance(member: &Member) -> Value {
    json!({
        "name": &*member.name,
        "app": &*member.app,
        "unit": &*member.unit,
        "zone": &*member.zone,
        "stack": &*member.stack,
        "group": &*member.group,
        "tier": member.tier,
        "weight": member.weight,
        "running": &*member.running,
        "canary": member.canary,
    })
}
