//! Configuration that reaches proxies one by one before it is everybody's.

use serde_json::json;
use weir_model::change::publication::{ConfigName, ConfigResource};
use weir_model::change::{Action, BlockReason, ChangePhase, ChangeSpec, Command};
use weir_model::encryption::{EncryptionMode, EncryptionSpec};
use weir_model::{Change, InstanceSpec, Key, Kind, Object, Route, RouteSpec};
use weir_store::{Store, typed};

use super::fleet::{Fleet, Nature};
use super::{Sim, author, now, spec};

/// `front` and `edge` call `stock`.
fn sim(seed: u64) -> Sim {
    let mut fleet = Fleet::demo();
    fleet.natures.insert("bad".into(), Nature { failing: 0.3, ..Nature::default() });
    fleet.natures.insert("refused".into(), Nature { stillborn: true, ..Nature::default() });
    let sim = Sim::new(seed, fleet);
    for mut instance in instances(&sim).into_iter().filter(|i| i.spec.app != "stock") {
        instance.spec.upstreams = serde_json::from_value(json!([{"app": "stock", "listen": "127.0.0.1:1"}])).unwrap();
        now(typed::update(&sim.store, &instance, &author())).unwrap();
    }
    put(&sim, "stock", 100);
    put(&sim, "old", 100);
    sim
}

fn route(timeout_ms: u64) -> serde_json::Value {
    json!({"app": "stock", "rules": [{"backends": [{"app": "stock"}], "timeoutMs": timeout_ms}]})
}

fn put(sim: &Sim, name: &str, timeout_ms: u64) {
    let spec: RouteSpec = serde_json::from_value(route(timeout_ms)).unwrap();
    match now(typed::get::<RouteSpec>(&sim.store, name)).unwrap() {
        Some(stored) => drop(now(typed::update(&sim.store, &Route { spec, ..stored }, &author())).unwrap()),
        None => drop(now(typed::create(&sim.store, &Route::new(name, spec), &author())).unwrap()),
    }
}

/// `stock` gets another timeout, `old` goes, `new` comes.
fn publish(revision: &str) -> ChangeSpec {
    let resource =
        |name: &str, timeout_ms| ConfigResource { kind: Kind::Route, name: name.into(), spec: route(timeout_ms) };
    let action = Action::ConfigPublish {
        revision: revision.into(),
        resources: vec![resource("stock", 200), resource("new", 300)],
        delete: vec![ConfigName { kind: Kind::Route, name: "old".into() }],
    };
    ChangeSpec { action, ..spec("b") }
}

fn instances(sim: &Sim) -> Vec<weir_model::Instance> {
    now(typed::list::<InstanceSpec>(&sim.store)).unwrap().0
}

/// Routes in the store with their timeouts.
fn stored(sim: &Sim) -> Vec<(String, u64)> {
    let routes = now(typed::list::<RouteSpec>(&sim.store)).unwrap().0;
    routes.into_iter().map(|r| (r.metadata.name, r.spec.rules[0].timeout_ms.unwrap_or(0))).collect()
}

fn before() -> Vec<(String, u64)> {
    vec![("old".into(), 100), ("stock".into(), 100)]
}

fn after() -> Vec<(String, u64)> {
    vec![("new".into(), 300), ("stock".into(), 200)]
}

/// Once it is told that a change has ended, no proxy has configuration of its own.
fn settle(sim: &mut Sim, name: &str) {
    let free = |sim: &Sim| instances(sim).iter().all(|i| i.spec.config_revision.is_empty());
    for _ in 0..20 {
        sim.tick(name);
        if free(sim) {
            return;
        }
    }
    panic!("proxies still have configuration of their own: {:#?}", instances(sim));
}

fn touched(change: &Change) -> usize {
    change.status.batches.iter().map(|b| b.started.len()).sum()
}

