//! What becomes of changes.

use weir_model::change::{Batch, BatchPhase, BlockReason, Budget, ChangePhase, Command, Level, Outcome, Scope};
use weir_model::instance::{InstancePhase, InstanceSpec};
use weir_model::{Change, Freeze, FreezeSpec, Key, Kind, Release, WorkloadSpec};
use weir_store::{Store, typed};

use super::fleet::{self, Fleet, Nature};
use super::{Sim, at, author, now, spec};
use crate::explain::explain_stored;

fn sim() -> Sim {
    Sim::new(1, Fleet::demo())
}

fn versions(sim: &Sim) -> Vec<String> {
    now(typed::list::<InstanceSpec>(&sim.store)).unwrap().0.into_iter().map(|i| i.spec.proxy_version).collect()
}

fn touched(change: &Change) -> usize {
    change.status.batches.iter().map(|b| b.started.len()).sum()
}

#[test]
fn a_good_change_reaches_everyone() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
    assert!(versions(&sim).iter().all(|v| v == "b"));
    assert!(change.status.batches.iter().all(|b| b.phase == BatchPhase::Passed));
    assert_eq!(change.status.batches[0].instances.len(), 1);
    assert_eq!((change.status.progress.done, change.status.progress.total), (13, 13));
    let workloads = now(typed::list::<WorkloadSpec>(&sim.store)).unwrap().0;
    assert!(workloads.iter().all(|w| w.spec.proxy_version == "b"));
    assert_eq!(sim.events("up").last().map(String::as_str), Some("Succeeded"));
}

#[test]
fn a_bad_change_is_rolled_back_from_its_first_batch() {
    let mut sim = sim();
    sim.apply("up", spec("c"));
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::RolledBack, "{}", change.status.message);
    assert!(versions(&sim).iter().all(|v| v == "a"));
    assert_eq!(touched(&change), 1);
    let verdict = change.status.batches[0].verdict.as_ref().unwrap();
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert!(verdict.reason.contains("rose on changed instances of"), "{}", verdict.reason);
    assert!(verdict.errors > 0 && verdict.errors < 40, "{}", verdict.errors);
}

#[test]
fn a_version_that_does_not_come_up_is_rolled_back() {
    let mut fleet = Fleet::demo();
    fleet.natures.insert("c".into(), Nature { stillborn: true, ..Nature::default() });
    let mut sim = Sim::new(1, fleet);
    sim.apply("up", spec("c"));
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::RolledBack, 1));
    assert!(change.status.batches[0].verdict.as_ref().unwrap().reason.contains("failed with proxy c"));
}

#[test]
fn a_version_that_dies_after_coming_back_is_rolled_back() {
    let mut fleet = Fleet::demo();
    fleet.natures.insert("c".into(), Nature { dies_after: Some(3), ..Nature::default() });
    let mut sim = Sim::new(1, fleet);
    sim.apply("up", spec("c"));
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::RolledBack, 1), "{}", change.status.message);
    let reason = &change.status.batches[0].verdict.as_ref().unwrap().reason;
    assert!(reason.contains("was back with proxy c and is not heard of for 60 s"), "{reason}");
}

/// One instance in all: nothing but its own past to compare it with.
fn alone() -> Fleet {
    Fleet { apps: vec![("edge".into(), 1)], units: vec!["east".into()], ..Fleet::demo() }
}

/// The fleet has reported for 20 seconds.
fn with_a_past(fleet: Fleet) -> Sim {
    let mut sim = Sim::new(1, fleet);
    for _ in 0..20 {
        sim.second += 1;
        sim.fleet.tick(&sim.store, &sim.observed, at(sim.second), &mut sim.random);
    }
    sim
}

/// The control plane dies in the bake, with everything it had measured, and the harm begins only then.
fn harmed_after_a_kill(background: f64) -> Change {
    let mut sim = with_a_past(Fleet { background: [("edge".to_owned(), background)].into(), ..alone() });
    sim.apply("up", spec("b"));
    let baking = |c: &Change| {
        let verdict = c.status.batches.first().and_then(|b| b.verdict.as_ref());
        verdict.is_some_and(|v| v.watched_seconds >= 2)
    };
    sim.run_until("up", baking);
    sim.observed = std::sync::Arc::default();
    if background == 0.0 {
        sim.fleet.natures.insert("b".into(), Nature { failing: 1.0, ..Nature::default() });
    }
    sim.run_to_end("up")
}

