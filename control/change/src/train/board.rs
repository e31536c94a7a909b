//! Who is on the train: versions come with their Releases, and leave when they are withdrawn or forgotten.

use weir_model::Release;
use weir_model::train::{MAX_RIDERS, Rider, RiderState};

use super::Walk;

impl Walk<'_> {
    /// Takes in new Releases, and takes off what may not ride.
    pub(super) fn board(&mut self) {
        for release in self.world.releases {
            let version = &release.spec.version;
            if !self.status.riders.contains_key(version) {
                self.welcome(release);
            }
            if let Some(why) = unfit(release) {
                self.withdraw(version, &why);
            }
        }
    }

    fn welcome(&mut self, release: &Release) {
        let version = release.spec.version.clone();
        let mut rider = newcomer(release);
        if self.status.released.is_none() && self.in_production().as_ref() == Some(&version) {
            (rider.state, rider.why) = (RiderState::Released, "most instances ran it before the train did".into());
            self.status.released = Some(version.clone());
        }
        self.note("Boarded", format!("{version} is on the train"), false);
        self.status.riders.insert(version, rider);
    }

    /// The version that most instances want.
    fn in_production(&self) -> Option<String> {
        let most = self.world.running.iter().max_by_key(|(_, count)| **count);
        most.map(|(version, _)| version.clone())
    }

    /// Takes a version off for good. Its Release is marked by what is done with the record.
    pub(super) fn withdraw(&mut self, version: &str, why: &str) {
        let done = self.rider(version).is_none_or(|rider| rider.state == RiderState::Withdrawn);
        if done {
            return;
        }
        let commits = self.suspects(version);
        self.move_on(version, RiderState::Withdrawn, format!("{why}{commits}"));
        self.note("Withdrawn", format!("{version} is withdrawn: {why}{commits}"), true);
        if self.status.released.as_deref() == Some(version) {
            self.status.released = self.last_good();
        }
    }

    /// The commits among which the harm is: those since the last version that was good.
    fn suspects(&self, version: &str) -> String {
        let Some(release) = self.release(version) else { return String::new() };
        let good = self.last_good().and_then(|good| self.release(&good)?.spec.commit.clone());
        let range = match (&good, &release.spec.commit) {
            (Some(good), Some(bad)) => format!("; it came with {good}..{bad}"),
            (None, Some(bad)) => format!("; it came with {bad} or before"),
            _ => String::new(),
        };
        let listed = release.spec.commits.join(", ");
        if listed.is_empty() { range } else { format!("{range} ({listed})") }
    }

    /// The newest version that reached production and was not withdrawn, else the newest that was proven.
    pub(super) fn last_good(&self) -> Option<String> {
        let in_state = |state| self.newest(state).into_iter().next();
        in_state(RiderState::Released).or_else(|| in_state(RiderState::Proven))
    }

    /// Keeps the record within its bound; what still matters stays.
    pub(super) fn forget(&mut self) {
        let done = |rider: &Rider| {
            matches!(rider.state, RiderState::Superseded | RiderState::Unproven | RiderState::Withdrawn)
        };
        while self.status.riders.len() > MAX_RIDERS {
            let there = |version: &String| self.world.releases.iter().any(|r| r.spec.version == *version);
            let gone = self.status.riders.iter().filter(|(version, rider)| done(rider) && !there(version));
            let Some(oldest) = gone.min_by_key(|(_, rider)| rider.registered_at).map(|(v, _)| v.clone()) else {
                return;
            };
            self.status.riders.remove(&oldest);
        }
    }
}

fn newcomer(release: &Release) -> Rider {
    Rider {
        state: RiderState::Waiting,
        why: "waits for the canary".into(),
        registered_at: release.metadata.created_at,
        committed_at: release.spec.committed_at,
        ..Rider::default()
    }
}

/// Why a version may not ride.
fn unfit(release: &Release) -> Option<String> {
    let failed = release.spec.tests.map_or(0, |tests| tests.failed);
    let withdrawn = release.spec.withdrawn.clone();
    withdrawn.or_else(|| (failed > 0).then(|| format!("{failed} of its tests failed")))
}