#[test]
fn good_configuration_reaches_its_callers_one_by_one_and_then_the_store() {
    let mut sim = sim(1);
    sim.apply("r1", publish("r1"));
    let halfway = sim.run_until("r1", |c| c.status.batches.len() > 1 && c.status.progress.done >= 3);
    assert_eq!(stored(&sim), before(), "not before all have it");
    assert_eq!(halfway.status.progress.total, 7, "those that call stock: front and edge");
    let change = sim.run_to_end("r1");
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
    assert_eq!(change.status.message, "configuration r1: 3 resources are stored; 7 instances have taken it");
    assert_eq!((stored(&sim), touched(&change)), (after(), 7));
    assert!(instances(&sim).iter().all(|i| i.spec.config_revision.is_empty()));
    assert_eq!((change.status.progress.done, change.status.progress.total), (7, 7));
}

#[test]
fn bad_configuration_is_taken_back_from_its_first_proxy() {
    let mut sim = sim(1);
    sim.apply("bad", publish("bad"));
    let change = sim.run_to_end("bad");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::RolledBack, 1), "{}", change.status.message);
    assert_eq!(stored(&sim), before());
    assert!(instances(&sim).iter().all(|i| i.spec.config_revision.is_empty()));
}

#[test]
fn what_a_proxy_refuses_is_taken_back_at_once() {
    let mut sim = sim(1);
    sim.apply("refused", publish("refused"));
    let change = sim.run_to_end("refused");
    assert_eq!((change.status.phase, touched(&change)), (ChangePhase::RolledBack, 1), "{}", change.status.message);
    assert!(change.status.message.contains("RDS: no such thing"), "{}", change.status.message);
    assert_eq!(stored(&sim), before());
}

#[test]
fn what_somebody_else_writes_meanwhile_is_not_overwritten_unasked() {
    let mut sim = sim(1);
    sim.apply("r1", publish("r1"));
    sim.run_until("r1", |c| c.status.progress.done >= 3);
    put(&sim, "stock", 150);
    let change = sim.run_to_phase("r1", ChangePhase::Blocked);
    assert_eq!(change.status.blocked, Some(BlockReason::ConfigEdited));
    assert!(change.status.message.starts_with("route/stock was edited by somebody else"), "{}", change.status.message);
    sim.command("r1", |spec| spec.command = Command::RollBack);
    assert_eq!(sim.run_to_end("r1").status.phase, ChangePhase::RolledBack);
    assert_eq!(stored(&sim), [("old".into(), 100), ("stock".into(), 150)]);
}

#[test]
fn a_person_may_have_it_overwritten() {
    let mut sim = sim(1);
    sim.apply("r1", publish("r1"));
    sim.run_until("r1", |c| c.status.progress.done >= 3);
    now(sim.store.delete(&Key::new(Kind::Route, "stock"), None, &author())).unwrap();
    sim.run_to_phase("r1", ChangePhase::Blocked);
    sim.command("r1", |spec| spec.retries = 1);
    let change = sim.run_to_end("r1");
    assert_eq!((change.status.phase, stored(&sim)), (ChangePhase::Succeeded, after()), "{}", change.status.message);
}

#[test]
fn an_aborted_one_leaves_no_proxy_with_configuration_of_its_own() {
    let mut sim = sim(1);
    sim.apply("r1", publish("r1"));
    sim.run_until("r1", |c| c.status.progress.done >= 3);
    sim.command("r1", |spec| spec.command = Command::Abort);
    assert_eq!(sim.run_to_end("r1").status.phase, ChangePhase::Aborted);
    settle(&mut sim, "r1");
    assert_eq!(stored(&sim), before());
}

#[test]
fn two_about_the_same_resource_go_one_after_the_other() {
    let mut sim = sim(1);
    let of_edge = |mut spec: ChangeSpec| {
        spec.ladder.drain(1..3);
        spec
    };
    sim.apply("first", of_edge(publish("r1")));
    sim.tick("first");
    sim.apply("second", of_edge(publish("r2")));
    sim.tick("second");
    let change = sim.change("second");
    assert!(change.status.message.starts_with("waits for change/first"), "{}", change.status.message);
}