#[test]
fn harm_in_the_last_batch_is_found_though_what_was_measured_before_is_lost() {
    let change = harmed_after_a_kill(0.0);
    assert_eq!(change.status.phase, ChangePhase::RolledBack, "{}", change.status.message);
    assert!(change.status.message.contains("what was seen earlier"), "{}", change.status.message);
}

#[test]
fn what_failed_before_as_well_passes_though_what_was_measured_is_lost() {
    let change = harmed_after_a_kill(0.2);
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
}

/// The replay reaches back as far as the past was reported, here 20 seconds; the bake is longer.
#[test]
fn harm_is_found_when_the_replay_has_come_to_its_end() {
    let mut sim = with_a_past(alone());
    let ladder = spec("b").ladder.into_iter().map(|r| weir_model::change::Rung { bake_seconds: 80, ..r }).collect();
    sim.apply("up", weir_model::ChangeSpec { ladder, ..spec("b") });
    let late = |c: &Change| {
        let verdict = c.status.batches.first().and_then(|b| b.verdict.as_ref());
        verdict.is_some_and(|v| v.watched_seconds >= 40)
    };
    sim.run_until("up", late);
    sim.fleet.natures.insert("b".into(), Nature { failing: 1.0, ..Nature::default() });
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn an_app_that_fails_by_itself_does_not_block() {
    let mut fleet = Fleet::demo();
    fleet.background = [("front".to_owned(), 0.3), ("stock".to_owned(), 0.05)].into();
    let mut sim = Sim::new(1, fleet);
    sim.apply("up", spec("b"));
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn at_level_three_a_person_decides() {
    let mut sim = sim();
    sim.apply("up", weir_model::ChangeSpec { level: Level::L3, ..spec("c") });
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::BatchFailed));
    assert_eq!(versions(&sim).iter().filter(|v| *v == "c").count(), 1);
    sim.command("up", |s| s.retries += 1);
    sim.tick("up");
    assert_eq!(sim.change("up").status.phase, ChangePhase::Running);
    sim.run_to_phase("up", ChangePhase::Blocked);
    sim.command("up", |s| s.command = Command::RollBack);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn at_level_two_each_batch_waits_for_approval() {
    let mut sim = sim();
    sim.apply("up", weir_model::ChangeSpec { level: Level::L2, ..spec("b") });
    sim.run_until("up", |c| c.status.message.contains("batch 1 waits for approval"));
    assert_eq!(touched(&sim.change("up")), 0);
    sim.command("up", |s| s.approved_batch = 1);
    sim.run_until("up", |c| c.status.message.contains("batch 2 waits for approval"));
    assert_eq!(touched(&sim.change("up")), 1);
    sim.command("up", |s| s.approved_batch = 99);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn a_paused_change_begins_nothing_and_goes_on() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.progress.batch == 2);
    sim.command("up", |s| s.command = Command::Pause);
    (0..60).for_each(|_| sim.tick("up"));
    let paused = sim.change("up");
    assert_eq!((paused.status.phase, paused.status.progress.batch), (ChangePhase::Paused, 2));
    assert_eq!(paused.status.progress.in_flight, 0);
    sim.command("up", |s| s.command = Command::Run);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn harm_found_in_a_pause_is_undone() {
    let mut sim = sim();
    sim.apply("up", spec("c"));
    sim.run_until("up", |c| c.status.progress.in_flight > 0);
    sim.command("up", |s| s.command = Command::Pause);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn a_freeze_that_says_so_holds_a_roll_back_too() {
    let mut sim = sim();
    sim.apply("up", spec("c"));
    sim.run_until("up", |c| c.status.batches.first().is_some_and(|b| !b.done.is_empty()));
    let freeze = FreezeSpec { roll_backs_too: true, reason: "nobody moves".into(), ..FreezeSpec::default() };
    now(typed::create(&sim.store, &Freeze::new("all", freeze), &author())).unwrap();
    sim.run_to_phase("up", ChangePhase::RollingBack);
    (0..30).for_each(|_| sim.tick("up"));
    assert_eq!(versions(&sim).iter().filter(|v| *v == "c").count(), 1);
    now(sim.store.delete(&Key::new(Kind::Freeze, "all"), None, &author())).unwrap();
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn an_aborted_change_stays_where_it_is() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.progress.batch == 2);
    sim.command("up", |s| s.command = Command::Abort);
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Aborted);
    let before = versions(&sim);
    (0..20).for_each(|_| sim.tick("up"));
    assert_eq!(versions(&sim), before);
}

