//! Stories of a train: the test stands for CI and for the change engine.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use weir_model::change::{Batch, ChangePhase, Outcome, Rollback, Scope, Verdict};
use weir_model::release::{Component, ReleaseSpec, TestResults};
use weir_model::train::{Departures, Proof, ReleaseTrainSpec, RiderState, Stage};
use weir_model::{Change, Release, ReleaseTrain};

use super::departure::changes as wanted_changes;
use super::*;

/// Everything around a train.
struct Yard {
    train: ReleaseTrain,
    releases: Vec<Release>,
    changes: BTreeMap<String, Change>,
    running: BTreeMap<String, usize>,
    now: Timestamp,
    notes: Vec<Note>,
    /// Instances of the canary.
    canaries: usize,
}

impl Yard {
    /// Departures at ten each day; it is midnight.
    fn new() -> Yard {
        let scope = Scope { units: vec!["canary".into()], ..Scope::default() };
        let spec = ReleaseTrainSpec {
            component: Component::Proxy,
            canary: Stage { scope, ..Stage::default() },
            proof: Proof { soak_seconds: 3600, min_requests: 1000 },
            production: Stage::default(),
            departures: Some(Departures { cron: "0 10 * * *".into(), time_zone: "UTC".into() }),
            automatic: true,
            pick: None,
            paused: false,
        };
        Yard {
            train: ReleaseTrain::new("proxy", spec),
            releases: Vec::new(),
            changes: BTreeMap::new(),
            running: BTreeMap::new(),
            now: Timestamp::UNIX_EPOCH,
            notes: Vec::new(),
            canaries: 2,
        }
    }

    /// CI registers a version made from a commit ten minutes old.
    fn nightly(&mut self, version: &str) -> &mut Release {
        let spec = ReleaseSpec {
            commit: Some(format!("c{version}")),
            committed_at: self.now.checked_sub(SignedDuration::from_mins(10)).ok(),
            commits: vec![format!("c{version} Speed things up")],
            ..ReleaseSpec::new(Component::Proxy, version, "/opt/weir-proxy")
        };
        let mut release = Release::new(format!("proxy-{version}"), spec);
        release.metadata.created_at = Some(self.now);
        self.releases.push(release);
        self.releases.last_mut().expect("one was pushed")
    }

    fn wait(&mut self, minutes: i64) -> &mut Yard {
        self.now = self.now.checked_add(SignedDuration::from_mins(minutes)).expect("not so long");
        self
    }

    /// Steps until nothing changes, doing what the train asks for.
    fn run(&mut self) -> &mut Yard {
        for _ in 0..10 {
            let world = World { releases: &self.releases, changes: &self.changes, running: &self.running };
            let step = step(&self.train, world, self.now);
            let still = step.status == self.train.status;
            self.train.status = step.status;
            self.notes.extend(step.notes);
            for change in wanted_changes(&self.train, self.canaries) {
                self.changes.entry(change.name().to_owned()).or_insert(change);
            }
            if still {
                return self;
            }
        }
        panic!("it does not come to rest: {:#?}", self.train.status);
    }

    fn change(&mut self, name: &str) -> &mut Change {
        let there: Vec<String> = self.changes.keys().cloned().collect();
        self.changes.get_mut(name).unwrap_or_else(|| panic!("no {name} among {there:?}"))
    }

    /// The engine ends a Change well.
    fn succeed(&mut self, name: &str, requests: u64) -> &mut Yard {
        let verdict = Verdict { requests, watched_seconds: 7200, threshold: 7.0, ..passed() };
        let status = &mut self.change(name).status;
        status.phase = ChangePhase::Succeeded;
        status.batches = vec![Batch { verdict: Some(verdict), ..Batch::default() }];
        self.run()
    }

    /// The engine finds harm and rolls back.
    fn roll_back(&mut self, name: &str) -> &mut Yard {
        let status = &mut self.change(name).status;
        status.phase = ChangePhase::RolledBack;
        status.rollback = Some(Rollback { reason: "errors rose".into(), batch: Batch::default() });
        self.run()
    }

    fn state(&self, version: &str) -> RiderState {
        self.train.status.riders[version].state
    }

    fn heard(&self, text: &str) -> bool {
        self.notes.iter().any(|note| note.message.contains(text))
    }
}

fn passed() -> Verdict {
    serde_json::from_value(serde_json::json!({"outcome": Outcome::Pass, "reason": "no harm"})).expect("a verdict")
}

