//! Levels, and what people do by hand.

use weir_model::change::{BatchPhase, ChangePhase, ChangeSpec, Level, ManualStep, Way};
use weir_model::{Change, ChangePolicy, ChangePolicySpec, InstanceSpec};
use weir_store::typed;

use super::fleet::Fleet;
use super::{Sim, author, now, spec};

fn sim() -> Sim {
    Sim::new(1, Fleet::demo())
}

fn at_level(level: Level, target: &str) -> ChangeSpec {
    ChangeSpec { level, ..spec(target) }
}

fn step(instance: &str, way: Way) -> ManualStep {
    ManualStep { instance: instance.into(), way }
}

fn version(sim: &Sim, name: &str) -> String {
    now(typed::get::<InstanceSpec>(&sim.store, name)).unwrap().unwrap().spec.proxy_version
}

fn touched(change: &Change) -> usize {
    change.status.batches.iter().map(|b| b.started.len()).sum()
}

fn some_time(sim: &mut Sim, name: &str) -> Change {
    (0..40).for_each(|_| sim.tick(name));
    sim.change(name)
}

fn policy(sim: &Sim, name: &str, max_level: Level, tiers: &[u8]) {
    let spec = ChangePolicySpec {
        max_level,
        reason: "people watch these".into(),
        tiers: tiers.to_vec(),
        apps: Vec::new(),
        lines: Vec::new(),
        units: Vec::new(),
    };
    now(typed::create(&sim.store, &ChangePolicy::new(name, spec), &author())).unwrap();
}

#[test]
fn at_l1_it_plans_and_does_nothing() {
    let mut sim = sim();
    sim.apply("up", at_level(Level::L1, "b"));
    let change = some_time(&mut sim, "up");
    assert_eq!((touched(&change), change.status.phase), (0, ChangePhase::Pending));
    assert!(change.status.plan.is_some() && !change.status.batches.is_empty(), "{:#?}", change.status);
    assert!(change.status.message.starts_with("level L1"), "{}", change.status.message);
    sim.command("up", |spec| spec.level = Level::L4);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn at_l0_a_person_names_each_instance() {
    let mut sim = sim();
    sim.apply("up", at_level(Level::L0, "b"));
    assert_eq!(touched(&some_time(&mut sim, "up")), 0);
    sim.command("up", |spec| spec.steps.push(step("front-west-2", Way::Forward)));
    let change = sim.run_until("up", |c| c.status.batches.iter().any(|b| b.phase == BatchPhase::Passed));
    assert_eq!((touched(&change), version(&sim, "front-west-2").as_str()), (1, "b"));
    sim.command("up", |spec| spec.steps.push(step("front-west-2", Way::Back)));
    let change = some_time(&mut sim, "up");
    assert_eq!((touched(&change), version(&sim, "front-west-2").as_str()), (1, "a"));
    assert_eq!(change.status.left["front-west-2"], "a person took it back");
    sim.command("up", |spec| spec.steps.push(step("nobody", Way::Forward)));
    let change = some_time(&mut sim, "up");
    assert!(change.status.message.contains("nobody can't go: no such instance"), "{}", change.status.message);
}

#[test]
fn at_l0_harm_blocks_and_a_person_takes_it_back() {
    let mut sim = sim();
    sim.apply("up", ChangeSpec { steps: vec![step("front-west-2", Way::Forward)], ..at_level(Level::L0, "c") });
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(touched(&change), 1);
    sim.command("up", |spec| spec.steps.push(step("front-west-2", Way::Back)));
    some_time(&mut sim, "up");
    assert_eq!(version(&sim, "front-west-2"), "a");
}

#[test]
fn a_batch_that_failed_is_passed_over() {
    let mut sim = sim();
    sim.apply("up", at_level(Level::L3, "c"));
    sim.run_to_phase("up", ChangePhase::Blocked);
    sim.fleet.natures.insert("c".into(), Default::default());
    sim.command("up", |spec| spec.skipped_batches.push(1));
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
    assert_eq!(change.status.batches[0].phase, BatchPhase::Skipped);
    assert_eq!(sim.events("up").iter().filter(|reason| *reason == "BatchSkipped").count(), 1);
}

#[test]
fn a_batch_that_waits_for_approval_is_passed_over() {
    let mut sim = sim();
    sim.apply("up", at_level(Level::L2, "b"));
    some_time(&mut sim, "up");
    sim.command("up", |spec| spec.skipped_batches.push(1));
    let change = some_time(&mut sim, "up");
    assert_eq!((touched(&change), change.status.left.len()), (0, 1));
    assert!(change.status.message.starts_with("batch 2 waits for approval"), "{}", change.status.message);
    sim.command("up", |spec| spec.level = Level::L4);
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::Succeeded, 12));
}

#[test]
fn a_policy_holds_a_change_to_its_level() {
    let mut sim = sim();
    policy(&sim, "others", Level::L1, &[1]);
    policy(&sim, "ours", Level::L3, &[]);
    sim.apply("up", at_level(Level::L4, "c"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    let level = change.status.level.clone().expect("it is told");
    assert_eq!((level.level, level.held_by.as_str()), (Level::L3, "changepolicy/ours: people watch these"));
}

#[test]
fn by_hand_survives_kills() {
    for seed in 0..8 {
        let mut sim = Sim::new(seed, Fleet::demo());
        sim.deaths = Some(6);
        let steps = vec![step("front-west-2", Way::Forward), step("stock-east-1", Way::Forward)];
        sim.apply("up", ChangeSpec { steps, ..at_level(Level::L0, "b") });
        let passed = |c: &Change| c.status.batches.iter().filter(|b| b.phase == BatchPhase::Passed).count() == 2;
        sim.run_until("up", passed);
        sim.command("up", |spec| {
            spec.steps.push(step("stock-east-1", Way::Back));
            spec.level = Level::L4;
            spec.skipped_batches.push(3);
        });
        let change = sim.run_to_end("up");
        assert_eq!(change.status.phase, ChangePhase::Succeeded, "seed {seed}: {}", change.status.message);
        assert_eq!(version(&sim, "stock-east-1"), "a", "seed {seed}");
        assert_eq!(version(&sim, "front-west-2"), "b", "seed {seed}");
    }
}
