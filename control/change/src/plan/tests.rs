//! Properties over random fleets and states, and the plans of a small fleet in prose.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use weir_model::FreezeSpec;
use weir_model::change::{Budget, Rung};
use weir_model::freeze::{Effect, Schedule};

use super::*;
use crate::check::{Wave, check, check_wave};
use crate::world::{Member, State};

fn member(name: &str, app: &str, unit: &str, zone: &str) -> Member {
    Member {
        name: name.into(),
        line: "".into(),
        app: app.into(),
        unit: unit.into(),
        zone: zone.into(),
        stack: "demo".into(),
        group: "".into(),
        tier: 3,
        canary: false,
        weight: 100,
        in_scope: true,
        wanted: "a".into(),
        running: "a".into(),
        state: State::Serving,
        checked: true,
        message: "".into(),
        since: None,
        workload: None,
    }
}

fn ladder(percents: &[f64]) -> Vec<Rung> {
    percents.iter().map(|p| Rung { percent: *p, bake_seconds: 10, min_requests: 0 }).collect()
}

/// Everything a plan is made from, owned.
#[derive(Debug, Clone)]
struct Case {
    members: Vec<Member>,
    ladder: Vec<Rung>,
    budget: Budget,
    freezes: Vec<FreezeSpec>,
    past: Past,
}

impl Case {
    fn new(members: Vec<Member>) -> Case {
        let ladder = ladder(&[0.0, 5.0, 20.0, 50.0, 100.0]);
        Case { members, ladder, budget: Budget::default(), freezes: Vec::new(), past: Past::default() }
    }

    fn input(&self) -> Input<'_> {
        Input {
            target: "b",
            ladder: &self.ladder,
            budget: &self.budget,
            freezes: &self.freezes,
            members: &self.members,
            past: &self.past,
            pace_seconds: 5,
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.input(), Timestamp::UNIX_EPOCH)
    }

    fn findings(&self) -> Vec<crate::check::Finding> {
        check(&self.input(), &self.plan(), Timestamp::UNIX_EPOCH)
    }

    /// The batch has changed and passed.
    fn pass(&mut self, batch: &[Name]) {
        for name in batch {
            let member = self.members.iter_mut().find(|m| m.name == *name).unwrap();
            (member.wanted, member.running) = ("b".into(), "b".into());
            self.past.changed.insert(name.clone());
        }
    }
}

fn instances(plan: &Plan) -> Vec<Vec<Name>> {
    plan.batches.iter().map(|b| b.instances.clone()).collect()
}

