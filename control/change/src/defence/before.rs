//! Checks of the catalogue that are asked before a batch.

use std::collections::{BTreeSet, HashSet};

use jiff::SignedDuration;
use weir_model::change::Level;
use weir_model::slo::Alert;

use super::{Answer, Facts, Stage, listed};
use crate::plan::Wait;
use crate::world::{Member, SloFact, State};

/// A proxy that has said nothing for so long does not report (seconds).
const SILENT_SECONDS: i64 = 60;
/// Silent proxies that are looked for; there is no need to know all of them.
const MOST_SILENT: usize = 100;

fn in_scope<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Member> {
    facts.world.members.iter().filter(|m| m.in_scope)
}

/// Those of the scope that are still to change.
fn ahead<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Member> {
    let target = facts.change.spec.target();
    in_scope(facts).filter(move |m| &*m.wanted != target)
}

pub(super) fn conflict(facts: &Facts) -> Option<Answer> {
    let rival = facts.world.rival.as_ref().filter(|_| facts.change.status.started_at.is_none());
    Some(match rival {
        Some(rival) => Answer::wait(format!("waits for change/{rival}, which is about the same instances")),
        None => Answer::pass("no other change is about the same instances"),
    })
}

/// What is brought is a version of a program; configuration has none.
fn of_versions(facts: &Facts) -> Option<()> {
    (!facts.change.spec.action.is_configuration()).then_some(())
}

pub(super) fn release(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { .. } = facts.stage else { return None };
    of_versions(facts)?;
    let target = &facts.change.spec.action;
    Some(match facts.world.released {
        true => Answer::pass(format!("there is a Release of {target}")),
        false => {
            let why = facts.world.no_release(target);
            Answer::fail(format!("{why}; apply one, the change then goes on by itself"))
        }
    })
}

pub(super) fn tested(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { .. } = facts.stage else { return None };
    of_versions(facts)?;
    Some(match facts.world.tests_failed {
        0 => Answer::pass("no test of its build is known to have failed"),
        n => Answer::fail(format!("{n} tests of the build of {} failed", facts.change.spec.action)),
    })
}

/// Versions that begin with a number and a dot are compared by it; others say nothing.
pub(super) fn compatible(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { .. } = facts.stage else { return None };
    of_versions(facts)?;
    let target = facts.change.spec.target();
    let Some(wanted) = major(target) else {
        return Some(Answer::pass(format!("{target} has no major version to compare")));
    };
    let running: HashSet<&str> = ahead(facts).map(|m| &*m.running).collect();
    let mut apart: Vec<&str> =
        running.into_iter().filter(|v| major(v).is_some_and(|is| is.abs_diff(wanted) > 1)).collect();
    apart.sort_unstable();
    Some(match apart.is_empty() {
        true => Answer::pass(format!("what runs is at most one major version from {target}")),
        false => Answer::fail(format!(
            "{} {} more than one major version from {target}: go by way of the versions between",
            listed(&apart),
            if apart.len() == 1 { "is" } else { "are" }
        )),
    })
}

fn major(version: &str) -> Option<u64> {
    version.trim_start_matches('v').split_once('.')?.0.parse().ok()
}

pub(super) fn owner(facts: &Facts) -> Option<Answer> {
    let names: Vec<&str> = facts.world.ownerless.iter().map(|n| &**n).collect();
    Some(match names.is_empty() {
        true => Answer::pass("every app in scope has an owner"),
        false => Answer::fail(format!("nobody is named as owner of {}", listed(&names))),
    })
}

pub(super) fn version(facts: &Facts) -> Option<Answer> {
    of_versions(facts)?;
    let unknown: Vec<&str> =
        in_scope(facts).filter(|m| m.running.is_empty()).map(|m| &*m.name).take(MOST_SILENT).collect();
    Some(match unknown.is_empty() {
        true => Answer::pass("what the instances in scope run is known"),
        false => Answer::fail(format!("it is not known what {} run", listed(&unknown))),
    })
}

