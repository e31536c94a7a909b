//! Where checks meet the walk: what is asked when, and what follows from the answers.

use weir_model::Change;
use weir_model::change::{BatchPhase, BlockReason, ChangePhase};
use weir_model::check::{At, CheckAnswer, Said, listed};
use weir_store::observed::Telemetry;

use jiff::Timestamp;

use super::step::{IDLE, Walk};
use crate::check::Finding;
use crate::defence::probe::Probes;
use crate::defence::{self, Answer, Facts, Stage, own};
use crate::plan::Plan;
use crate::world::{Member, Name, World};

/// The answer with its code, for a person who may want to skip it.
pub(super) fn told(answer: &CheckAnswer) -> String {
    format!("{}: {}", answer.code, answer.message)
}

impl<'a> Walk<'a> {
    fn facts<'f>(&'f self, stage: Stage<'f>) -> Facts<'f>
    where
        'a: 'f,
    {
        Facts { change: self.change, world: self.world, telemetry: self.telemetry, now: self.now, stage }
    }

    /// Before anything is planned: whether it is this change's turn at all.
    pub(super) fn held_at_the_door(&mut self) -> Option<CheckAnswer> {
        let answers = defence::ask(&self.facts(Stage::Door));
        let conflict = answers.iter().find(|a| a.code == "C-CONFLICT" && a.holds()).cloned();
        if conflict.is_some() {
            defence::note(&mut self.status.checks, answers);
        }
        conflict
    }

    /// Before the batch that is to begin.
    pub(super) fn held_before(&mut self, plan: &Plan, findings: &[Finding]) -> Option<CheckAnswer> {
        let next = plan.batches.first().filter(|first| first.start <= self.now);
        let begun = self.status.batches.iter().filter(|b| b.phase != BatchPhase::Waiting).count();
        let stage = Stage::Planned { plan, findings, next, number: begun as u32 + 1 };
        let answers = defence::ask(&self.facts(stage));
        let held = defence::standing_in_the_way(&answers).cloned();
        defence::note(&mut self.status.checks, answers);
        held
    }

    /// After batch `index` has changed, beside the judge's own verdict.
    pub(super) fn held_after(&mut self, index: usize) -> Option<CheckAnswer> {
        if self.batch(index).phase != BatchPhase::Baking {
            return None;
        }
        let unhealthy = self.unhealthy(index);
        let batch = self.batch(index);
        let answers = defence::ask(&self.facts(Stage::Changed { batch, unhealthy: &unhealthy }));
        // These are the judge's, who knows when to wait for them and what they mean.
        let judged = ["V-CONVERGED", "H-STATIC", "H-VERDICT", "D-CALLERS"];
        let others: Vec<CheckAnswer> = answers.iter().filter(|a| !judged.contains(&&*a.code)).cloned().collect();
        let held = defence::standing_in_the_way(&others).cloned();
        defence::note(&mut self.status.checks, answers);
        held
    }

    /// Those that no check of somebody's own holds, and why one of the others is held.
    pub(super) fn those_that_pass(&self, names: Vec<Name>) -> (Vec<Name>, Option<String>) {
        if !self.world.checks.iter().any(|(_, spec)| spec.at.contains(&At::Instance)) {
            return (names, None);
        }
        let members: Vec<&Member> = names.iter().filter_map(|n| self.by_name.get(&**n).copied()).collect();
        let held = own::held(&self.facts(Stage::Door), &members);
        let why = held.first().map(|(member, why)| format!("{} waits for {why}", member.name));
        let passed = names.into_iter().filter(|name| !held.iter().any(|(member, _)| member.name == *name)).collect();
        (passed, why)
    }

    /// What was found where instances are let go.
    pub(super) fn answer(&mut self, code: &str, answer: Answer) {
        let Some(check) = listed(code) else { return };
        let fresh = defence::named(&self.change.spec, code, (At::Instance, check.severity), answer, self.now);
        let checks = &mut self.status.checks;
        match checks.iter_mut().find(|a| a.code == code && a.at != At::After) {
            Some(known) if (known.said, known.at) == (fresh.said, At::Instance) => known.message = fresh.message,
            Some(known) => *known = fresh,
            None => checks.insert(0, fresh),
        }
    }

    /// Waits, or blocks where the answer is no.
    pub(super) fn heed(&mut self, held: &CheckAnswer) {
        let message = held.message.clone();
        match (held.said, held.code.as_str()) {
            (Said::Fail, "V-RELEASE") => self.block(BlockReason::ReleaseMissing, message),
            (Said::Fail, "P-PLAN") => self.block(BlockReason::PlanUnsafe, message),
            (Said::Fail, code) => {
                let hint = format!("repair it, or `weir change skip-check {} {code}`", self.change.name());
                self.block(BlockReason::CheckFailed, format!("{}; {hint}", told(held)));
            }
            (_, "C-CONFLICT" | "L-APPROVAL") => self.wait(message, IDLE),
            _ => self.wait(told(held), IDLE),
        }
    }

    /// Writes down, once, who skips what and why.
    pub(super) fn note_skips(&mut self) {
        for (code, skip) in &self.change.spec.skip_checks {
            if !self.status.skipped.contains(code) {
                let actor = if skip.actor.is_empty() { "a person" } else { &skip.actor };
                self.note("CheckSkipped", format!("{code} is skipped by {actor}: {}", skip.reason), true);
                self.status.skipped.insert(code.clone());
            }
        }
        let asked = &self.change.spec.skip_checks;
        let undone: Vec<String> = self.status.skipped.iter().filter(|c| !asked.contains_key(*c)).cloned().collect();
        for code in undone {
            self.note("CheckAsked", format!("{code} is asked again"), false);
            self.status.skipped.remove(&code);
        }
    }
}

/// Lets Prometheus servers and plugins be asked whatever this change will want to know next.
pub(super) fn ask_others(probes: &Probes, change: &Change, world: &World, telemetry: &Telemetry, now: Timestamp) {
    let status = &change.status;
    if world.checks.is_empty() || status.rollback.is_some() || status.phase == ChangePhase::Paused {
        return;
    }
    let facts = |stage| Facts { change, world, telemetry, now, stage };
    let running = status.batches.iter().find(|b| matches!(b.phase, BatchPhase::Changing | BatchPhase::Baking));
    match running {
        Some(batch) if batch.phase == BatchPhase::Baking => {
            drop(probes.ask(&facts(Stage::Changed { batch, unhealthy: &[] }), At::After));
        }
        Some(_) => {}
        None => {
            let begun = status.batches.iter().filter(|b| b.phase != BatchPhase::Waiting).count() as u32;
            let at = if status.started_at.is_none() { At::Change } else { At::Batch };
            let (plan, number) = (Plan::default(), begun + 1);
            drop(probes.ask(&facts(Stage::Planned { plan: &plan, findings: &[], next: None, number }), at));
        }
    }
}
