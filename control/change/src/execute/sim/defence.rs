//! Checks in the course of a change, and the outcomes that `docs/guides/change-outcomes.md` promises.

use weir_model::change::{BatchPhase, BlockReason, ChangePhase, Scope};
use weir_model::check::{Ask, At, Check, CheckSpec, OnError, Otherwise, Severity, Skip};
use weir_model::freeze::Effect;
use weir_model::release::{ReleaseSpec, TestResults};
use weir_model::slo::{Alert, Indicator, SloSpec};
use weir_model::{Change, ChangeSpec, Freeze, FreezeSpec, Key, Kind, Release, Slo};
use weir_store::{Store, typed};

use super::fleet::{Fleet, Nature};
use super::{Sim, at, author, now, spec};
use crate::explain::explain_stored;
use crate::report::report;

fn sim() -> Sim {
    Sim::new(1, Fleet::demo())
}

fn touched(change: &Change) -> usize {
    change.status.batches.iter().map(|b| b.started.len()).sum()
}

fn apply_check(sim: &Sim, name: &str, stages: &[At], cel: &str) {
    let spec = CheckSpec {
        meaning: format!("{name} is well"),
        at: stages.to_vec(),
        apps: Vec::new(),
        severity: Severity::Required,
        ask: Ask::Cel(cel.to_owned()),
        otherwise: Otherwise::Fail,
        on_error: OnError::Closed,
        interval_seconds: 10,
        timeout_seconds: 5,
    };
    now(typed::create(&sim.store, &Check::new(name, spec), &author())).unwrap();
}

fn skip(sim: &Sim, code: &str) {
    let skip = Skip { reason: "we know better".into(), actor: "user/alice".into() };
    sim.command("up", |s| drop(s.skip_checks.insert(code.to_owned(), skip)));
}

#[test]
fn a_no_before_a_batch_blocks_until_it_is_a_yes() {
    let mut sim = sim();
    apply_check(&sim, "freight", &[At::Batch], "batch.number < 2 || has(change.labels.freight)");
    sim.apply("up", spec("b"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!((change.status.blocked, touched(&change)), (Some(BlockReason::CheckFailed), 1));
    assert!(change.status.message.starts_with("U-FREIGHT: freight is well (not so:"), "{}", change.status.message);
    assert!(change.status.message.ends_with("`weir change skip-check up U-FREIGHT`"), "{}", change.status.message);
    let mut stored: Change = now(typed::get(&sim.store, "up")).unwrap().unwrap();
    stored.metadata.labels.insert("freight".into(), "loaded".into());
    now(typed::update(&sim.store, &stored, &author())).unwrap();
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
    assert!(sim.events("up").iter().any(|e| e == "Unblocked"));
}

#[test]
fn who_skips_a_check_is_in_the_record_and_it_is_told_once() {
    let mut sim = sim();
    apply_check(&sim, "never", &[At::Batch], "false");
    sim.apply("up", spec("b"));
    sim.run_to_phase("up", ChangePhase::Blocked);
    skip(&sim, "U-NEVER");
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
    assert_eq!(sim.events("up").iter().filter(|e| *e == "CheckSkipped").count(), 1);
    let text = now(report(&sim.store, &change)).unwrap().markdown();
    assert!(text.contains("U-NEVER is skipped by user/alice: we know better"), "{text}");
    assert!(text.contains("U-NEVER Fail (skipped): never is well"), "{text}");
}

#[test]
fn a_no_after_a_batch_rolls_back() {
    let mut sim = sim();
    apply_check(&sim, "tills", &[At::After], "batch.number < 2 && verdict.outcome == 'Pass'");
    sim.apply("up", spec("b"));
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::RolledBack, "{}", change.status.message);
    assert!(change.status.message.contains("U-TILLS: tills is well"), "{}", change.status.message);
}

#[test]
fn instances_are_asked_for_one_by_one() {
    let mut sim = sim();
    apply_check(&sim, "spare", &[At::Instance], "instance.name != 'stock-west-2'");
    sim.apply("up", spec("b"));
    let held = sim.run_until("up", |c| c.status.message.contains("stock-west-2 waits for U-SPARE: spare is well"));
    assert!(held.status.batches.iter().all(|b| !b.started.contains_key("stock-west-2")));
    now(sim.store.delete(&Key::new(Kind::Check, "spare"), None, &author())).unwrap();
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::Succeeded, 13));
}