/// Three apps in two units, three instances each, and an edge of one.
fn demo() -> Vec<Member> {
    let mut members = vec![member("edge-1", "edge", "east", "a")];
    for (app, unit) in ["front", "order", "stock"].into_iter().flat_map(|a| ["east", "west"].map(|u| (a, u))) {
        for (n, zone) in ["a", "b", "c"].into_iter().enumerate() {
            members.push(member(&format!("{app}-{unit}-{}", n + 1), app, unit, zone));
        }
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

#[test]
fn the_demo_grows_from_one_box() {
    let plan = Case::new(demo()).plan();
    let sizes: Vec<usize> = plan.batches.iter().map(|b| b.instances.len()).collect();
    assert_eq!(sizes[0], 1);
    assert!(sizes.is_sorted_by(|a, b| a <= b) || sizes.len() > 3, "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 19);
    assert!(plan.batches[0].why.starts_with("one box first: "), "{}", plan.batches[0].why);
    assert!(plan.batches[1].why.contains("first instance of stack=demo unit="), "{}", plan.batches[1].why);
    assert!(plan.batches.iter().any(|b| b.why.contains("edge-1 has no other of its app")));
}

#[test]
fn the_least_important_app_in_a_canary_unit_goes_first() {
    let mut members = demo();
    for m in &mut members {
        m.canary = &*m.unit == "west";
        m.tier = if &*m.app == "stock" { 4 } else { 1 };
    }
    let plan = Case::new(members).plan();
    assert_eq!(instances(&plan)[0], ["stock-west-1".into()]);
    assert_eq!(
        plan.batches[0].why,
        "one box first: stock-west-1 of app stock, tier 4 in a canary unit; first instance \
         of stack=demo unit=west tier=4"
    );
}

#[test]
fn a_frozen_app_is_deferred_and_catches_up_from_its_own_first_box() {
    let until = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(10);
    let mut case = Case::new(demo());
    let freeze =
        FreezeSpec { until: Some(until), apps: vec!["order".into()], reason: "sale".into(), ..FreezeSpec::default() };
    case.freezes = vec![freeze];
    let plan = case.plan();
    assert_eq!(plan.deferred.len(), 6);
    let of_order = |b: &Planned| b.instances.iter().filter(|n| n.starts_with("order")).count();
    let caught_up: Vec<&Planned> = plan.batches.iter().filter(|b| of_order(b) > 0).collect();
    assert!(caught_up.iter().all(|b| b.start >= until));
    assert_eq!(of_order(caught_up[0]), 1);
    assert!(plan.batches.iter().filter(|b| b.start < until).count() > 2);
    assert_eq!(case.findings(), []);
}

#[test]
fn a_window_that_never_opens_defers_without_a_batch() {
    let mut case = Case::new(demo());
    case.freezes = vec![FreezeSpec { reason: "stop".into(), ..FreezeSpec::default() }];
    let plan = case.plan();
    assert_eq!((plan.batches.len(), plan.deferred.len()), (0, 19));
    assert_eq!(plan.deferred[0].wait, Wait::Window { reason: "stop".into(), until: None });
}

#[test]
fn an_app_of_one_instance_can_change() {
    let plan = Case::new(vec![member("solo-1", "solo", "east", "a")]).plan();
    assert_eq!(instances(&plan), [["solo-1".into()]]);
    assert!(plan.batches[0].why.contains("solo-1 has no other of its app in its unit"));
}

#[test]
fn nothing_in_scope_is_an_empty_plan() {
    assert_eq!(Case::new(Vec::new()).plan(), Plan::default());
}

#[test]
fn an_instance_that_is_out_anyway_may_always_go() {
    let mut members = demo();
    members.iter_mut().filter(|m| &*m.app == "order").for_each(|m| m.state = State::Failed);
    let names: Vec<&str> = members.iter().filter(|m| &*m.app == "order").map(|m| &*m.name).collect();
    let (in_flight, budget) = (BTreeSet::new(), Budget::default());
    let request = waves::Request {
        members: &members,
        waiting: &names,
        in_flight: &in_flight,
        exposed: 0,
        budget: &budget,
        freezes: &[],
    };
    assert_eq!(waves::admit(&request, Timestamp::UNIX_EPOCH).len(), 6);
}

#[test]
fn an_app_changes_in_its_own_window_and_others_do_not_wait_for_it() {
    let mut case = Case::new(vec![
        member("order-1", "order", "east", "a"),
        member("order-2", "order", "east", "b"),
        member("stock-1", "stock", "east", "a"),
    ]);
    let schedule = Some(Schedule { cron: "0 2 * * *".into(), duration_seconds: 3600, ..Schedule::default() });
    case.freezes = vec![FreezeSpec {
        effect: Effect::Permit,
        schedule,
        apps: vec!["order".into()],
        reason: "orders change at night".into(),
        ..FreezeSpec::default()
    }];
    let plan = case.plan();
    let night = |batch: &&Planned| batch.start.as_second() % 86_400 / 3600 == 2;
    let of = |name: &str| plan.batches.iter().find(|b| b.instances.iter().any(|i| &**i == name));
    assert!(of("order-1").is_some_and(|b| night(&b)) && of("order-2").is_some_and(|b| night(&b)), "{plan:#?}");
    assert!(of("stock-1").is_some_and(|b| !night(&b)), "{plan:#?}");
    assert_eq!(plan.deferred.len(), 2);
}

prop_compose! {
    fn some_member()(
        app in 0..5_u8, unit in 0..3_u8, zone in 0..3_u8, stack in 0..2_u8, weight in prop_oneof![Just(100_u64), 1..500_u64],
        state in prop_oneof![9 => Just(State::Serving), 1 => Just(State::Failed), 1 => Just(State::Silent), 1 => Just(State::Moving)],
        in_scope in prop::bool::weighted(0.9), at_target in prop::bool::weighted(0.1),
    ) -> Member {
        let version = if at_target { "b" } else { "a" };
        Member {
            stack: format!("stack-{stack}").into(), tier: 1 + app % 4, canary: unit == 0, weight, in_scope, state,
            wanted: version.into(), running: version.into(),
            ..member("", &format!("app-{app}"), &format!("unit-{unit}"), &format!("zone-{zone}"))
        }
    }
}

prop_compose! {
    fn some_freeze()(app in 0..5_u8, unit in prop::option::of(0..3_u8), from in prop::option::of(0..200_i64), length in prop::option::of(1..400_i64), permit in prop::bool::weighted(0.3))
        -> FreezeSpec
    {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        FreezeSpec {
            effect: if permit { Effect::Permit } else { Effect::Suppress },
            from: from.map(at),
            until: length.map(|l| at(from.unwrap_or(0) + l)),
            apps: vec![format!("app-{app}")],
            units: unit.map(|u| format!("unit-{u}")).into_iter().collect(),
            roll_backs_too: false,
            reason: "because".into(),
            ..FreezeSpec::default()
        }
    }
}

prop_compose! {
    fn some_case()(
        members in prop::collection::vec(some_member(), 0..60),
        percents in prop::collection::btree_set(1..99_u8, 0..5), one_box in any::<bool>(),
        freezes in prop::collection::vec(some_freeze(), 0..4),
        max_unavailable_percent in 0.0..60.0_f64, max_in_flight_percent in 0.0..100.0_f64, max_exposed_percent_per_minute in 0.0..100.0_f64,
    ) -> Case {
        let named = |(n, m): (usize, Member)| Member { name: format!("i-{n:03}").into(), ..m };
        let mut steps: Vec<f64> = if one_box { vec![0.0] } else { Vec::new() };
        steps.extend(percents.into_iter().map(f64::from).chain([100.0]));
        Case {
            members: members.into_iter().enumerate().map(named).collect(),
            ladder: ladder(&steps),
            budget: Budget { max_unavailable_percent, max_in_flight_percent, max_exposed_percent_per_minute },
            freezes,
            past: Past::default(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_an_invariant(case in some_case()) {
        prop_assert_eq!(case.findings(), vec![]);
        prop_assert_eq!(case.plan(), case.plan());
    }

    /// After each passed batch, planning again gives the rest of the plan: nothing repeated, undone or skipped.
    #[test]
    fn planning_again_goes_on_where_it_was(mut case in some_case()) {
        case.freezes.clear();
        let mut expected = instances(&case.plan());
        while !expected.is_empty() {
            case.pass(&expected.remove(0));
            prop_assert_eq!(&instances(&case.plan()), &expected);
            prop_assert_eq!(case.findings(), vec![]);
        }
    }

    /// The order in which the fleet is read does not matter to who is in a batch.
    #[test]
    fn the_order_of_reading_does_not_matter(case in some_case(), seed in any::<u64>()) {
        let mut shuffled = case.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled.members);
        prop_assert_eq!(instances(&case.plan()), instances(&shuffled.plan()));
    }

    /// Waves keep within the budgets at every step, and every batch gets through.
    #[test]
    fn waves_keep_the_budgets_and_end(mut case in some_case(), seed in any::<u64>()) {
        case.freezes.clear();
        // Instances that are out by themselves can hold a batch for good, rightly so.
        case.members.iter_mut().for_each(|m| m.state = State::Serving);
        let mut random = fastrand::Rng::with_seed(seed);
        for batch in instances(&case.plan()) {
            run_waves(&mut case, &batch, &mut random)?;
            case.pass(&batch);
        }
    }
}

/// One instance comes back every 20 seconds; what was let go within the last minute is exposed.
fn run_waves(case: &mut Case, batch: &[Name], random: &mut fastrand::Rng) -> Result<(), TestCaseError> {
    let weights: BTreeMap<Name, u64> = case.members.iter().map(|m| (m.name.clone(), m.weight)).collect();
    let mut waiting: Vec<&str> = batch.iter().map(|n| &**n).collect();
    let mut in_flight: BTreeSet<&str> = BTreeSet::new();
    let mut let_go: Vec<u64> = Vec::new();
    while !waiting.is_empty() || !in_flight.is_empty() {
        let exposed = let_go.iter().rev().take(2).sum();
        let request = waves::Request {
            members: &case.members,
            waiting: &waiting,
            in_flight: &in_flight,
            exposed,
            budget: &case.budget,
            freezes: &[],
        };
        let admitted = waves::admit(&request, Timestamp::UNIX_EPOCH);
        let newly: BTreeSet<&str> = waiting.iter().copied().filter(|n| admitted.iter().any(|a| **a == **n)).collect();
        prop_assert!(!newly.is_empty() || !in_flight.is_empty() || exposed > 0, "stuck with {waiting:?}");
        let wave = Wave { members: &case.members, in_flight: &in_flight, admitted: &newly, exposed };
        prop_assert_eq!(check_wave(&wave, &case.budget), vec![]);
        let_go.push(newly.iter().map(|n| weights[*n]).sum());
        waiting.retain(|n| !newly.contains(n));
        in_flight.extend(newly);
        if let Some(back) = random.choice(&in_flight.iter().copied().collect::<Vec<_>>()) {
            in_flight.remove(*back);
        }
    }
    Ok(())
}

/// A fleet of the size the engine is meant for plans in one pass per batch, and each app climbs by itself.
#[test]
fn a_large_fleet_is_planned() {
    let name = |n: usize| (format!("app-{:04}", n % 300), format!("unit-{}", n % 7), format!("zone-{}", n % 3));
    let members: Vec<Member> = (0..20_000)
        .map(|n| {
            let (app, unit, zone) = name(n);
            Member { name: format!("i-{n:06}").into(), tier: 1 + (n % 300 % 4) as u8, ..member("", &app, &unit, &zone) }
        })
        .collect();
    let case = Case::new(members);
    let plan = case.plan();
    assert_eq!(plan.batches.iter().map(|b| b.instances.len()).sum::<usize>(), 20_000);
    assert!(plan.batches.len() <= 12, "{} batches", plan.batches.len());
    let first_of: BTreeMap<&str, usize> = plan.batches[1].instances.iter().map(|n| (&**n, 1)).collect();
    assert!(first_of.len() <= 1_000);
    assert_eq!(case.findings(), []);
}

/// A plan for instances that have gone out of scope is a finding, not a crash.
#[test]
fn the_checker_finds_what_is_out_of_scope() {
    let mut case = Case::new(vec![member("x", "order", "east", "1")]);
    let plan = case.plan();
    assert_eq!(plan.batches.len(), 1);
    case.members[0].in_scope = false;
    let findings = check(&case.input(), &plan, Timestamp::UNIX_EPOCH);
    assert!(findings.iter().any(|f| f.detail == "x must not be changed"), "{findings:?}");
}
