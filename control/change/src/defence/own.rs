//! Checks of somebody's own: resources of kind Check.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::CheckSpec;
use weir_model::check::{Ask, At, CheckAnswer, OnError, Otherwise, own_code};

use super::{Answer, Facts, Stage, cel, facts, named};
use crate::plan::later;
use crate::world::Member;

/// An answer that is older than so many intervals is none.
const STALE_INTERVALS: u64 = 3;

/// What was asked: the check, when, and before or after which batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// Name of the Check.
    pub check: String,
    /// When.
    pub at: At,
    /// Number of the batch; 0 before the first.
    pub batch: u32,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// When.
    pub time: Timestamp,
    /// Yes or no and why; or why it could not be asked.
    pub answer: Result<Answer, String>,
}

/// Everything that was heard for a change.
pub type Hearsay = Arc<BTreeMap<Asked, Heard>>;

/// Asks those that are due at this stage.
pub(super) fn ask(facts: &Facts, at: At) -> Vec<CheckAnswer> {
    let due = |spec: &CheckSpec| spec.at.contains(&at) || at == At::Change && spec.at.contains(&At::Batch);
    let due: Vec<&(String, CheckSpec)> = facts.world.checks.iter().filter(|(_, spec)| due(spec)).collect();
    if due.is_empty() {
        return Vec::new();
    }
    let known = facts::json(facts, at);
    let answer = |(name, spec): &(String, CheckSpec)| {
        let answer = match &spec.ask {
            Ask::Cel(text) => evaluate(text, &known, spec),
            Ask::Promql(_) | Ask::Http(_) => heard(facts, name, spec, at),
        };
        named(&facts.change.spec, &own_code(name), (at, spec.severity), answer, facts.now)
    };
    due.into_iter().map(answer).collect()
}

/// The batch that a check at this stage is asked about.
pub(super) fn number(stage: &Stage) -> u32 {
    match stage {
        Stage::Door => 0,
        Stage::Planned { number, .. } => *number,
        Stage::Changed { batch, .. } => batch.number,
    }
}

fn evaluate(text: &str, known: &serde_json::Value, spec: &CheckSpec) -> Answer {
    let answer = cel::evaluate(text, std::slice::from_ref(known)).pop();
    match answer.unwrap_or_else(|| Err("no answer".to_owned())) {
        Ok(true) => Answer::pass(format!("yes: {}", spec.meaning)),
        Ok(false) => no(spec, format!("{} (not so: {text})", spec.meaning)),
        Err(why) => unanswered(spec, &why),
    }
}

fn heard(facts: &Facts, name: &str, spec: &CheckSpec, at: At) -> Answer {
    let asked = Asked { check: name.to_owned(), at, batch: number(&facts.stage) };
    let patience = spec.interval_seconds.saturating_mul(STALE_INTERVALS) + spec.timeout_seconds;
    let fresh = |h: &&Heard| later(h.time, patience) >= facts.now && changed_before(facts, h.time);
    match facts.world.heard.get(&asked).filter(fresh) {
        None => Answer::wait(format!("{}: it is being asked", spec.meaning)),
        Some(Heard { answer: Err(why), .. }) => unanswered(spec, why),
        Some(Heard { answer: Ok(answer), .. }) => answer.clone(),
    }
}

/// What was heard before all instances had changed says nothing of them.
fn changed_before(facts: &Facts, heard: Timestamp) -> bool {
    match facts.stage {
        Stage::Changed { batch, .. } => batch.baking_since.is_some_and(|since| heard >= since),
        _ => true,
    }
}

/// A no, as the check means it.
pub(super) fn no(spec: &CheckSpec, words: String) -> Answer {
    match spec.otherwise {
        Otherwise::Wait => Answer::wait(words),
        Otherwise::Fail => Answer::fail(words),
    }
}

fn unanswered(spec: &CheckSpec, why: &str) -> Answer {
    match spec.on_error {
        OnError::Closed => Answer::wait(format!("{}: it can't be asked, and fails closed: {why}", spec.meaning)),
        OnError::Open => Answer::pass(format!("{}: it can't be asked, and fails open: {why}", spec.meaning)),
    }
}

/// Checks asked before each instance is let go: which of `members` may not, and why. Each expression is read once.
pub fn held<'m>(facts: &Facts, members: &[&'m Member]) -> Vec<(&'m Member, String)> {
    let skips = &facts.change.spec.skip_checks;
    let mut held = Vec::new();
    for (name, spec) in facts.world.checks.iter().filter(|(_, spec)| spec.at.contains(&At::Instance)) {
        let code = own_code(name);
        let Ask::Cel(text) = &spec.ask else { continue };
        let required = spec.severity == weir_model::check::Severity::Required;
        if skips.contains_key(&code) || !required && !facts.change.spec.require_checks.contains(&code) {
            continue;
        }
        let known = facts::json(facts, At::Instance);
        let of = |member: &&Member| {
            let mut known = known.clone();
            known["instance"] = facts::instance(member);
            known
        };
        let known: Vec<serde_json::Value> = members.iter().map(of).collect();
        for (member, answer) in members.iter().zip(cel::evaluate(text, &known)) {
            held.extend(held_by(&code, spec, text, answer).map(|why| (*member, why)));
        }
    }
    held
}

fn held_by(code: &str, spec: &CheckSpec, text: &str, answer: Result<bool, String>) -> Option<String> {
    match answer {
        Ok(true) => None,
        Ok(false) => Some(format!("{code}: {} (not so: {text})", spec.meaning)),
        Err(_) if spec.on_error == OnError::Open => None,
        Err(why) => Some(format!("{code}: it can't be asked, and fails closed: {why}")),
    }
}