pub(super) fn reporting(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { .. } = facts.stage else { return None };
    let since = facts.now.checked_sub(SignedDuration::from_secs(SILENT_SECONDS)).ok()?;
    let silent = |m: &&Member| m.state == State::Serving && !facts.telemetry.reported_since(&m.name, since);
    let silent: Vec<&str> = ahead(facts).filter(silent).map(|m| &*m.name).take(MOST_SILENT).collect();
    Some(match silent.is_empty() {
        true => Answer::pass("the proxies in scope report their health"),
        false => Answer::fail(format!(
            "nothing was heard of the health of {} for {SILENT_SECONDS} s, or since the control plane started",
            listed(&silent)
        )),
    })
}

pub(super) fn plan(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { findings, .. } = facts.stage else { return None };
    Some(match findings.first() {
        None => Answer::pass("the plan keeps every rule"),
        Some(first) => Answer::fail(format!(
            "the plan breaks a rule and was not carried out ({first}); please report this as a defect of Weir"
        )),
    })
}

pub(super) fn window(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { plan, .. } = facts.stage else { return None };
    let waits = plan.deferred.iter().filter_map(|d| match &d.wait {
        // Error budgets hold as windows do, and have checks of their own.
        Wait::Window { reason, until } if !reason.starts_with("S-") => Some((&**reason, *until)),
        _ => None,
    });
    let (count, first) = (waits.clone().count(), waits.min_by_key(|(_, until)| *until));
    Some(match first {
        None => Answer::pass("no window holds what is to change"),
        Some((reason, until)) => {
            let until = until.map_or("; it is not known to open".to_owned(), |until| format!(", until {until}"));
            Answer::wait(format!("{count} instances wait for a protection window ({reason}){until}"))
        }
    })
}

pub(super) fn health(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { plan, .. } = facts.stage else { return None };
    let ill = plan.deferred.iter().filter_map(|d| match &d.wait {
        Wait::Health(why) => Some((&*d.instance, why)),
        Wait::Window { .. } => None,
    });
    let count = ill.clone().count();
    Some(match ill.into_iter().next() {
        None => Answer::pass("what is to change serves"),
        Some((name, why)) => Answer::wait(format!("{count} instances do not serve; {name}: {why}")),
    })
}

/// Objectives of apps that are still to change.
fn concerned<'a>(facts: &Facts<'a>) -> Vec<&'a SloFact> {
    let apps: BTreeSet<&str> = ahead(facts).map(|m| &*m.app).collect();
    facts.world.slos.iter().filter(|slo| apps.contains(&*slo.app)).collect()
}

pub(super) fn budget(facts: &Facts) -> Option<Answer> {
    let slos = concerned(facts);
    let spent: Vec<String> = slos.iter().filter_map(|slo| slo.spent()).collect();
    Some(match spent.first() {
        None => Answer::pass(format!("{} objectives have error budget left, or too few requests to say", slos.len())),
        Some(first) if spent.len() == 1 => Answer::wait(first.clone()),
        Some(first) => Answer::wait(format!("{first}; and {} more", spent.len() - 1)),
    })
}

pub(super) fn burn(facts: &Facts) -> Option<Answer> {
    let slos = concerned(facts);
    let burning: Vec<&str> = slos.iter().filter(|s| s.alert == Alert::Page).map(|s| &*s.name).collect();
    Some(match burning.is_empty() {
        true => Answer::pass("no app to change burns its error budget at paging speed"),
        false => Answer::wait(format!("slo/{} burns at paging speed: its app waits", listed(&burning))),
    })
}

pub(super) fn approval(facts: &Facts) -> Option<Answer> {
    let Stage::Planned { next: Some(_), number, .. } = facts.stage else { return None };
    let spec = &facts.change.spec;
    if facts.world.level(spec) != Level::L2 {
        return None;
    }
    let name = facts.change.name();
    Some(match spec.approved_batch >= number {
        true => Answer::pass(format!("batch {number} is approved")),
        false => Answer::wait(format!("batch {number} waits for approval: weir change approve {name}")),
    })
}
