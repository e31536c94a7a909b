//! Releases of applications.

use weir_model::change::{Action, ChangePhase, ChangeSpec};
use weir_model::release::Component;
use weir_model::{InstanceSpec, WorkloadSpec};
use weir_store::typed;

use super::fleet::{self, Fleet, Nature};
use super::{Sim, now, spec};

fn release(version: &str) -> ChangeSpec {
    let action = Action::AppRelease { app: "stock".into(), version: version.into() };
    ChangeSpec { action, ..spec("b") }
}

fn sim() -> Sim {
    let sim = Sim::new(1, Fleet::demo());
    fleet::release_of(&sim.store, Component::App("stock".into()), "2");
    sim
}

/// The version of each instance's program, with its app.
fn programs(sim: &Sim) -> Vec<(String, String)> {
    let instances = now(typed::list::<InstanceSpec>(&sim.store)).unwrap().0;
    instances.into_iter().map(|i| (i.spec.app, i.status.app_version)).collect()
}

#[test]
fn a_release_of_an_app_reaches_its_instances_and_no_others() {
    let mut sim = sim();
    sim.apply("stock-2", release("2"));
    let change = sim.run_to_end("stock-2");
    assert_eq!(change.status.phase, ChangePhase::Succeeded, "{}", change.status.message);
    assert_eq!(change.status.message, "6 instances run app stock 2");
    assert!(programs(&sim).iter().all(|(app, version)| (app == "stock") == (version == "2")), "{:?}", programs(&sim));
    let workloads = now(typed::list::<WorkloadSpec>(&sim.store)).unwrap().0;
    assert!(workloads.iter().all(|w| (w.spec.app == "stock") == (w.spec.app_version == "2")));
}

#[test]
fn a_bad_release_of_an_app_is_rolled_back_from_its_first_instance() {
    let mut sim = sim();
    sim.fleet.natures.insert("stock-2".into(), Nature { failing: 0.3, ..Nature::default() });
    sim.apply("stock-2", release("2"));
    let change = sim.run_to_end("stock-2");
    assert_eq!(change.status.phase, ChangePhase::RolledBack, "{}", change.status.message);
    assert_eq!(change.status.batches.iter().map(|b| b.started.len()).sum::<usize>(), 1);
    assert!(programs(&sim).iter().all(|(_, version)| version.is_empty()), "{:?}", programs(&sim));
}

#[test]
fn without_a_release_of_the_app_it_waits() {
    let mut sim = sim();
    sim.apply("stock-3", release("3"));
    let change = sim.run_to_phase("stock-3", ChangePhase::Blocked);
    assert!(change.status.message.contains("there is no Release of app stock 3"), "{}", change.status.message);
}