#[test]
fn a_roll_back_before_anything_began_is_at_once_over() {
    let mut sim = sim();
    sim.apply("up", weir_model::ChangeSpec { command: Command::RollBack, ..spec("b") });
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::RolledBack, 0));
}

#[test]
fn a_good_change_can_be_rolled_back_half_way() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.progress.batch == 3 && c.status.progress.in_flight > 0);
    sim.command("up", |s| s.command = Command::RollBack);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
    assert!(versions(&sim).iter().all(|v| v == "a"));
}

#[test]
fn one_that_does_not_return_holds_nobody_else_up() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    let change = sim.run_until("up", |c| c.status.progress.batch == 4 && c.status.progress.in_flight == 0);
    let stock = |b: &Batch| b.done.keys().find(|n| n.starts_with("stock")).cloned();
    let broken = change.status.batches.iter().find_map(stock).unwrap();
    sim.fleet.broken.insert(broken.clone());
    sim.command("up", |s| s.command = Command::RollBack);
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    let back = &change.status.rollback.as_ref().unwrap().batch;
    assert_eq!(change.status.blocked, Some(BlockReason::RollbackFailed));
    assert!(change.status.message.contains(&broken), "{}", change.status.message);
    let missing: Vec<&String> = back.instances.iter().filter(|n| !back.done.contains_key(*n)).collect();
    assert_eq!(missing, [&broken]);
    sim.fleet.broken.clear();
    sim.command("up", |s| s.retries += 1);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn nothing_in_scope_is_no_success() {
    let mut sim = sim();
    let scope = Scope { apps: vec!["nobody".into()], ..Scope::default() };
    sim.apply("up", weir_model::ChangeSpec { scope, ..spec("b") });
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::NothingInScope));
    let message = &change.status.message;
    assert!(message.starts_with("nothing in scope: no instance that Weir runs is in app nobody"), "{message}");
    sim.command("up", |s| s.scope.apps = vec!["stock".into()]);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded, "it goes on by itself");
}

#[test]
fn without_a_release_it_waits_and_goes_on_by_itself() {
    let mut sim = sim();
    sim.apply("up", spec("d"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::ReleaseMissing));
    assert!(change.status.message.contains("there is no Release of proxy d;"), "{}", change.status.message);
    fleet::release(&sim.store, "d");
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn a_withdrawn_release_is_called_withdrawn() {
    let mut sim = sim();
    fleet::release(&sim.store, "d");
    let mut release: Release = now(typed::get(&sim.store, "proxy-d")).unwrap().unwrap();
    release.spec.withdrawn = Some("leaks descriptors".into());
    now(typed::update(&sim.store, &release, &author())).unwrap();
    sim.apply("up", spec("d"));
    let message = sim.run_to_phase("up", ChangePhase::Blocked).status.message;
    assert!(message.contains("the Release of proxy d is withdrawn: leaks descriptors;"), "{message}");
}

#[test]
fn a_frozen_app_catches_up_when_its_window_opens() {
    let mut sim = sim();
    let freeze =
        FreezeSpec { until: Some(at(200)), apps: vec!["stock".into()], reason: "sale".into(), ..FreezeSpec::default() };
    now(typed::create(&sim.store, &Freeze::new("sale", freeze), &author())).unwrap();
    sim.apply("up", spec("b"));
    let waits = sim.run_until("up", |c| c.status.message.contains("protection window (sale), until"));
    assert_eq!(touched(&waits), 7);
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded);
    let stock =
        change.status.batches.iter().flat_map(|b| b.started.iter()).filter(|(name, _)| name.starts_with("stock"));
    assert!(stock.clone().count() == 6 && stock.clone().all(|(_, started)| *started >= at(200)));
}

