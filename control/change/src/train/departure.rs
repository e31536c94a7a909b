//! What begins: a canary, a departure, a way back.

use jiff::Timestamp;
use weir_model::change::{Action, ChangeSpec, Level, Rung};
use weir_model::train::{Leg, Proof, RiderState, Stage};
use weir_model::{Change, ReleaseTrain};

use super::Walk;

/// How long one box is watched before all of the canary changes (seconds), where the train's canary has no ladder.
const ONE_BOX_SECONDS: u64 = 600;

impl Walk<'_> {
    /// A withdrawn version that instances still want is taken off them: they go back to the last good one.
    pub(super) fn withdraw_everywhere(&mut self) {
        if self.busy() {
            return;
        }
        let withdrawn = self.newest(RiderState::Withdrawn).into_iter();
        let wanted = |version: &String| self.world.running.get(version).is_some_and(|count| *count > 0);
        let Some(bad) = withdrawn.into_iter().find(wanted) else { return };
        let Some(good) = self.last_good() else { return };
        let leg = self.leg(&good, &bad, "withdrawal");
        if self.world.changes.contains_key(&leg.change) {
            // It has been tried: what is left is for a person.
            return;
        }
        self.note("BringingBack", format!("{bad} is taken off the canary, which goes back to {good}"), true);
        self.status.withdrawal = Some(leg);
    }

    /// Notes when the train departs next, and whether a departure is due.
    pub(super) fn schedule(&mut self) {
        let Some(departures) = &self.train.spec.departures else {
            (self.status.next_departure, self.status.due) = (None, None);
            return;
        };
        let Ok(times) = departures.schedule().times() else { return };
        if self.status.next_departure.is_some_and(|next| next <= self.now) {
            self.status.due = self.status.due.or(self.status.next_departure);
        }
        self.status.next_departure = times.first_after(self.now);
    }

    /// Lets the best proven version go to production, if it is time. While a departure is due no canary begins, so it
    /// waits for one canary at most.
    pub(super) fn depart(&mut self) {
        let picked = self.picked();
        if self.train.spec.paused || self.busy() || (self.status.due.is_none() && picked.is_none()) {
            return;
        }
        let best = if self.train.spec.automatic { self.best() } else { None };
        let due = self.status.due.take();
        match picked.or(best) {
            Some(version) => self.send_off(&version),
            None => self.stay(due),
        }
    }

    fn send_off(&mut self, version: &str) {
        let score = self.rider(version).and_then(|rider| rider.score).unwrap_or_default();
        self.move_on(version, RiderState::Departed, "on its way to production");
        self.note("Departed", format!("{version} departs for production, score {score:.0}"), false);
        self.status.production = Some(self.leg(version, version, "production"));
    }

    fn stay(&mut self, due: Option<Timestamp>) {
        let Some(due) = due else { return };
        let why = match self.best() {
            Some(best) => format!("a person picks: `weir train pick {} {best}`", self.train.name()),
            None => "no version newer than production's has proven itself".to_owned(),
        };
        self.note("DepartedEmpty", format!("the departure of {due} took nothing: {why}"), false);
    }

    /// What a person picked, if it may depart.
    fn picked(&self) -> Option<String> {
        let pick = self.train.spec.pick.as_ref()?;
        self.rider(pick).is_some_and(|rider| rider.state == RiderState::Proven).then(|| pick.clone())
    }

    /// The proven version with the highest score that is newer than what production runs; of equals, the newest.
    fn best(&self) -> Option<String> {
        let released = self.status.released.as_ref().and_then(|version| self.rider(version)?.registered_at);
        let newer = |version: &String| self.rider(version).is_some_and(|rider| rider.registered_at > released);
        let mut candidates: Vec<String> = self.newest(RiderState::Proven).into_iter().filter(newer).collect();
        let score = |version: &String| self.rider(version).and_then(|rider| rider.score).unwrap_or_default();
        candidates.sort_by(|a, b| score(b).total_cmp(&score(a)));
        candidates.into_iter().next()
    }

    /// Lets the newest waiting version prove itself; those that waited with it have been overtaken.
    pub(super) fn begin_canary(&mut self) {
        if self.train.spec.paused || self.busy() || self.status.due.is_some() {
            return;
        }
        let mut waiting = self.newest(RiderState::Waiting).into_iter();
        let Some(newest) = waiting.next() else { return };
        for overtaken in waiting {
            self.move_on(&overtaken, RiderState::Superseded, format!("{newest} came before its turn"));
        }
        self.move_on(&newest, RiderState::Canary, "proves itself in the canary");
        self.note("CanaryBegins", format!("{newest} goes to the canary"), false);
        if let Some(rider) = self.status.riders.get_mut(&newest) {
            rider.canary_at = Some(self.now);
        }
        self.status.canary = Some(self.leg(&newest, &newest, "canary"));
    }

    /// When something happens next, as far as that is known.
    pub(super) fn outlook(&self) -> String {
        let best = self.best().map_or("nothing proven to take".to_owned(), |best| format!("{best} would go"));
        match (self.status.due, self.status.next_departure) {
            (Some(due), _) => format!("the departure of {due} waits for what runs; {best}"),
            (None, Some(next)) => format!("next departure {next}; {best}"),
            (None, None) => format!("departs when a person picks; {best}"),
        }
    }
}

