//! Defence: what is asked before a change, a batch or an instance goes on, and after a batch has changed.
//!
//! Every question is a named check of one shape: a pure function of the facts that answers yes, not yet or no, in words.
//! Those of [`weir_model::check::CATALOGUE`] are in [`before`] and [`after`]; those of somebody's own, resources of kind
//! Check, in [`own`]. What must be asked of others (Prometheus, an HTTP plugin) is asked beside the engine ([`probe`]);
//! the check reads the answer and how old it is.
//!
//! What a check holds depends on what it is about. A window, an ill instance or an app without error budget holds those
//! it names, and the others go on ([`holds_those_it_names`]); any other check holds the whole change. Nothing here holds
//! a roll-back.

mod after;
mod before;
mod cel;
pub mod facts;
pub mod own;
pub mod probe;
mod windows;

use std::collections::BTreeMap;

use jiff::Timestamp;
use weir_model::change::{Batch, ChangeSpec};
use weir_model::check::{Ask, At, CATALOGUE, CheckAnswer, Listed, MAX_ANSWERS, Said, Severity};
use weir_model::{Change, Check, Invalid, Kind, Object};
use weir_store::observed::Telemetry;

use crate::check::Finding;
use crate::plan::{Plan, Planned};
use crate::world::World;

pub use windows::windows;

/// An answer in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Yes, not yet, or no.
    pub said: Said,
    /// Why.
    pub words: String,
}

impl Answer {
    /// All is well.
    pub fn pass(words: impl Into<String>) -> Answer {
        Answer { said: Said::Pass, words: words.into() }
    }

    /// Not yet.
    pub fn wait(words: impl Into<String>) -> Answer {
        Answer { said: Said::Wait, words: words.into() }
    }

    /// No.
    pub fn fail(words: impl Into<String>) -> Answer {
        Answer { said: Said::Fail, words: words.into() }
    }
}

/// What checks are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The change.
    pub change: &'a Change,
    /// Everything outside it.
    pub world: &'a World,
    /// What the proxies have reported.
    pub telemetry: &'a Telemetry,
    /// The time.
    pub now: Timestamp,
    /// Where the change stands.
    pub stage: Stage<'a>,
}

/// Where a change stands.
#[derive(Debug, Clone, Copy)]
pub enum Stage<'a> {
    /// It has not begun, and nothing is planned.
    Door,
    /// The next batch is planned.
    Planned {
        /// What is to come.
        plan: &'a Plan,
        /// What the independent checker has found.
        findings: &'a [Finding],
        /// The batch that could begin now.
        next: Option<&'a Planned>,
        /// Its number.
        number: u32,
    },
    /// A batch has changed.
    Changed {
        /// The batch.
        batch: &'a Batch,
        /// Its instances that do not serve the version wanted, in words.
        unhealthy: &'a [String],
    },
}

type Question = fn(&Facts) -> Option<Answer>;

/// The function behind each check of the catalogue; those without one are answered where instances are let go.
fn function(code: &str) -> Option<Question> {
    Some(match code {
        "C-CONFLICT" => before::conflict,
        "V-RELEASE" => before::release,
        "V-TESTED" => before::tested,
        "V-COMPATIBLE" => before::compatible,
        "F-OWNER" => before::owner,
        "F-VERSION" => before::version,
        "F-REPORTING" => before::reporting,
        "P-PLAN" => before::plan,
        "W-WINDOW" => before::window,
        "H-BEFORE" => before::health,
        "S-BUDGET" => before::budget,
        "S-BURN" => burn,
        "L-APPROVAL" => before::approval,
        "V-CONVERGED" => after::converged,
        "H-STATIC" => after::healthy,
        "H-VERDICT" => after::verdict,
        "D-CALLERS" => after::callers,
        _ => return None,
    })
}

fn burn(facts: &Facts) -> Option<Answer> {
    match facts.stage {
        Stage::Changed { .. } => after::burn(facts),
        _ => before::burn(facts),
    }
}

/// Asks every check that is due at this stage, in the order of the catalogue, then those of somebody's own.
pub fn ask(facts: &Facts) -> Vec<CheckAnswer> {
    let at = match facts.stage {
        Stage::Changed { .. } => At::After,
        _ if facts.change.status.started_at.is_none() => At::Change,
        _ => At::Batch,
    };
    let due = |check: &&Listed| check.at.contains(&at) || at == At::Change && check.at.contains(&At::Batch);
    let answer = |check: &Listed| {
        let answer = function(check.code)?(facts)?;
        Some(named(&facts.change.spec, check.code, (at, check.severity), answer, facts.now))
    };
    let mut answers: Vec<CheckAnswer> = CATALOGUE.iter().filter(due).filter_map(answer).collect();
    if !matches!(facts.stage, Stage::Door) {
        answers.extend(own::ask(facts, at));
    }
    answers
}

/// What of a resource can be known to be wrong before anybody asks: a Check's expression.
///
/// # Errors
/// The field, and why it can't be read.
pub fn review(object: &Object) -> Result<(), Invalid> {
    if object.kind != Kind::Check {
        return Ok(());
    }
    let check = Check::try_from(object.clone())?;
    match &check.spec.ask {
        Ask::Cel(text) => cel::review(text).map_err(|why| Invalid::one("spec.ask.cel", why)),
        Ask::Promql(_) | Ask::Http(_) => Ok(()),
    }
}

/// The answer as the change keeps it, with what its spec says of the check.
pub(crate) fn named(
    spec: &ChangeSpec,
    code: &str,
    (at, severity): (At, Severity),
    answer: Answer,
    now: Timestamp,
) -> CheckAnswer {
    let required = spec.require_checks.iter().any(|c| c == code);
    CheckAnswer {
        code: code.to_owned(),
        at,
        severity: if required { Severity::Required } else { severity },
        said: answer.said,
        message: answer.words,
        since: now,
        skipped: spec.skip_checks.contains_key(code),
    }
}

/// True for checks that hold only the instances they are about: the planner leaves those out until they may go.
pub fn holds_those_it_names(code: &str) -> bool {
    matches!(code, "W-WINDOW" | "H-BEFORE" | "S-BUDGET" | "S-BURN")
}

/// The first answer that holds the whole change.
pub fn standing_in_the_way(answers: &[CheckAnswer]) -> Option<&CheckAnswer> {
    answers.iter().find(|a| a.holds() && (a.at == At::After || !holds_those_it_names(&a.code)))
}

/// Puts new answers in place of those of the same stage; an answer that is still the same keeps its beginning.
pub fn note(known: &mut Vec<CheckAnswer>, fresh: Vec<CheckAnswer>) {
    let after = fresh.first().is_some_and(|a| a.at == At::After);
    let since: BTreeMap<String, (Said, Timestamp)> =
        known.iter().filter(|a| (a.at == At::After) == after).map(|a| (a.code.clone(), (a.said, a.since))).collect();
    known.retain(|a| (a.at == At::After) != after);
    for mut answer in fresh {
        if let Some((_, begun)) = since.get(&answer.code).filter(|(said, _)| *said == answer.said) {
            answer.since = *begun;
        }
        known.push(answer);
    }
    known.sort_by_key(|a| a.at == At::After);
    known.truncate(MAX_ANSWERS);
}

/// Names in a list, the first few.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let first = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