#[test]
fn a_freeze_in_the_middle_of_a_batch_holds_those_not_yet_let_go() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.batches.get(2).is_some_and(|b| !b.started.is_empty()));
    let freeze = FreezeSpec { reason: "red button".into(), ..FreezeSpec::default() };
    now(typed::create(&sim.store, &Freeze::new("all", freeze), &author())).unwrap();
    let held = touched(&sim.change("up"));
    (0..100).for_each(|_| sim.tick("up"));
    assert_eq!(touched(&sim.change("up")), held);
    now(sim.store.delete(&Key::new(Kind::Freeze, "all"), None, &author())).unwrap();
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn harm_is_undone_in_spite_of_a_freeze() {
    let mut sim = sim();
    sim.apply("up", spec("c"));
    sim.run_until("up", |c| c.status.batches.first().is_some_and(|b| !b.done.is_empty()));
    let freeze = FreezeSpec { reason: "sale".into(), ..FreezeSpec::default() };
    now(typed::create(&sim.store, &Freeze::new("all", freeze), &author())).unwrap();
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn a_canary_without_traffic_does_not_pass() {
    let mut fleet = Fleet::demo();
    fleet.idle = true;
    let mut sim = Sim::new(1, fleet);
    sim.apply("up", spec("b"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!((change.status.blocked, touched(&change)), (Some(BlockReason::NoEvidence), 1));
    assert!(change.status.message.contains("too little traffic for a verdict: 0 of 40"), "{}", change.status.message);
}

#[test]
fn harm_that_shows_while_blocked_is_undone() {
    let mut sim = Sim::new(1, Fleet { idle: true, ..Fleet::demo() });
    sim.apply("up", spec("c"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::NoEvidence));
    sim.fleet.idle = false;
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn harm_that_shows_between_batches_is_undone() {
    let mut sim = sim();
    sim.apply("up", weir_model::ChangeSpec { level: Level::L2, approved_batch: 1, ..spec("b") });
    sim.run_until("up", |c| c.status.message.contains("batch 2 waits for approval"));
    sim.fleet.natures.insert("b".into(), Nature { failing: 0.5, ..Nature::default() });
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!((change.status.blocked, touched(&change)), (Some(BlockReason::BatchFailed), 1));
    sim.command("up", |s| s.level = Level::L4);
    sim.command("up", |s| s.retries += 1);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::RolledBack);
}

#[test]
fn an_instance_that_vanishes_leaves_the_change() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    let change = sim.run_until("up", |c| c.status.progress.batch == 2 && c.status.progress.in_flight > 0);
    let batch = change.status.batches[1].clone();
    let gone = batch.started.keys().find(|n| !batch.done.contains_key(*n)).unwrap().clone();
    now(sim.store.delete(&Key::new(Kind::Instance, &gone), None, &author())).unwrap();
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded);
    assert_eq!(change.status.left[&gone], "it is gone or being stopped");
    assert!(sim.events("up").iter().any(|e| e == "InstanceLeft"));
}

#[test]
fn an_instance_that_appears_is_changed_too() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.progress.batch == 2);
    fleet::create_instance(&sim.store, "stock-west-4", "stock", "west", "a");
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded);
    assert!(change.status.batches.iter().any(|b| b.done.contains_key("stock-west-4")));
}

/// `stock-west-1` has failed by itself, and stays so.
fn with_an_ill_instance() -> Sim {
    let mut sim = sim();
    let mut ill = now(typed::get::<InstanceSpec>(&sim.store, "stock-west-1")).unwrap().unwrap();
    ill.status.phase = InstancePhase::Failed;
    ill.status.message = "its disk is full".into();
    now(typed::update_status(&sim.store, &ill)).unwrap();
    sim.fleet.natures.insert("a".into(), Nature { stillborn: true, ..Nature::default() });
    sim
}

#[test]
fn instances_that_do_not_serve_hold_the_end_and_then_block() {
    let mut sim = with_an_ill_instance();
    let budget = Budget { max_unavailable_percent: 67.0, ..Budget::default() };
    sim.apply("up", weir_model::ChangeSpec { budget, ..spec("b") });
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::Unreachable));
    assert!(change.status.message.contains("stock-west-1: it failed its disk is full"), "{}", change.status.message);
    assert_eq!(touched(&change), 12);
    now(sim.store.delete(&Key::new(Kind::Instance, "stock-west-1"), None, &author())).unwrap();
    sim.command("up", |s| s.retries += 1);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn a_budget_used_up_by_an_ill_instance_holds_the_others_and_then_blocks() {
    let mut sim = with_an_ill_instance();
    sim.apply("up", spec("b"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::Unreachable));
    let why = "wait for others of their app to serve: stock-west-1";
    assert!(change.status.message.contains(why), "{}", change.status.message);
    now(sim.store.delete(&Key::new(Kind::Instance, "stock-west-1"), None, &author())).unwrap();
    sim.command("up", |s| s.retries += 1);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn an_instance_that_somebody_else_changes_is_left_alone() {
    let mut sim = sim();
    fleet::release(&sim.store, "x");
    sim.apply("up", spec("b"));
    let held = |c: &Change| {
        let part_way = |b: &&Batch| !b.started.is_empty() && b.instances.len() > b.started.len();
        c.status.batches.iter().find(part_way)?.instances.last().cloned()
    };
    let change = sim.run_until("up", |c| held(c).is_some());
    let name = held(&change).unwrap();
    let mut instance = now(typed::get::<InstanceSpec>(&sim.store, &name)).unwrap().unwrap();
    instance.spec.proxy_version = "x".into();
    let mut instance = now(typed::update(&sim.store, &instance, &author())).unwrap();
    instance.status.proxy_version = "x".into();
    now(typed::update_status(&sim.store, &instance)).unwrap();
    sim.law.histories.get_mut(&name).unwrap().push("x".into());
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded);
    assert_eq!(change.status.left[&name], "somebody else wants proxy x there");
}