#[test]
fn configuration_that_concerns_nobody_is_stored_at_once() {
    let mut sim = sim(1);
    let lone = json!({"app": "lone", "rules": [{"backends": [{"app": "lone"}]}]});
    let resources = vec![ConfigResource { kind: Kind::Route, name: "lone".into(), spec: lone }];
    let action = Action::ConfigPublish { revision: "r1".into(), resources, delete: Vec::new() };
    sim.apply("r1", ChangeSpec { action, ..spec("b") });
    let change = sim.run_to_end("r1");
    assert_eq!(change.status.message, "configuration r1: 1 resources are stored; no proxy is concerned");
    assert_eq!((stored(&sim).len(), touched(&change)), (3, 0));
}

/// The Encryption is written when every caller has taken it, and the change ends when it is effective.
#[test]
fn encryption_is_switched_caller_by_caller() {
    let mut sim = sim(1);
    let action = Action::EncryptionSwitch { apps: vec!["stock".into()], mode: EncryptionMode::Permissive };
    sim.apply("tls", ChangeSpec { action, ..spec("b") });
    let written = |sim: &Sim| now(typed::get::<EncryptionSpec>(&sim.store, "stock")).unwrap();
    sim.run_until("tls", |c| c.status.progress.done >= 3);
    assert!(written(&sim).is_none());
    let waits = sim.run_until("tls", |c| c.status.message.starts_with("encryption/stock is on its way"));
    assert_eq!((touched(&waits), waits.status.phase), (7, ChangePhase::Running));
    let mut encryption = written(&sim).expect("all have it");
    assert_eq!(encryption.spec.mode, EncryptionMode::Permissive);
    encryption.status.effective_mode = EncryptionMode::Permissive;
    now(typed::update_status(&sim.store, &encryption)).unwrap();
    let change = sim.run_to_end("tls");
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
    assert!(instances(&sim).iter().all(|i| i.spec.config_revision.is_empty()));
}

/// Killed at any store operation, it neither forgets a resource nor a proxy, nor writes over what somebody else wrote.
#[test]
fn kills_at_any_operation_leave_all_or_nothing() {
    for seed in 0..12 {
        let mut sim = sim(seed);
        sim.deaths = Some(6);
        let revision = if seed % 2 == 0 { "r1" } else { "bad" };
        sim.apply("it", publish(revision));
        let change = sim.run_to_end("it");
        sim.deaths = None;
        settle(&mut sim, "it");
        let phase = change.status.phase;
        let expected = if phase == ChangePhase::Succeeded { after() } else { before() };
        assert_eq!(stored(&sim), expected, "seed {seed}: {}", change.status.message);
        assert!(revision == "bad" || phase == ChangePhase::Succeeded, "seed {seed}: {}", change.status.message);
        assert!(revision != "bad" || phase == ChangePhase::RolledBack, "seed {seed}: {}", change.status.message);
        assert!(
            instances(&sim).iter().all(|i: &weir_model::Instance| i.spec.config_revision.is_empty()),
            "seed {seed}"
        );
    }
}

/// Weir's own check of a resource is the store's and the proxies' too.
#[test]
fn what_no_proxy_would_take_is_refused_before_it_begins() {
    let mut change = Change::new("r1", publish("r1"));
    let Action::ConfigPublish { resources, .. } = &mut change.spec.action else { unreachable!("it is one") };
    resources[0].spec = json!({"app": "stock", "rules": [{"backends": []}]});
    resources.push(ConfigResource { kind: Kind::Freeze, name: "night".into(), spec: json!({}) });
    change.spec.scope.apps.push("front".into());
    let refused = Object::from(change).validate().unwrap_err();
    let paths: Vec<&str> = refused.0.iter().map(|e| e.path.as_str()).collect();
    let of = |rest: &str| format!("spec.action.configPublish.resources[{rest}");
    assert_eq!(paths, [of("0].spec.rules[0].backends"), of("2].kind"), "spec.scope".to_owned()]);
}
