//! What a person does: the level a change runs at, single instances forward and back, batches passed over.
//!
//! All of it is asked for in the spec and noted in the status before anything is done, so each request takes effect once,
//! however often it is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_model::Change;
use weir_model::change::{Batch, BatchPhase, BlockReason, ChangePhase, EffectiveLevel, Level, ManualStep, Way};

use super::World;
use super::act::Write;
use super::step::{IDLE, Walk};
use crate::plan::{self, Plan, Planned};
use crate::world::State;

impl Walk<'_> {
    // ## The level

    pub(super) fn level(&self) -> Level {
        self.world.level(&self.change.spec)
    }

    pub(super) fn note_level(&mut self) {
        let level = self.level();
        let bound = self.world.bound.as_ref().filter(|_| level < self.change.spec.level);
        let held_by = bound.map_or(String::new(), |b| format!("changepolicy/{}: {}", b.policy, b.reason));
        self.status.level = Some(EffectiveLevel { level, held_by });
    }

    /// Below L2 no batch of the plan begins.
    pub(super) fn goes_by_plan(&mut self, plan: &Plan) -> bool {
        match self.level() {
            Level::L0 => self.begin_next_by_hand(plan),
            Level::L1 => {
                let why = "level L1: it is planned and observed, and nothing is done; raise spec.level to L2 or above";
                self.wait(why.to_owned(), IDLE);
            }
            _ => return true,
        }
        false
    }

    // ## One instance forward

    fn begin_next_by_hand(&mut self, plan: &Plan) {
        let open = |step: &&ManualStep| step.way == Way::Forward && !self.has_gone(&step.instance);
        let Some(step) = self.change.spec.steps.iter().find(open) else {
            let name = self.change.name();
            let message = format!("level L0: waits for a person to name an instance: weir change step {name} INSTANCE");
            return self.wait(message, IDLE);
        };
        match self.held_back(&step.instance, plan) {
            Some(why) => self.wait(format!("level L0: {} can't go: {why}", step.instance), super::step::LOOK),
            None => self.begin_by_hand(&step.instance.clone()),
        }
    }

    fn has_gone(&self, name: &str) -> bool {
        self.status.left.contains_key(name) || self.status.batches.iter().any(|b| b.started.contains_key(name))
    }

    /// Why the planner would not let it go now or ever.
    fn held_back(&self, name: &str, plan: &Plan) -> Option<String> {
        let Some(member) = self.by_name.get(name).filter(|m| m.in_scope) else {
            return Some("no such instance is in scope".into());
        };
        let planned = plan.batches.iter().any(|b| b.instances.contains(&member.name));
        if let Some(freeze) = plan::window(&self.world.freezes, member, self.now) {
            return Some(format!("a protection window holds it ({})", freeze.reason));
        }
        if member.state != State::Serving {
            return Some(format!("it {}", member.state.words()));
        }
        (!planned).then(|| format!("it wants {} already", member.wanted))
    }

    fn begin_by_hand(&mut self, name: &str) {
        let Some(member) = self.by_name.get(name) else { return };
        let planned = Planned {
            rung: 0,
            instances: vec![member.name.clone()],
            why: "a person named it".into(),
            start: self.now,
            end: self.now,
        };
        let Some(index) = self.status.batches.iter().position(|b| b.phase == BatchPhase::Waiting) else { return };
        self.begin(index, &planned);
    }

    // ## One instance back

    /// Notes those that a person wants back; what they had is then written.
    pub(super) fn take_back(&mut self) {
        let touched = |step: &&ManualStep| step.way == Way::Back && !self.status.left.contains_key(&step.instance);
        let gone = |name: &str| self.status.batches.iter().any(|b| b.started.contains_key(name));
        let names: Vec<String> =
            self.change.spec.steps.iter().filter(touched).map(|s| s.instance.clone()).filter(|n| gone(n)).collect();
        for name in names {
            self.note("InstanceTakenBack", format!("{name} goes back to what it had, as a person asked"), true);
            Arc::make_mut(&mut self.status.left).insert(name, "a person took it back".into());
        }
    }

    // ## A batch passed over

    /// Passes over the batch that runs or is stuck, if a person wants it so.
    pub(super) fn skip_begun(&mut self) {
        let wanted = |b: &Batch| {
            matches!(b.phase, BatchPhase::Changing | BatchPhase::Baking | BatchPhase::Failed)
                && self.is_skipped(b.number)
        };
        let Some(index) = self.status.batches.iter().position(wanted).filter(|_| self.status.rollback.is_none()) else {
            return;
        };
        self.skip(index);
        if self.status.phase == ChangePhase::Blocked && self.status.blocked != Some(BlockReason::ConfigEdited) {
            self.status.blocked = None;
            self.status.waiting_since = None;
            self.status.phase = ChangePhase::Running;
        }
    }

    /// Passes over the batch that is next, likewise.
    pub(super) fn skips_next(&mut self, planned: &Planned) -> bool {
        let Some(index) = self.status.batches.iter().position(|b| b.phase == BatchPhase::Waiting) else { return false };
        let number = self.status.batches[index].number;
        if !self.is_skipped(number) {
            return false;
        }
        let batch = Batch { started_at: Some(self.now), ..super::forecast::waiting(number, planned) };
        self.status.batches[index] = batch;
        self.skip(index);
        true
    }

    fn is_skipped(&self, number: u32) -> bool {
        self.change.spec.skipped_batches.contains(&number)
    }

    fn skip(&mut self, index: usize) {
        let now = self.now;
        let batch = &mut self.status.batches[index];
        (batch.phase, batch.finished_at) = (BatchPhase::Skipped, Some(now));
        let (number, done) = (batch.number, batch.done.clone());
        let left: Vec<String> = batch.instances.iter().filter(|n| !done.contains_key(*n)).cloned().collect();
        let message = format!(
            "batch {number} is passed over, as a person asked: {} instances are left out, {} have changed and stay so",
            left.len(),
            done.len()
        );
        let why = format!("batch {number} was skipped");
        let known = Arc::make_mut(&mut self.status.left);
        for name in left {
            known.entry(name).or_insert_with(|| why.clone());
        }
        self.note("BatchSkipped", message, true);
        self.again = std::time::Duration::ZERO;
    }
}

/// Instances that a person took back and that do not say so yet.
pub(super) fn back(change: &Change, world: &World) -> Vec<Write> {
    let steps = change.spec.steps.iter().filter(|s| s.way == Way::Back);
    let names: BTreeSet<&str> =
        steps.map(|s| s.instance.as_str()).filter(|name| change.status.left.contains_key(*name)).collect();
    let target = change.spec.target();
    let write = |m: &crate::world::Member| {
        let previous = change.status.previous.get(&*m.name).filter(|_| &*m.wanted == target)?;
        Some(Write {
            instance: m.name.to_string(),
            from: vec![target.to_owned()],
            to: previous.clone(),
            reason: format!("{}: a person took it back", change.key()),
        })
    };
    world.members.iter().filter(|m| names.contains(&*m.name)).filter_map(write).collect()
}
