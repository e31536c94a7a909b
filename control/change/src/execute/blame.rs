//! Who is to blame for the harm that a batch shows: this change, or another one that touched the same instances.

use weir_model::change::{Action, Outcome, Verdict};

use super::step::Walk;
use crate::judge::{self, Group, blame};

impl Walk<'_> {
    /// Notes in a failed verdict who may have done it.
    pub(super) fn blame(&self, verdict: &mut Verdict, index: usize, groups: &[Group]) {
        if verdict.outcome != Outcome::Fail {
            return;
        }
        let batch = &self.status.batches[index];
        let question = self.question(index, groups.len());
        let Some(proof) = judge::proof(verdict, &question).map(std::borrow::Cow::into_owned) else { return };
        let beside: Vec<String> =
            groups.iter().filter(|g| g.stratum == proof.stratum).flat_map(|g| g.control.clone()).collect();
        let spec = &self.change.spec;
        let target = if matches!(spec.action, Action::ProxyUpgrade { .. }) { self.target() } else { "" };
        let reading = judge::Reading { telemetry: self.telemetry, target, tolerance: spec.judge.tolerance, verdict };
        let harm = blame::Harm {
            harmed: &proof.harmed,
            beside: &beside,
            since: judge::sides(&proof),
            before: judge::shortly_before(reading, groups, &proof.metric, &proof.stratum),
            tolerance: proof.tolerance,
        };
        let at = batch.started.values().max().copied().unwrap_or(self.now);
        verdict.blame = blame::blame(self.change.name(), at, &self.world.others, &harm, self.now);
    }
}
