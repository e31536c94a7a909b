//! Several changes at once, about different instances of the same apps: none knows of the others, and together they keep
//! the budgets that each must keep.

use weir_model::change::ChangePhase;
use weir_model::{Instance, InstanceSpec};
use weir_store::typed;

use super::fleet::Fleet;
use super::{END_SECONDS, Sim, at, author, law, now, spec};

/// The fleet of two apps in groups a and b, with a change for each group.
fn two_changes(seed: u64) -> Sim {
    let sim = Sim::new(seed, Fleet::demo());
    for mut instance in instances(&sim) {
        instance.spec.group = if instance.name().ends_with('1') { "a" } else { "b" }.to_owned();
        now(typed::update(&sim.store, &instance, &author())).unwrap();
    }
    for (name, group) in [("one", "a"), ("two", "b")] {
        let mut change = spec("b");
        change.scope.groups = vec![group.to_owned()];
        sim.apply(name, change);
    }
    sim
}

fn instances(sim: &Sim) -> Vec<Instance> {
    now(typed::list::<InstanceSpec>(&sim.store)).unwrap().0
}

/// A second: the fleet moves, then the changes are looked at in this order, and the budgets hold.
fn second(sim: &mut Sim, order: [&str; 2]) {
    sim.second += 1;
    sim.fleet.tick(&sim.store, &sim.observed, at(sim.second), &mut sim.random);
    for name in order {
        sim.reconcile(name);
        let (change, instances) = (sim.change(name), instances(sim));
        law::availability(&change, &instances);
        law::zones(&change, &instances);
    }
}

fn run(seed: u64, deaths: Option<u32>) {
    let mut sim = two_changes(seed);
    sim.deaths = deaths;
    while sim.second < END_SECONDS {
        let order = if sim.random.bool() { ["one", "two"] } else { ["two", "one"] };
        second(&mut sim, order);
        let phases = order.map(|name| sim.change(name).status.phase);
        if phases == [ChangePhase::Succeeded; 2] {
            return;
        }
    }
    panic!("seed {seed}: {:#?} {:#?}", sim.change("one").status, sim.change("two").status);
}

#[test]
fn two_changes_to_the_same_apps_share_the_budget() {
    (0..8).for_each(|seed| run(seed, None));
}

#[test]
fn also_if_the_process_dies_between_recording_and_writing() {
    (0..8).for_each(|seed| run(seed, Some(4)));
}

#[test]
fn who_is_being_stopped_leaves_less_to_take() {
    let mut sim = Sim::new(1, Fleet::demo());
    let key = "stock-east-1";
    let mut leaving = now(typed::get::<InstanceSpec>(&sim.store, key)).unwrap().unwrap();
    leaving.spec.retire = true;
    now(typed::update(&sim.store, &leaving, &author())).unwrap();
    let change = spec("b");
    let percent = change.budget.max_unavailable_percent;
    sim.apply("up", change);
    while sim.second < 40 {
        second(&mut sim, ["up", "up"]);
        let instances = instances(&sim);
        let place: Vec<_> = instances.iter().filter(|i| i.spec.app == "stock" && i.spec.unit == "east").collect();
        let out = place.iter().filter(|i| i.spec.retire || i.spec.proxy_version != i.status.proxy_version).count();
        assert!(out as f64 <= (place.len() as f64 * percent / 100.0).max(1.0), "{out} of {} are out", place.len());
    }
    now(weir_store::Store::delete(&sim.store, &leaving.key(), None, &author())).unwrap();
    assert_eq!(sim.run_to_end("up").status.phase, ChangePhase::Succeeded);
}
