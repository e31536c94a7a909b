//! The Changes that carry versions: how they go, and what follows when they have ended.

use weir_model::Change;
use weir_model::change::ChangePhase;
use weir_model::train::{Leg, RiderEvidence, RiderState};

use super::Walk;
use super::score;

/// How a leg stands.
enum Course {
    /// Under way, or waiting for a person.
    Running,
    /// It arrived.
    Arrived,
    /// What it did was undone, and why.
    Undone(String),
    /// A person stopped it.
    Stopped(&'static str),
}

impl Walk<'_> {
    /// Looks at each leg's Change.
    pub(super) fn follow_legs(&mut self) {
        self.status.canary = self.status.canary.take().and_then(|leg| self.follow_canary(leg));
        self.status.production = self.status.production.take().and_then(|leg| self.follow_production(leg));
        self.status.withdrawal = self.status.withdrawal.take().and_then(|leg| self.follow_withdrawal(leg));
    }

    fn course(&self, leg: &mut Leg) -> Course {
        let Some(change) = self.world.changes.get(&leg.change) else {
            let deleted = Course::Stopped("its Change was deleted");
            return if leg.seen { deleted } else { Course::Running };
        };
        leg.seen = true;
        match change.status.phase {
            ChangePhase::Succeeded => Course::Arrived,
            ChangePhase::RolledBack => Course::Undone(undone(change)),
            ChangePhase::Aborted => Course::Stopped("its Change was aborted"),
            _ => Course::Running,
        }
    }

    fn follow_canary(&mut self, mut leg: Leg) -> Option<Leg> {
        let course = self.course(&mut leg);
        self.gather(&leg);
        match course {
            Course::Running => return Some(leg),
            Course::Arrived => self.prove_if_seen(&leg),
            Course::Undone(why) => self.withdraw(&leg.version, &format!("in the canary: {why}")),
            Course::Stopped(why) => self.move_on(&leg.version, RiderState::Superseded, why),
        }
        None
    }

    fn follow_production(&mut self, mut leg: Leg) -> Option<Leg> {
        match self.course(&mut leg) {
            Course::Running => return Some(leg),
            Course::Arrived => self.arrive(&leg.version),
            Course::Undone(why) => self.withdraw(&leg.version, &format!("in production: {why}")),
            Course::Stopped(why) => self.move_on(&leg.version, RiderState::Superseded, why),
        }
        None
    }

    fn follow_withdrawal(&mut self, mut leg: Leg) -> Option<Leg> {
        match self.course(&mut leg) {
            Course::Running => return Some(leg),
            Course::Arrived => self.note("BroughtBack", format!("the canary runs {} again", leg.version), false),
            Course::Undone(why) => {
                self.note("NotBroughtBack", format!("the way back to {} did harm: {why}", leg.version), true);
            }
            Course::Stopped(why) => self.note("NotBroughtBack", format!("{}: {why}", leg.version), true),
        }
        None
    }

    /// Takes over what the canary's Change has found so far.
    fn gather(&mut self, leg: &Leg) {
        let Some(change) = self.world.changes.get(&leg.change) else { return };
        let evidence = score::gather(change);
        if let Some(rider) = self.status.riders.get_mut(&leg.version) {
            rider.evidence = evidence;
        }
    }

    /// A Change that ended well proves its version only if it brought it somewhere, and was watched there as the train
    /// asks: one that found nothing to do has shown nothing.
    fn prove_if_seen(&mut self, leg: &Leg) {
        let evidence = self.rider(&leg.version).map(|rider| rider.evidence.clone()).unwrap_or_default();
        match self.shortfall(leg, &evidence) {
            None => self.prove(&leg.version),
            Some(why) => {
                let message = format!("{} has not proven itself: {why}", leg.version);
                self.move_on(&leg.version, RiderState::Unproven, format!("not proven: {why}"));
                self.note("NotProven", message, true);
            }
        }
    }

    fn shortfall(&self, leg: &Leg, evidence: &RiderEvidence) -> Option<String> {
        let change = self.world.changes.get(&leg.change)?;
        let watched = change.status.batches.iter().any(|batch| batch.verdict.is_some());
        if !watched {
            let said = &change.status.message;
            return Some(format!("change/{} brought it to no instance of the canary ({said})", leg.change));
        }
        let missing = self.train.spec.proof.missing(evidence)?;
        Some(format!("in the canary {missing}"))
    }

    fn prove(&mut self, version: &str) {
        self.move_on(version, RiderState::Proven, "proven in the canary");
        let (proof, now) = (&self.train.spec.proof, self.now);
        let Some(rider) = self.status.riders.get_mut(version) else { return };
        let scored = score::score(&rider.evidence, proof);
        (rider.score, rider.terms) = (Some(scored.points), scored.terms);
        (rider.canary_at, rider.proven_at) = (rider.canary_at.or(Some(now)), Some(now));
        let message = format!("{version} has proven itself, score {:.0}: {}", scored.points, rider.terms.join(", "));
        self.note("Proven", message, false);
    }

    fn arrive(&mut self, version: &str) {
        self.move_on(version, RiderState::Released, "in production");
        self.status.released = Some(version.to_owned());
        let now = self.now;
        let Some(rider) = self.status.riders.get_mut(version) else { return };
        rider.released_at = Some(now);
        let delay = rider.delay_seconds(rider.released_at).unwrap_or_default();
        self.note("Released", format!("{version} is in production, {delay} s after its commit"), false);
    }
}

fn undone(change: &Change) -> String {
    change.status.rollback.as_ref().map_or_else(|| "rolled back".to_owned(), |rollback| rollback.reason.clone())
}
