//! The release train: versions arrive from CI, prove themselves in the canary, and the best proven one goes to
//! production; one that does harm is withdrawn everywhere.
//!
//! Like every controller it looks and takes one step. The step is a pure function ([`step`]); it is recorded in the train's
//! status before anything is done, and what is done follows from the record alone: Changes that it names and that are
//! not there yet are made, Releases that it has withdrawn are marked. The train knows of the change engine only what the
//! Changes say.

mod board;
mod controller;
mod departure;
#[cfg(test)]
mod killed;
mod legs;
mod score;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use weir_model::change::ChangePhase;
use weir_model::train::{Leg, Rider, RiderState, TrainStatus};
use weir_model::{Change, Release, ReleaseTrain};

pub use controller::TrainController;
pub use score::{Score, score};

/// What a train looks at.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Releases of its component.
    pub releases: &'a [Release],
    /// Changes that it may have made, by name.
    pub changes: &'a BTreeMap<String, Change>,
    /// Instances by the proxy version they want.
    pub running: &'a BTreeMap<String, usize>,
}

/// Something that happened, for the events of the train.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// It calls for attention.
    pub warning: bool,
}

/// What a step leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// To be recorded before anything is done.
    pub status: TrainStatus,
    /// What happened.
    pub notes: Vec<Note>,
}

/// Decides the next step.
pub fn step(train: &ReleaseTrain, world: World<'_>, now: Timestamp) -> Step {
    let mut walk = Walk { train, world, now, status: train.status.clone(), notes: Vec::new() };
    walk.status.observed_generation = train.metadata.generation;
    walk.board();
    walk.follow_legs();
    walk.withdraw_everywhere();
    walk.schedule();
    walk.depart();
    walk.begin_canary();
    walk.forget();
    walk.tell();
    Step { status: walk.status, notes: walk.notes }
}

struct Walk<'a> {
    train: &'a ReleaseTrain,
    world: World<'a>,
    now: Timestamp,
    status: TrainStatus,
    notes: Vec<Note>,
}

impl Walk<'_> {
    fn note(&mut self, reason: &'static str, message: String, warning: bool) {
        self.notes.push(Note { reason, message, warning });
    }

    /// Moves a rider on; an illegal transition is a defect.
    fn move_on(&mut self, version: &str, state: RiderState, why: impl Into<String>) {
        let Some(rider) = self.status.riders.get_mut(version) else { return };
        debug_assert!(rider.state.may_become(state), "{version}: {:?} to {state:?}", rider.state);
        (rider.state, rider.why) = (state, why.into());
    }

    fn rider(&self, version: &str) -> Option<&Rider> {
        self.status.riders.get(version)
    }

    /// Versions in a state, the newest first.
    fn newest(&self, state: RiderState) -> Vec<String> {
        let mut of: Vec<(&String, &Rider)> = self.status.riders.iter().filter(|(_, r)| r.state == state).collect();
        of.sort_by_key(|(version, rider)| (rider.registered_at, (*version).clone()));
        of.into_iter().rev().map(|(version, _)| version.clone()).collect()
    }

    fn release(&self, version: &str) -> Option<&Release> {
        self.world.releases.iter().find(|release| release.spec.version == version)
    }

    /// A Change that brings `version`, named after the train, the version it is `about`, and the purpose.
    fn leg(&self, version: &str, about: &str, purpose: &str) -> Leg {
        let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let about: String = about.chars().map(legal).collect();
        let change = format!("{}-{about}-{purpose}", self.train.name());
        Leg { version: version.to_owned(), change, since: self.now, seen: false }
    }

    fn busy(&self) -> bool {
        self.status.canary.is_some() || self.status.production.is_some() || self.status.withdrawal.is_some()
    }

    /// Why a Change does not go on, if it is blocked.
    fn blocked(&self, change: &str) -> String {
        let change = self.world.changes.get(change).filter(|c| c.status.phase == ChangePhase::Blocked);
        change.map(|change| format!(", which is blocked: {}", change.status.message)).unwrap_or_default()
    }

    /// What it does or waits for.
    fn tell(&mut self) {
        let on = |leg: &Leg, does: &str| {
            format!("{} {does} by change/{}{}", leg.version, leg.change, self.blocked(&leg.change))
        };
        let status = &self.status;
        let doing = [
            status.withdrawal.as_ref().map(|leg| on(leg, "is brought back")),
            status.production.as_ref().map(|leg| on(leg, "goes to production")),
            status.canary.as_ref().map(|leg| on(leg, "proves itself")),
        ];
        let mut said: Vec<String> = doing.into_iter().flatten().collect();
        if self.train.spec.paused {
            said.push("paused by a person: nothing new begins".into());
        }
        said.push(self.outlook());
        self.status.message = said.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    }
}