#[test]
fn a_nightly_proves_itself_and_departs_on_time() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run();
    let canary = yard.change("proxy-1-1-canary");
    assert_eq!(canary.spec.scope.units, ["canary"]);
    assert_eq!(canary.spec.ladder.last().map(|rung| (rung.bake_seconds, rung.min_requests)), Some((3600, 1000)));
    yard.wait(120).succeed("proxy-1-1-canary", 20_000);
    assert_eq!(yard.state("1.1"), RiderState::Proven);
    assert!(yard.train.status.production.is_none(), "not before ten");
    yard.wait(8 * 60).run();
    assert_eq!(yard.state("1.1"), RiderState::Departed);
    yard.wait(30).succeed("proxy-1-1-production", 50_000);
    let rider = &yard.train.status.riders["1.1"];
    assert_eq!((rider.state, yard.train.status.released.as_deref()), (RiderState::Released, Some("1.1")));
    assert_eq!(rider.delay_seconds(rider.canary_at), Some(600));
    assert_eq!(rider.delay_seconds(rider.released_at), Some(600 + (120 + 480 + 30) * 60));
}

#[test]
fn what_runs_already_is_where_the_train_begins() {
    let mut yard = Yard::new();
    yard.running = BTreeMap::from([("1.0".into(), 90), ("0.9".into(), 10)]);
    for version in ["0.9", "1.0", "1.1"] {
        yard.nightly(version);
        yard.wait(1);
    }
    yard.run();
    assert_eq!(yard.train.status.released.as_deref(), Some("1.0"));
    assert_eq!([yard.state("0.9"), yard.state("1.1")], [RiderState::Superseded, RiderState::Canary]);
    yard.roll_back("proxy-1-1-canary");
    assert!(yard.heard("it came with c1.0..c1.1"), "{:#?}", yard.notes);
}

#[test]
fn a_bad_nightly_is_withdrawn_and_its_commits_are_named() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run().succeed("proxy-1-1-canary", 20_000);
    yard.wait(60).nightly("1.2");
    yard.run().roll_back("proxy-1-2-canary");
    assert_eq!(yard.state("1.2"), RiderState::Withdrawn);
    assert!(yard.heard("1.2 is withdrawn: in the canary: errors rose; it came with c1.1..c1.2 (c1.2 Speed things up)"));
    yard.wait(10 * 60).run();
    assert_eq!(yard.state("1.1"), RiderState::Departed, "the good one goes all the same");
}

#[test]
fn what_waits_is_overtaken_by_what_is_newer() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run();
    for version in ["1.2", "1.3"] {
        yard.wait(10).nightly(version);
        yard.run();
    }
    assert_eq!(yard.state("1.2"), RiderState::Waiting, "one at a time");
    yard.succeed("proxy-1-1-canary", 20_000);
    assert_eq!([yard.state("1.2"), yard.state("1.3")], [RiderState::Superseded, RiderState::Canary]);
}

#[test]
fn harm_in_production_takes_the_version_off_the_canary_too() {
    let mut yard = Yard::new();
    for version in ["1.1", "1.2"] {
        yard.nightly(version);
        yard.run().wait(60).succeed(&format!("proxy-{}-canary", version.replace('.', "-")), 20_000);
        yard.wait(24 * 60).run();
        if version == "1.1" {
            yard.succeed("proxy-1-1-production", 50_000);
        }
    }
    yard.running = BTreeMap::from([("1.1".into(), 90), ("1.2".into(), 10)]);
    yard.roll_back("proxy-1-2-production");
    assert_eq!(yard.state("1.2"), RiderState::Withdrawn);
    let back = yard.change("proxy-1-2-withdrawal");
    assert_eq!((back.spec.target(), back.spec.scope.units.as_slice()), ("1.1", &["canary".to_owned()][..]));
    yard.running = BTreeMap::from([("1.1".into(), 100)]);
    yard.succeed("proxy-1-2-withdrawal", 100);
    assert!(yard.train.status.withdrawal.is_none() && yard.heard("the canary runs 1.1 again"));
}

#[test]
fn a_departure_without_a_proven_version_says_why() {
    let mut yard = Yard::new();
    yard.run().wait(11 * 60).run();
    assert!(yard.heard("took nothing: no version newer than production's has proven itself"));
    assert_eq!(yard.train.status.due, None);
}

#[test]
fn a_due_departure_waits_for_one_canary_at_most() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run().succeed("proxy-1-1-canary", 20_000);
    yard.wait(60).nightly("1.2");
    yard.run().wait(10 * 60).nightly("1.3");
    yard.run();
    assert!(yard.train.status.due.is_some() && yard.train.status.production.is_none(), "1.2 still proves itself");
    yard.succeed("proxy-1-2-canary", 20_000);
    assert_eq!([yard.state("1.2"), yard.state("1.3")], [RiderState::Departed, RiderState::Waiting]);
}

