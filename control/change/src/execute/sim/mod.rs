//! The executor against a simulated fleet on a virtual clock, with everything that a restart may do to it.
//!
//! [`fleet`] plays the instance controller, the proxies and the callers; [`mortal`] is a store at which the executor dies
//! after a given number of operations, before or after the last one took effect; [`law`] watches from outside what must
//! never happen. All randomness is seeded: a failing seed repeats.

mod by_hand;
mod configurations;
mod defence;
mod fleet;
mod law;
pub(crate) mod mortal;
mod programs;
mod stories;
mod together;

use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;
use weir_model::change::{Budget, ChangePhase, ChangeSpec, JudgeSpec, Rung};
use weir_model::{Author, Change};
use weir_store::observed::Observed;
use weir_store::{MemoryStore, Retention, Store, typed};

use super::{Memory, reconcile, with_names};
use fleet::Fleet;
use law::Law;
use mortal::Mortal;

/// A run that takes longer than so many virtual seconds hangs.
const END_SECONDS: i64 = 1_500;

/// How a store operation of the simulation, which never waits, is run.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the in-memory store never waits")
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a moment in 1970")
}

pub(crate) fn author() -> Author {
    Author::new("test", "test")
}

/// Small bakes, as in a demo.
pub(super) fn spec(target: &str) -> ChangeSpec {
    let rung = |percent| Rung { percent, bake_seconds: 8, min_requests: 40 };
    ChangeSpec {
        ladder: [0.0, 20.0, 50.0, 100.0].map(rung).to_vec(),
        budget: Budget { max_unavailable_percent: 34.0, max_in_flight_percent: 50.0, ..Budget::default() },
        judge: JudgeSpec { patience_seconds: 60, ..JudgeSpec::default() },
        instance_timeout_seconds: 60,
        ..ChangeSpec::proxy_upgrade(target)
    }
}

/// One simulated world.
pub(super) struct Sim {
    pub store: MemoryStore,
    pub observed: Arc<Observed>,
    pub memory: Memory,
    pub fleet: Fleet,
    pub law: Law,
    pub second: i64,
    pub random: fastrand::Rng,
    /// The executor dies about once in so many reconciles.
    pub deaths: Option<u32>,
    wake_at: i64,
}

impl Sim {
    pub fn new(seed: u64, fleet: Fleet) -> Sim {
        let clock: weir_store::Clock = Arc::new(|| at(0));
        let retention = Retention { changes: 16, events: 1_000, audit: 16 };
        let store = MemoryStore::with(retention, clock);
        fleet.create(&store);
        Sim {
            store,
            observed: Arc::default(),
            memory: Memory::default(),
            fleet,
            law: Law::default(),
            second: 0,
            random: fastrand::Rng::with_seed(seed),
            deaths: None,
            wake_at: 0,
        }
    }

    pub fn apply(&self, name: &str, spec: ChangeSpec) {
        now(typed::create(&self.store, &Change::new(name, spec), &author())).expect("a valid change");
    }

    pub fn change(&self, name: &str) -> Change {
        let stored = now(typed::get(&self.store, name)).expect("readable").expect("it is there");
        now(with_names(&self.store, &stored)).expect("readable")
    }

    /// Changes the spec as a person would.
    pub fn command(&self, name: &str, edit: impl FnOnce(&mut ChangeSpec)) {
        let mut change: Change = now(typed::get(&self.store, name)).expect("readable").expect("it is there");
        edit(&mut change.spec);
        now(typed::update(&self.store, &change, &author())).expect("a valid edit");
    }

    /// One virtual second: the fleet moves, reports, and the executor runs as often as it asks to.
    pub fn tick(&mut self, name: &str) {
        self.second += 1;
        self.fleet.tick(&self.store, &self.observed, at(self.second), &mut self.random);
        self.law.watch(&self.store, name);
        for _ in 0..20 {
            if self.wake_at > self.second || !self.reconcile(name) {
                break;
            }
            self.law.watch(&self.store, name);
        }
    }

    /// One reconcile, perhaps the executor's last; true if it wants to go on at once.
    fn reconcile(&mut self, name: &str) -> bool {
        let dies = self.deaths.is_some_and(|once_in| self.random.u32(..once_in) == 0);
        let operations = if dies { self.random.i64(0..24) } else { i64::MAX };
        let mortal = Mortal::new(self.store.clone(), operations, self.random.bool());
        match reconcile(&mortal, &self.memory, &self.observed, name, at(self.second)).now_or_never() {
            Some(result) => {
                let again = result.expect("the store works");
                self.wake_at = self.second + again.map_or(0, |a| i64::try_from(a.as_secs()).unwrap_or(0).min(1));
                again.is_some_and(|a| a.is_zero())
            }
            None => self.die(),
        }
    }

    /// The process is gone, and with it what was only measured. Its successor starts within the same seconds or later.
    fn die(&mut self) -> bool {
        (self.observed, self.memory) = Default::default();
        self.wake_at = self.second + self.random.i64(0..4);
        self.wake_at == self.second
    }

    pub fn run_until(&mut self, name: &str, done: impl Fn(&Change) -> bool) -> Change {
        while self.second < END_SECONDS {
            self.tick(name);
            if let Some(change) = self.law.change.as_ref().filter(|c| done(c)) {
                return change.clone();
            }
        }
        panic!("not done after {END_SECONDS} s: {:#?}", self.change(name).status);
    }

    pub fn run_to_end(&mut self, name: &str) -> Change {
        self.run_until(name, |change| change.status.phase.ended())
    }

    pub fn run_to_phase(&mut self, name: &str, phase: ChangePhase) -> Change {
        self.run_until(name, |change| change.status.phase == phase)
    }

    pub fn events(&self, name: &str) -> Vec<String> {
        let about = Some(self.change(name).key());
        let events = now(self.store.events(&weir_store::EventQuery { about, limit: 1_000 }));
        events.expect("readable").into_iter().map(|e| e.reason).collect()
    }
}