/// The Change of each leg that is recorded, as the train makes it, while `canaries` instances are its canary.
pub(super) fn changes(train: &ReleaseTrain, canaries: usize) -> Vec<Change> {
    let status = &train.status;
    let legs = [
        (&status.canary, canary as fn(&ReleaseTrain, &Leg, usize) -> Change),
        (&status.production, production),
        (&status.withdrawal, back),
    ];
    let due = legs.into_iter().filter_map(|(leg, make)| Some((leg.as_ref().filter(|leg| !leg.seen)?, make)));
    due.map(|(leg, make)| make(train, leg, canaries)).collect()
}

fn canary(train: &ReleaseTrain, leg: &Leg, canaries: usize) -> Change {
    let stage = &train.spec.canary;
    change(train, leg, stage, canary_ladder(stage, &train.spec.proof, canaries))
}

fn production(train: &ReleaseTrain, leg: &Leg, _: usize) -> Change {
    let stage = &train.spec.production;
    change(train, leg, stage, stage.ladder.clone())
}

/// Back to what is known to be good, so nothing has to be proven again.
fn back(train: &ReleaseTrain, leg: &Leg, _: usize) -> Change {
    let at_once = vec![Rung { percent: 100.0, bake_seconds: 0, min_requests: 0 }];
    change(train, leg, &train.spec.canary, at_once)
}

/// One box, then all of the canary for as long as the proof asks. Where one box is all of the canary, it is watched so
/// from the beginning: there would be no second step to prove anything on.
fn canary_ladder(stage: &Stage, proof: &Proof, canaries: usize) -> Vec<Rung> {
    if !stage.ladder.is_empty() {
        return stage.ladder.clone();
    }
    let one_box = Rung { percent: 0.0, bake_seconds: ONE_BOX_SECONDS.min(proof.soak_seconds), min_requests: 0 };
    let all = Rung { percent: 100.0, bake_seconds: proof.soak_seconds, min_requests: proof.min_requests };
    if canaries > 1 { vec![one_box, all] } else { vec![all] }
}

fn change(train: &ReleaseTrain, leg: &Leg, stage: &Stage, ladder: Vec<Rung>) -> Change {
    let default = ChangeSpec::proxy_upgrade(&leg.version);
    let spec = ChangeSpec {
        action: Action::ProxyUpgrade { version: leg.version.clone() },
        scope: stage.scope.clone(),
        ladder: if ladder.is_empty() { default.ladder.clone() } else { ladder },
        budget: stage.budget.clone(),
        judge: stage.judge.clone(),
        level: if train.spec.automatic && stage.level == Level::L4 { Level::L5 } else { stage.level },
        ..default
    };
    Change::new(&leg.change, spec)
}