#[test]
fn below_level_five_a_person_picks() {
    let mut yard = Yard::new();
    yard.train.spec.automatic = false;
    yard.nightly("1.1");
    yard.run().succeed("proxy-1-1-canary", 20_000);
    yard.wait(11 * 60).run();
    assert!(yard.heard("a person picks: `weir train pick proxy 1.1`"));
    yard.train.spec.pick = Some("1.1".into());
    yard.run();
    assert_eq!(yard.state("1.1"), RiderState::Departed);
}

#[test]
fn nothing_begins_while_a_person_holds_the_train() {
    let mut yard = Yard::new();
    yard.train.spec.paused = true;
    yard.nightly("1.1");
    yard.run();
    assert_eq!(yard.state("1.1"), RiderState::Waiting);
    yard.train.spec.paused = false;
    yard.run();
    assert_eq!(yard.state("1.1"), RiderState::Canary);
}

#[test]
fn what_failed_its_tests_or_was_withdrawn_never_rides() {
    let mut yard = Yard::new();
    yard.nightly("1.1").spec.tests = Some(TestResults { passed: 10, failed: 2 });
    yard.nightly("1.2").spec.withdrawn = Some("leaks".into());
    yard.run();
    assert_eq!([yard.state("1.1"), yard.state("1.2")], [RiderState::Withdrawn; 2]);
    assert!(yard.changes.is_empty() && yard.heard("2 of its tests failed") && yard.heard("leaks"));
}

#[test]
fn a_change_that_somebody_deleted_or_aborted_is_not_made_again() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run().changes.clear();
    yard.run();
    assert_eq!(yard.state("1.1"), RiderState::Superseded);
    assert!(yard.changes.is_empty());
    yard.wait(1).nightly("1.2");
    yard.run().change("proxy-1-2-canary").status.phase = ChangePhase::Aborted;
    yard.run();
    assert_eq!(yard.state("1.2"), RiderState::Superseded);
}

#[test]
fn of_several_proven_ones_the_calmest_goes() {
    let mut yard = Yard::new();
    for (version, requests) in [("1.1", 20_000), ("1.2", 1_200)] {
        yard.nightly(version);
        yard.run().wait(30).succeed(&format!("proxy-{}-canary", version.replace('.', "-")), requests);
    }
    let score = |version: &str| yard.train.status.riders[version].score.unwrap_or_default();
    assert!(score("1.1") > score("1.2"), "{} {}", score("1.1"), score("1.2"));
    yard.wait(10 * 60).run();
    assert_eq!(yard.state("1.1"), RiderState::Departed);
}

#[test]
fn a_canary_that_found_nothing_to_do_proves_nothing() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run().change("proxy-1-1-canary").status.phase = ChangePhase::Succeeded;
    yard.change("proxy-1-1-canary").status.message = "nothing to do: all 2 instances want it already".into();
    yard.wait(24 * 60).run();
    assert_eq!(yard.state("1.1"), RiderState::Unproven);
    assert!(yard.heard("brought it to no instance of the canary (nothing to do"), "{:#?}", yard.notes);
    assert!(yard.train.status.production.is_none() && yard.train.status.riders["1.1"].score.is_none());
}

#[test]
fn less_than_the_proof_asks_for_proves_nothing() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    yard.run().succeed("proxy-1-1-canary", 999);
    assert_eq!(yard.state("1.1"), RiderState::Unproven);
    assert!(yard.heard("999 of 1000 requests and 7200 of 3600 s were seen"), "{:#?}", yard.notes);
}

#[test]
fn an_empty_canary_holds_the_train_and_says_so() {
    let mut yard = Yard::new();
    yard.nightly("1.1");
    let status = &mut yard.run().change("proxy-1-1-canary").status;
    (status.phase, status.message) = (ChangePhase::Blocked, "nothing in scope".into());
    yard.wait(24 * 60).run();
    assert_eq!(yard.state("1.1"), RiderState::Canary);
    let message = &yard.train.status.message;
    assert!(message.contains("by change/proxy-1-1-canary, which is blocked: nothing in scope"), "{message}");
}

#[test]
fn a_canary_of_one_instance_is_watched_in_full() {
    let mut yard = Yard::new();
    yard.canaries = 1;
    yard.nightly("1.1");
    let ladder = yard.run().change("proxy-1-1-canary").spec.ladder.clone();
    let asked: Vec<_> = ladder.iter().map(|rung| (rung.percent, rung.bake_seconds, rung.min_requests)).collect();
    assert_eq!(asked, [(100.0, 3600, 1000)]);
}
