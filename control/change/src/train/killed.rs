//! The train's controller dies again and again, at random operations on the store; CI and the change engine go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::FutureExt;
use weir_model::change::{Batch, ChangePhase, ChangeSpec, Rollback, Scope};
use weir_model::release::{Component, ReleaseSpec};
use weir_model::train::{Departures, Proof, ReleaseTrainSpec, RiderState, Stage};
use weir_model::{Change, Release, ReleaseTrain};
use weir_store::{Clock, MemoryStore, Retention, typed};

use super::controller::reconcile;
use crate::execute::sim::mortal::Mortal;
use crate::execute::sim::{at, author, now};

/// Runs; `WEIR_SEEDS` says otherwise.
const SEEDS: u64 = 4;
/// Minutes of a run in which the controller dies, and then as many in which it does not.
const MINUTES: i64 = 150;

struct World {
    store: MemoryStore,
    minute: Arc<AtomicI64>,
    random: fastrand::Rng,
    nightlies: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let minute = Arc::new(AtomicI64::new(0));
        let read = minute.clone();
        let clock: Clock = Arc::new(move || at(60 * read.load(Ordering::Relaxed)));
        let store = MemoryStore::with(Retention { changes: 16, events: 10_000, audit: 16 }, clock);
        let scope = Scope { units: vec!["canary".into()], ..Scope::default() };
        let spec = ReleaseTrainSpec {
            component: Component::Proxy,
            canary: Stage { scope, ..Stage::default() },
            proof: Proof { soak_seconds: 600, min_requests: 10 },
            production: Stage::default(),
            departures: Some(Departures { cron: "0 * * * *".into(), time_zone: "UTC".into() }),
            automatic: true,
            pick: None,
            paused: false,
        };
        now(typed::create(&store, &ReleaseTrain::new("proxy", spec), &author())).expect("a valid train");
        World { store, minute, random: fastrand::Rng::with_seed(seed), nightlies: 0 }
    }

    fn minute(&mut self, deadly: bool) {
        let minute = self.minute.fetch_add(1, Ordering::Relaxed) + 1;
        if deadly && self.random.u32(..15) == 0 {
            self.nightly();
        }
        self.engine();
        let operations = if deadly && self.random.bool() { self.random.i64(0..12) } else { i64::MAX };
        let mortal = Mortal::new(self.store.clone(), operations, self.random.bool());
        if let Some(lived) = reconcile(&mortal, "proxy", at(60 * minute)).now_or_never() {
            assert!(lived.expect("the store works"));
        }
        self.law();
    }

    fn nightly(&mut self) {
        self.nightlies += 1;
        let quality = if self.random.u32(..3) == 0 { "bad" } else { "good" };
        let version = format!("{quality}-{}", self.nightlies);
        let spec = ReleaseSpec::new(Component::Proxy, &version, "/opt/weir-proxy");
        now(typed::create(&self.store, &Release::new(&version, spec), &author())).expect("a valid release");
    }

    fn changes(&self) -> Vec<Change> {
        now(typed::list::<ChangeSpec>(&self.store)).expect("readable").0
    }

    /// Ends Changes after a while: bad versions are found out, in the canary or only in production.
    fn engine(&mut self) {
        for mut change in self.changes().into_iter().filter(|change| !change.status.phase.ended()) {
            if self.random.u32(..10) > 0 {
                continue;
            }
            let harm = change.spec.target().starts_with("bad") && self.random.bool();
            change.status.phase = if harm { ChangePhase::RolledBack } else { ChangePhase::Succeeded };
            change.status.batches = vec![watched()];
            change.status.rollback = harm.then(|| Rollback { reason: "errors rose".into(), batch: Default::default() });
            now(typed::update_status(&self.store, &change)).expect("a valid status");
        }
    }

    fn train(&self) -> ReleaseTrain {
        now(typed::get::<ReleaseTrainSpec>(&self.store, "proxy")).expect("readable").expect("it is there")
    }

    /// One Change at a time, and nothing that is withdrawn is ever brought anywhere.
    fn law(&self) {
        let changes = self.changes();
        let running: Vec<&Change> = changes.iter().filter(|change| !change.status.phase.ended()).collect();
        assert!(running.len() <= 1, "{:?}", running.iter().map(|change| change.name()).collect::<Vec<_>>());
        let train = self.train();
        for change in running {
            let rider = &train.status.riders[change.spec.target()];
            assert_ne!(rider.state, RiderState::Withdrawn, "{} brings what was withdrawn", change.name());
        }
    }
}

/// A batch that has shown what the proof asks for.
fn watched() -> Batch {
    let verdict = serde_json::json!({"outcome": "Pass", "reason": "", "requests": 10, "watchedSeconds": 600});
    Batch { verdict: serde_json::from_value(verdict).ok(), ..Batch::default() }
}

#[test]
fn whenever_it_dies_every_version_has_one_fate() {
    let seeds = std::env::var("WEIR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        (0..MINUTES).for_each(|_| world.minute(true));
        (0..MINUTES).for_each(|_| world.minute(false));
        let (train, changes) = (world.train(), world.changes());
        assert_eq!(train.status.riders.len() as u32, world.nightlies, "seed {seed}: nobody is forgotten");
        for (version, rider) in &train.status.riders {
            let ended = |purpose: &str| changes.iter().find(|c| c.name() == format!("proxy-{version}-{purpose}"));
            let undone = ["canary", "production"].iter().filter_map(|purpose| ended(purpose));
            let undone = undone.filter(|change| change.status.phase == ChangePhase::RolledBack).count();
            assert_eq!(undone > 0, rider.state == RiderState::Withdrawn, "seed {seed}: {version} is {:?}", rider.state);
            let release = now(typed::get::<ReleaseSpec>(&world.store, version)).expect("readable").expect("there");
            let withdrawn = release.spec.withdrawn.is_some();
            assert_eq!(withdrawn, rider.state == RiderState::Withdrawn, "seed {seed}: {version}'s Release");
            assert_ne!(rider.state, RiderState::Waiting, "seed {seed}: {version} waits for ever");
        }
    }
}
