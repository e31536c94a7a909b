//! Back to what was before: everything that was let go, in waves as wide as the budgets allow.
//!
//! Nothing is judged on the way back, but each instance must pass its own self-check on its previous version. One that
//! does not, or does not come back in its time, is passed over: the others go on, and when only such ones are left, the
//! roll-back blocks. Neither these nor instances that are out by themselves count against the budgets of the others:
//! what they run does harm as long as it runs. Protection windows do not hold a roll-back up unless they say
//! so, and neither does a pause: what did harm is to go. A person stops a roll-back by aborting the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::change::{Batch, BatchPhase, BlockReason, ChangePhase};

use super::step::{LOOK, Walk};
use crate::plan;
use crate::world::{Member, Name, State};

impl Walk<'_> {
    pub(super) fn drive_rollback(&mut self) {
        let Some(mut rollback) = self.status.rollback.clone() else { return };
        self.forget_the_gone(&rollback.batch);
        self.welcome_returned(&mut rollback.batch);
        let stuck = self.not_returned(&rollback.batch);
        let passed_over: BTreeSet<&str> = stuck.keys().map(String::as_str).collect();
        let admitted = self.admitted(&rollback.batch, Some(&passed_over));
        self.status.rollback = Some(rollback);
        match admitted {
            Err(findings) => self.unsafe_plan(&findings),
            Ok(names) => self.return_more(names, &stuck),
        }
    }

    fn forget_the_gone(&mut self, batch: &Batch) {
        for name in batch.instances.iter().filter(|n| !batch.done.contains_key(*n)) {
            if let Some(why) = self.parted(name) {
                self.note("InstanceLeft", format!("{name} left the change: {why}"), true);
                Arc::make_mut(&mut self.status.left).insert(name.clone(), why);
            }
        }
    }

    fn parted(&self, name: &str) -> Option<String> {
        if self.status.left.contains_key(name) {
            return None;
        }
        let Some(member) = self.by_name.get(name).filter(|m| m.state != State::Leaving) else {
            return Some("it is gone or being stopped".into());
        };
        let previous = self.status.previous.get(name).is_some_and(|p| **p == *member.wanted);
        let ours = previous || &*member.wanted == self.target();
        (!ours).then(|| format!("somebody else wants {} {} there", self.change.spec.noun(), member.wanted))
    }

    /// Notes those that serve their previous version, also those that never left it.
    fn welcome_returned(&mut self, batch: &mut Batch) {
        for name in batch.instances.clone().iter() {
            let previous = self.status.previous.get(name);
            let member = self.by_name.get(name.as_str());
            let returned = previous.is_some_and(|p| member.is_some_and(|m| m.serves(p)));
            if returned && !batch.done.contains_key(name) {
                Arc::make_mut(&mut batch.started).entry(name.clone()).or_insert(self.now);
                Arc::make_mut(&mut batch.done).insert(name.clone(), self.now);
            }
        }
    }

    /// Those that do not come back, and why.
    fn not_returned(&self, batch: &Batch) -> BTreeMap<String, String> {
        let pending = batch.started.iter().filter(|(name, _)| !batch.done.contains_key(*name));
        let ours = pending.filter(|(name, _)| !self.status.left.contains_key(*name));
        ours.filter_map(|(name, started)| Some((*self.by_name.get(name.as_str())?, *started)))
            .filter_map(|(member, started)| Some((member.name.to_string(), self.stuck(member, started)?)))
            .collect()
    }

    fn stuck(&self, member: &Member, started: Timestamp) -> Option<String> {
        let limit = self.change.spec.instance_timeout_seconds;
        let failed = member.state == State::Failed && member.since.is_some_and(|since| since > started);
        let late = self.now >= plan::later(started, limit);
        (failed || late).then(|| {
            let (name, noun, wanted) = (&member.name, self.change.spec.noun(), &member.wanted);
            format!(
                "roll-back stopped: {name} does not come back with {noun} {wanted}: {}; repair it, then retry",
                member.message
            )
        })
    }

    fn return_more(&mut self, names: Vec<Name>, stuck: &BTreeMap<String, String>) {
        let now = self.now;
        let Some(rollback) = &mut self.status.rollback else { return };
        if !names.is_empty() {
            let started = Arc::make_mut(&mut rollback.batch.started);
            started.extend(names.into_iter().map(|name| (name.to_string(), now)));
        }
        let left: BTreeSet<&String> = self.status.left.keys().collect();
        let ours = || rollback.batch.instances.iter().filter(|n| !left.contains(n));
        let (total, done) = (ours().count(), ours().filter(|n| rollback.batch.done.contains_key(*n)).count());
        if done == total {
            return self.rolled_back(total);
        }
        match stuck.values().next().filter(|_| done + stuck.len() == total) {
            Some(why) => self.block(BlockReason::RollbackFailed, why.clone()),
            None => self.wait(format!("rolling back: {done} of {total} instances are back"), LOOK),
        }
    }

    fn rolled_back(&mut self, total: usize) {
        let Some(rollback) = &mut self.status.rollback else { return };
        rollback.batch.phase = BatchPhase::Passed;
        rollback.batch.finished_at = Some(self.now);
        let message = format!(
            "{total} instances are back on their previous version{}; the reason was: {}",
            self.left_words(),
            self.status.rollback.as_ref().map_or("", |r| r.reason.as_str()),
        );
        self.end(ChangePhase::RolledBack, "RolledBack", message);
    }
}
