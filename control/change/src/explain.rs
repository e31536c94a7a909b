//! Why a change waits, was blocked, or ended as it did, for a person who has just come to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use weir_model::change::{Batch, BatchPhase, Blame, BlockReason, ChangePhase, ChangeSpec, Evidence, Verdict};
use weir_model::check::Said;
use weir_model::freeze::Place;
use weir_model::{App, Change, Freeze, FreezeSpec, Instance, InstanceSpec};
use weir_store::{Store, typed};

use crate::execute::with_names;
use crate::report::check_text;
use crate::windows::{Way, Windows};
use crate::world::many;

/// Entries of a list before "and so on".
const LISTED: usize = 5;

/// What an explanation looks at beside the change.
#[derive(Debug, Clone, Copy)]
pub struct Fleet<'a> {
    /// All instances.
    pub instances: &'a [Instance],
    /// All apps.
    pub apps: &'a [App],
    /// All protection windows.
    pub freezes: &'a [Freeze],
}

/// Explains `change`: where it is and why, what its batches found, who was left out, what a person can do.
pub fn explain(change: &Change, fleet: &Fleet<'_>, now: Timestamp) -> String {
    let mut text = String::new();
    let out = &mut text;
    headline(out, change, now);
    change.status.batches.iter().filter(|b| b.phase != BatchPhase::Waiting).for_each(|b| batch(out, b));
    if let Some(rollback) = &change.status.rollback {
        line(
            out,
            &format!(
                "Roll-back: {} of {} instances are back. It began because {}.",
                rollback.batch.done.len(),
                rollback.batch.instances.len(),
                rollback.reason
            ),
        );
    }
    in_flight(out, change, fleet.instances);
    forecast(out, change);
    windows(out, change, fleet, now);
    checks(out, change);
    left(out, change);
    line(out, &advice(change));
    text
}

/// Reads what is needed and explains the change `name`; `None`: there is no such change.
///
/// # Errors
/// Those of the store.
pub async fn explain_stored(store: &dyn Store, name: &str, now: Timestamp) -> weir_store::Result<Option<String>> {
    let Some(change) = typed::get::<ChangeSpec>(store, name).await? else { return Ok(None) };
    let change = with_names(store, &change).await?;
    let instances = typed::list(store).await?.0;
    let apps = typed::list(store).await?.0;
    let freezes = typed::list(store).await?.0;
    let fleet = Fleet { instances: &instances, apps: &apps, freezes: &freezes };
    Ok(Some(explain(&change, &fleet, now)))
}

fn line(out: &mut String, text: &str) {
    if !text.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    }
}

fn headline(out: &mut String, change: &Change, now: Timestamp) {
    let (status, progress) = (&change.status, &change.status.progress);
    let target = &change.spec.action;
    line(
        out,
        &format!(
            "{} brings {target}: {:?}, {} of {} instances.",
            change.key(),
            status.phase,
            progress.done,
            progress.total
        ),
    );
    line(out, &status.message);
    if let Some(started) = status.started_at {
        let until = status.finished_at.unwrap_or(now);
        line(out, &format!("It began {started:.0} and has taken {} s.", until.duration_since(started).as_secs()));
    }
}

fn batch(out: &mut String, batch: &Batch) {
    let (done, all) = (batch.done.len(), batch.instances.len());
    line(out, &format!("Batch {}: {:?}, {done} of {all} instances changed. {}.", batch.number, batch.phase, batch.why));
    if let Some(verdict) = &batch.verdict {
        line(out, &format!("  verdict: {:?}, {}", verdict.outcome, verdict.reason));
        telling(verdict).for_each(|e| line(out, &evidence(e)));
        verdict.blame.iter().take(LISTED).for_each(|b| line(out, &format!("  blame: {}", blame(b))));
        verdict.excluded.iter().take(LISTED).for_each(|e| line(out, &format!("  not compared: {e}")));
    }
}

/// Comparisons in which anything happened, the strongest first.
fn telling(verdict: &Verdict) -> impl Iterator<Item = &Evidence> {
    let mut telling: Vec<&Evidence> =
        verdict.evidence.iter().filter(|e| e.treated_events + e.control_events > 0).collect();
    telling.sort_by(|a, b| b.log_e.total_cmp(&a.log_e));
    telling.into_iter().take(LISTED)
}

fn evidence(e: &Evidence) -> String {
    format!(
        "  {} on {}: {} of {} changed, {} of {} compared with ({}); evidence for harm 10^{:.1}",
        e.metric,
        e.stratum,
        e.treated_events,
        e.treated_requests,
        e.control_events,
        e.control_requests,
        e.compared_with,
        e.log_e / std::f64::consts::LN_10,
    )
}

/// How likely a change has done the harm, in words.
pub(crate) fn blame(blame: &Blame) -> String {
    let before = match blame.there_before {
        0.0 => String::new(),
        share => format!("; {:.0} % of the excess was there before it", 100.0 * share),
    };
    format!(
        "change/{} scores {:.2}: it touched the instances of {:.0} % of the harm, and {:.0} % of those beside them{before}",
        blame.change,
        blame.score,
        100.0 * blame.harmed_share,
        100.0 * blame.beside_share,
    )
}

