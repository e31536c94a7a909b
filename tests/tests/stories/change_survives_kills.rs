//! The control plane is killed at random moments of a change, again and again, on live traffic: no instance is changed
//! twice or forgotten, no batch begins before its time, no more are out than the budget allows, and no request fails.
//! Good versions arrive everywhere; a bad one is gone again after its first batch.
//!
//! Every round is a change of a mesh, to B and back to A, every third to the drill C. `WEIR_SEEDS` says how many rounds,
//! `WEIR_LANES` over how many meshes they are spread, which stand side by side, each with a control plane of its own: a
//! round is mostly waiting. `WEIR_SEEDS=100 WEIR_LANES=5 cargo xtask test --story change_survives_kills`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_testkit::Weir;

use crate::mesh::{self, Load, edge, get, list, release, resource, text};

/// Rounds, unless `WEIR_SEEDS` says otherwise.
const ROUNDS: u64 = 3;
/// Between two looks at a mesh: short beside everything that a change does, and lanes share the machine.
const PERIOD: Duration = Duration::from_millis(10);
/// A change that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Kills in one round.
const MOST_KILLS: u64 = 5;
/// A control plane that has just come back waits for its proxies before it goes on, so a life must be long enough for
/// some to die in every step.
const LONGEST_LIFE_MS: u64 = 10_000;

#[test]
fn whatever_is_killed_nothing_is_lost_repeated_or_forgotten() {
    let rounds = Rounds { next: AtomicU64::new(0), end: number("WEIR_SEEDS", ROUNDS) };
    thread::scope(|lanes| {
        for lane in 0..number("WEIR_LANES", 1).min(rounds.end) {
            lanes.spawn({
                let rounds = &rounds;
                move || rounds.run(lane)
            });
        }
    });
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// The rounds that are left, which the lanes share.
struct Rounds {
    next: AtomicU64,
    end: u64,
}

impl Rounds {
    /// Runs rounds on a mesh of its own until none is left, or one has failed.
    fn run(&self, lane: u64) {
        let _stop = StopOnPanic(self);
        let mut mesh = Mesh::start();
        while let Some(seed) = self.take() {
            let begun = Instant::now();
            mesh.round(seed);
            let load = mesh.load.lines().last().cloned().unwrap_or_default();
            eprintln!("lane {lane}, round {seed} to {}, {} s: {load}", mesh.current, begun.elapsed().as_secs());
        }
    }

    fn take(&self) -> Option<u64> {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        (seed < self.end).then_some(seed)
    }
}

/// Leaves no rounds to the other lanes when one fails.
struct StopOnPanic<'a>(&'a Rounds);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.next.store(self.0.end, Ordering::Relaxed);
        }
    }
}

/// `edge` calls `front`, which calls `stock`; a steady load enters at the edge.
struct Mesh {
    weir: Weir,
    instances: usize,
    load: Load,
    /// The version that all run.
    current: &'static str,
}

impl Mesh {
    fn start() -> Mesh {
        let good = ["A", "B"].map(|version| release(version, json!([])));
        let bad = release("C", json!(["--drill", "fail-ratio=0.3"]));
        let weir = mesh::start(&[&good[..], &[bad]].concat());
        let load = Load::start(&weir, edge(&weir));
        Mesh { weir, instances: mesh::INSTANCES, load, current: "A" }
    }

    /// A change to the other good version, or every third round to the bad one.
    fn round(&mut self, seed: u64) {
        let target = match (seed % 3, self.current) {
            (2, _) => "C",
            (_, "A") => "B",
            _ => "A",
        };
        let change = self.change_with_kills(seed, target);
        let (ended, count) = if target == "C" { ("RolledBack", 1) } else { ("Succeeded", self.instances) };
        assert_eq!(change["status"]["phase"], ended, "seed {seed}: {change:#}");
        assert_eq!(self.let_go(&format!("round-{seed}")).len(), count, "seed {seed}: {change:#}");
        self.current = if target == "C" { self.current } else { target };
        let versions = self.versions();
        assert!(versions.values().all(|version| version == self.current), "seed {seed}: {versions:?}");
    }