#[test]
fn an_expression_that_can_not_be_read_fails_closed() {
    let mut sim = sim();
    apply_check(&sim, "typo", &[At::Change], "chnge.name == 'up'");
    sim.apply("up", spec("b"));
    let change = sim.run_until("up", |c| c.status.message.contains("fails closed"));
    assert_eq!(touched(&change), 0);
    now(sim.store.delete(&Key::new(Kind::Check, "typo"), None, &author())).unwrap();
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn a_release_whose_tests_failed_is_not_brought_anywhere() {
    let mut sim = sim();
    let tests = Some(TestResults { passed: 9, failed: 1 });
    let of = weir_model::release::Component::Proxy;
    let release = ReleaseSpec { tests, ..ReleaseSpec::new(of, "d", "/usr/bin/weir-proxy") };
    now(typed::create(&sim.store, &Release::new("proxy-d", release), &author())).unwrap();
    sim.apply("up", spec("d"));
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert!(change.status.message.starts_with("V-TESTED: 1 tests of the build of proxy d failed"));
    skip(&sim, "V-TESTED");
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

/// The objective of an app, as measured.
fn measured(sim: &Sim, budget_left: f64, alert: Alert) {
    let spec = SloSpec {
        app: "stock".into(),
        objective_percent: 99.0,
        window_days: 30,
        indicator: Indicator::Errors,
        min_requests: 1,
    };
    let known: Option<Slo> = now(typed::get(&sim.store, "stock")).unwrap();
    let mut slo = known.unwrap_or_else(|| now(typed::create(&sim.store, &Slo::new("stock", spec), &author())).unwrap());
    slo.status.budget_left = Some(budget_left);
    (slo.status.alert, slo.status.alert_since) = (alert, Some(at(sim.second)));
    now(typed::update_status(&sim.store, &slo)).unwrap();
}

#[test]
fn an_app_without_error_budget_waits_and_catches_up() {
    let mut sim = sim();
    measured(&sim, -0.5, Alert::None);
    sim.apply("up", spec("b"));
    let waits = sim.run_until("up", |c| c.status.message.contains("(S-BUDGET: slo/stock has spent its error budget"));
    assert_eq!(touched(&waits), 7, "the others have changed");
    assert!(waits.status.checks.iter().any(|a| a.code == "S-BUDGET" && a.holds()));
    measured(&sim, 0.2, Alert::None);
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::Succeeded, 13));
}

#[test]
fn a_batch_whose_app_begins_to_burn_is_held_until_it_ends() {
    let mut sim = sim();
    let scope = Scope { apps: vec!["stock".into()], ..Scope::default() };
    sim.apply("up", ChangeSpec { scope, ..spec("b") });
    sim.run_until("up", |c| c.status.batches.first().is_some_and(|b| b.phase == BatchPhase::Baking));
    measured(&sim, 0.5, Alert::Page);
    let held = sim.run_until("up", |c| c.status.message.contains("S-BURN: slo/stock has burned at paging speed"));
    assert_eq!(touched(&held), 1);
    measured(&sim, 0.5, Alert::None);
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn a_window_that_never_opens_changes_nothing_and_says_so() {
    let mut sim = sim();
    let window = FreezeSpec {
        effect: Effect::Permit,
        until: Some(at(0)),
        reason: "nights of last year".into(),
        ..FreezeSpec::default()
    };
    now(typed::create(&sim.store, &Freeze::new("nights", window), &author())).unwrap();
    sim.apply("up", spec("b"));
    (0..600).for_each(|_| sim.tick("up"));
    let change = sim.change("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::Pending, 0));
    let window = change.status.checks.iter().find(|a| a.code == "W-WINDOW").expect("asked");
    assert_eq!(
        window.message,
        "13 instances wait for a protection window (nights of last year); it is not known to open"
    );
    let text = now(explain_stored(&sim.store, "up", at(sim.second))).unwrap().unwrap();
    assert!(text.contains("freeze/nights holds 13 instances"), "{text}");
    skip(&sim, "W-WINDOW");
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn what_is_there_already_is_nothing_to_do() {
    let mut sim = sim();
    sim.apply("up", spec("a"));
    let change = sim.run_to_end("up");
    assert_eq!(change.status.phase, ChangePhase::Succeeded);
    assert_eq!(change.status.message, "nothing to do: all 13 instances in scope want proxy a already");
}

#[test]
fn an_app_with_one_instance_changes_when_it_is_its_turn() {
    let mut sim = Sim::new(1, Fleet { apps: vec![("edge".into(), 1)], units: vec!["east".into()], ..Fleet::demo() });
    for _ in 0..20 {
        sim.second += 1;
        sim.fleet.tick(&sim.store, &sim.observed, at(sim.second), &mut sim.random);
    }
    sim.apply("up", spec("b"));
    let change = sim.run_to_end("up");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::Succeeded, 1), "{}", change.status.message);
}

#[test]
fn an_instance_that_flaps_holds_its_batch() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.batches.first().is_some_and(|b| !b.done.is_empty()));
    let nature = |dies_after| Nature { dies_after, ..Nature::default() };
    for _ in 0..2 {
        sim.fleet.natures.insert("b".into(), nature(Some(0)));
        (0..12).for_each(|_| sim.tick("up"));
        assert_eq!(
            sim.change("up").status.batches[0].phase,
            BatchPhase::Baking,
            "it is out, and the batch does not pass"
        );
        sim.fleet.natures.insert("b".into(), nature(None));
        (0..3).for_each(|_| sim.tick("up"));
    }
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}

#[test]
fn a_release_withdrawn_under_way_stops_the_next_batch() {
    let mut sim = sim();
    sim.apply("up", spec("b"));
    sim.run_until("up", |c| c.status.batches.first().is_some_and(|b| b.phase == BatchPhase::Baking));
    let mut release: Release = now(typed::get(&sim.store, "proxy-b")).unwrap().unwrap();
    release.spec.withdrawn = Some("it leaks".into());
    now(typed::update(&sim.store, &release, &author())).unwrap();
    let change = sim.run_to_phase("up", ChangePhase::Blocked);
    assert_eq!((change.status.blocked, touched(&change)), (Some(BlockReason::ReleaseMissing), 1));
}