fn in_flight(out: &mut String, change: &Change, instances: &[Instance]) {
    let status = &change.status;
    if status.phase.ended() {
        return;
    }
    let back = status.rollback.iter().map(|r| &r.batch);
    let flying: Vec<&String> = match &status.rollback {
        Some(_) => back.flat_map(moving).collect(),
        None => status.batches.iter().flat_map(moving).collect(),
    };
    let named = |name: &&&String| instances.iter().find(|i| i.name() == **name);
    for instance in flying.iter().filter_map(|name| named(&name)).take(LISTED) {
        let status = &instance.status;
        line(out, &format!("In flight: {} is {:?}. {}", instance.name(), status.phase, status.message));
    }
}

fn moving(batch: &Batch) -> impl Iterator<Item = &String> {
    batch.started.keys().filter(|name| !batch.done.contains_key(*name))
}

fn forecast(out: &mut String, change: &Change) {
    let waiting: Vec<&Batch> = change.status.batches.iter().filter(|b| b.phase == BatchPhase::Waiting).collect();
    let Some(last) = waiting.last() else { return };
    // Their names are not known any more after a restart, their sizes are.
    let instances: usize = waiting.iter().map(|b| b.size as usize).sum();
    let end = last.forecast_end.map(|end| format!("; forecast end {end:.0}")).unwrap_or_default();
    let batches = many(waiting.len(), "batch", "batches");
    line(out, &format!("To come: {batches} with {}{end}.", many(instances, "instance", "instances")));
}

/// Which windows hold how many of those that are still to change.
fn windows(out: &mut String, change: &Change, fleet: &Fleet<'_>, now: Timestamp) {
    // Whom configuration concerns follows from routes, which are not read here; its message says who waits.
    if change.status.phase.ended() || change.spec.action.is_configuration() {
        return;
    }
    let specs: Vec<FreezeSpec> = fleet.freezes.iter().map(|freeze| freeze.spec.clone()).collect();
    let windows = Windows::new(&specs);
    let face = windows.at(now);
    let lines: BTreeMap<&str, &str> = fleet.apps.iter().map(|app| (app.name(), app.spec.line.as_str())).collect();
    let mut held: BTreeMap<(usize, Option<Timestamp>), usize> = BTreeMap::new();
    for instance in fleet.instances.iter().filter(|i| ahead(change, i)) {
        let InstanceSpec { app, unit, .. } = &instance.spec;
        let line = lines.get(app.as_str()).copied().unwrap_or_default();
        if let Some(shut) = windows.shut(&windows.calendar(Place { app, line, unit }), &face, Way::Forward) {
            *held.entry((shut.window, shut.until)).or_default() += 1;
        }
    }
    for ((number, until), count) in held.into_iter().take(LISTED) {
        let freeze = &fleet.freezes[number];
        let until = until.map_or("until it is deleted".to_owned(), |until| format!("until {until:.0}"));
        line(
            out,
            &format!(
                "{} holds {} {until}: {}.",
                freeze.key(),
                many(count, "instance", "instances"),
                freeze.spec.reason
            ),
        );
    }
}

fn ahead(change: &Change, instance: &Instance) -> bool {
    let in_scope = change.spec.scope.matches(&instance.spec, &instance.metadata.labels);
    in_scope && change.spec.wanted_of(&instance.spec) != change.spec.target()
}

/// What does not say yes, and what goes on without it.
fn checks(out: &mut String, change: &Change) {
    if change.status.phase.ended() {
        return;
    }
    let telling = change.status.checks.iter().filter(|answer| answer.said != Said::Pass);
    telling.for_each(|answer| line(out, check_text(answer).trim_start_matches("- ")));
}

fn left(out: &mut String, change: &Change) {
    change.status.left.iter().take(LISTED).for_each(|(name, why)| line(out, &format!("Left: {name}, {why}.")));
}

fn advice(change: &Change) -> String {
    let name = change.name();
    let command = |verb: &str| format!("weir change {verb} {name}");
    match (change.status.phase, change.status.blocked) {
        (ChangePhase::Blocked, Some(BlockReason::ReleaseMissing)) => {
            let goes_on = "the change then goes on by itself";
            format!(
                "Next: apply a Release of {} that is not withdrawn ({goes_on}), or `{}`.",
                change.spec.action,
                command("abort")
            )
        }
        (ChangePhase::Blocked, Some(BlockReason::NothingInScope)) => {
            format!("Next: correct spec.scope and apply it again, or `{}`.", command("abort"))
        }
        (ChangePhase::Blocked, Some(BlockReason::CheckFailed)) => {
            format!("Next: repair what the check found, or `{} CHECK --reason WHY`.", command("skip-check"))
        }
        (ChangePhase::Blocked, Some(BlockReason::RollbackFailed)) => {
            format!("Next: repair the instance, then `{}`.", command("retry"))
        }
        (ChangePhase::Blocked, _) => {
            format!("Next: `{}`, `{}` or `{}`.", command("rollback"), command("retry"), command("abort"))
        }
        (ChangePhase::Paused, _) => format!("Next: `{}` or `{}`.", command("resume"), command("rollback")),
        _ => String::new(),
    }
}