    /// Runs a change to its end. At first the control plane dies again and again, each time after a random part of
    /// [`LONGEST_LIFE_MS`]; then it is left alone. The law is watched throughout.
    fn change_with_kills(&mut self, seed: u64, target: &str) -> Value {
        let name = format!("round-{seed}");
        let failed_before = self.load.settled_failures();
        self.weir.apply(&change(&name, target).to_string());
        let (mut chance, mut law) = (Chance(seed), Law::default());
        for _ in 0..chance.below(MOST_KILLS) + 1 {
            let life = Duration::from_millis(chance.below(LONGEST_LIFE_MS));
            if self.watch(&name, &mut law, Instant::now() + life).is_some() {
                break;
            }
            self.weir.kill();
            self.weir.start_again();
        }
        let ended = self.watch(&name, &mut law, Instant::now() + PATIENCE);
        let change = ended.unwrap_or_else(|| panic!("seed {seed}: {:#}", get(&self.weir, &format!("changes/{name}"))));
        // What the bad version harms before it is caught is its own; planned change fails nothing.
        let failed = self.load.settled_failures() - failed_before;
        assert!(target == "C" || failed == 0, "seed {seed}: {failed} requests failed: {:?}", self.load.lines().last());
        change
    }

    /// Looks until the change has ended or `until`.
    fn watch(&self, name: &str, law: &mut Law, until: Instant) -> Option<Value> {
        loop {
            let instances = list(&self.weir, "instances");
            // Read after the instances: what was written to them was recorded before.
            let change = get(&self.weir, &format!("changes/{name}"));
            law.watch(&instances, &change, &self.let_go(name));
            let phase = change["status"]["phase"].as_str().unwrap_or("Pending");
            if matches!(phase, "Succeeded" | "RolledBack" | "Aborted" | "Blocked") {
                return Some(change);
            }
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(PERIOD);
        }
    }

    /// Instances that the change's records say it has let go.
    fn let_go(&self, name: &str) -> BTreeSet<String> {
        let records = list(&self.weir, &format!("changerecords?limit=1000&labelSelector=weir.dev/change={name}"));
        assert!(records.len() < 1000, "a page is all that is read");
        let facts = records.iter().filter_map(|r| r["spec"]["facts"].as_array()).flatten();
        let forward = facts.filter_map(|f| f.get("letGo")).filter(|f| f["batch"] != 0);
        forward.flat_map(|f| f["instances"].as_array().cloned().unwrap_or_default()).map(|n| text(&n)).collect()
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let version = |i: &Value| (text(&i["metadata"]["name"]), text(&i["spec"]["proxyVersion"]));
        list(&self.weir, "instances").iter().map(version).collect()
    }
}

/// What must hold at every look.
#[derive(Default)]
struct Law {
    /// Versions that each instance's spec went through in this change.
    histories: BTreeMap<String, Vec<String>>,
}

impl Law {
    fn watch(&mut self, instances: &[Value], change: &Value, started: &BTreeSet<String>) {
        let mut out: BTreeMap<(String, String), usize> = BTreeMap::new();
        for instance in instances {
            let (name, version) = (text(&instance["metadata"]["name"]), text(&instance["spec"]["proxyVersion"]));
            let history = self.histories.entry(name.clone()).or_default();
            if history.last() != Some(&version) {
                history.push(version);
                assert!(history.len() == 1 || started.contains(&name), "{name} was not recorded: {change:#}");
                let back = history.len() == 3 && history[0] == history[2];
                assert!(history.len() <= 2 || back, "{name} went through {history:?}: {change:#}");
            }
            if instance["status"]["phase"] != "Serving" {
                *out.entry((text(&instance["spec"]["app"]), text(&instance["spec"]["unit"]))).or_default() += 1;
            }
        }
        assert!(out.values().all(|count| *count <= 1), "out together: {out:?}");
        one_batch_at_a_time(change);
    }
}

fn one_batch_at_a_time(change: &Value) {
    let batches = change["status"]["batches"].as_array().cloned().unwrap_or_default();
    let begun: Vec<&Value> = batches.iter().filter(|b| b["phase"] != "Waiting").collect();
    let earlier = begun.len().saturating_sub(1);
    assert!(begun[..earlier].iter().all(|b| b["phase"] == "Passed"), "a batch began before its time: {change:#}");
}

/// A seeded sequence (Knuth's MMIX generator); the high bits are the random ones.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn change(name: &str, target: &str) -> Value {
    // The drill fails three requests in ten: of so many, the judge is sure to see too many fail.
    let rung = |percent: u32| json!({"percent": percent, "bakeSeconds": 5, "minRequests": 60});
    resource(
        "Change",
        name,
        json!({
            "action": {"proxyUpgrade": {"version": target}},
            "ladder": [rung(0), rung(50), rung(100)],
            "judge": {"patienceSeconds": 120},
        }),
    )
}