#[test]
fn of_two_changes_to_the_same_instances_the_later_waits() {
    let mut sim = sim();
    fleet::release(&sim.store, "d");
    sim.apply("first", spec("b"));
    sim.run_until("first", |c| c.status.started_at.is_some());
    sim.apply("second", spec("d"));
    let world = now(super::super::reconcile(&sim.store, &sim.memory, &sim.observed, "second", at(sim.second))).unwrap();
    assert!(world.is_some());
    let second = sim.change("second");
    assert_eq!(second.status.message, "waits for change/first, which is about the same instances");
    assert_eq!(touched(&second), 0);
    sim.run_to_end("first");
    sim.law = super::law::Law::default();
    assert_eq!(sim.run_to_end("second").status.phase, ChangePhase::Succeeded);
}

/// Kills the executor at random operations, with what it measured; afterwards everything is as without kills.
fn killed(seed: u64, target: &str) -> Change {
    let mut sim = Sim::new(seed, Fleet::demo());
    sim.deaths = Some(3 + (seed % 7) as u32);
    sim.apply("up", spec(target));
    let change = sim.run_to_end("up");
    let wanted = if target == "b" { "b" } else { "a" };
    assert!(versions(&sim).iter().all(|v| v == wanted), "seed {seed}: {:#?}", change.status);
    change
}

#[test]
fn good_changes_survive_kills() {
    for seed in 0..seeds() {
        let change = killed(seed, "b");
        assert_eq!(change.status.phase, ChangePhase::Succeeded, "seed {seed}: {}", change.status.message);
        assert_eq!(touched(&change), 13, "seed {seed}");
    }
}

#[test]
fn bad_changes_are_rolled_back_in_spite_of_kills() {
    for seed in 0..seeds() {
        let change = killed(seed, "c");
        assert_eq!(change.status.phase, ChangePhase::RolledBack, "seed {seed}: {}", change.status.message);
        assert_eq!(touched(&change), 1, "seed {seed}");
    }
}

/// Seeds of each kill test: a good many at every build, and as many as `WEIR_SEEDS` says in a longer run.
fn seeds() -> u64 {
    std::env::var("WEIR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25)
}

fn explained(sim: &Sim) -> String {
    now(explain_stored(&sim.store, "up", at(sim.second))).unwrap().unwrap()
}

#[test]
fn a_roll_back_is_explained_with_its_evidence() {
    let mut sim = sim();
    sim.apply("up", spec("c"));
    sim.run_to_end("up");
    let text = explained(&sim);
    assert!(text.starts_with("change/up brings proxy c: RolledBack, 1 of 1 instances.\n"), "{text}");
    for part in ["Batch 1: Failed, 1 of 1", "verdict: Fail, errors", "evidence for harm 10^", "Roll-back: 1 of 1"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_wait_is_explained_with_what_comes_and_what_holds_it() {
    let mut sim = sim();
    let freeze = FreezeSpec { apps: vec!["stock".into()], reason: "sale".into(), ..FreezeSpec::default() };
    now(typed::create(&sim.store, &Freeze::new("sale", freeze), &author())).unwrap();
    sim.apply("up", weir_model::ChangeSpec { level: Level::L2, ..spec("b") });
    sim.run_until("up", |c| c.status.message.contains("waits for approval"));
    let text = explained(&sim);
    for part in ["Pending, 0 of 13", "weir change approve up", "To come: ", "freeze/sale holds 6 instances until"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}
