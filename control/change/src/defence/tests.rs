//! What checks say, and what is kept of it.

use weir_model::change::{ChangeStatus, Level};
use weir_model::check::Skip;
use weir_model::slo::Alert;

use super::*;
use crate::world::SloFact;

fn now() -> Timestamp {
    Timestamp::from_second(1_000).expect("a moment in 1970")
}

fn change(edit: impl FnOnce(&mut ChangeSpec)) -> Change {
    let mut change = Change::new("up", ChangeSpec::proxy_upgrade("3.0"));
    edit(&mut change.spec);
    change
}

fn member(name: &str, running: &str) -> crate::world::Member {
    let instance: weir_model::Instance = weir_model::Instance::new(
        name,
        serde_json::from_value(serde_json::json!({
            "app": "stock", "address": "127.0.0.1", "port": 1, "proxyVersion": running,
        }))
        .expect("an instance"),
    );
    let mut names = crate::world::Names::default();
    let mut member = crate::fleet::member(&instance, &mut names);
    (member.in_scope, member.running) = (true, running.into());
    member
}

fn asked(change: &Change, world: &World) -> Vec<CheckAnswer> {
    let plan = Plan::default();
    let stage = Stage::Planned { plan: &plan, findings: &[], next: None, number: 1 };
    ask(&Facts { change, world, telemetry: &Telemetry::default(), now: now(), stage })
}

fn said(answers: &[CheckAnswer], code: &str) -> Said {
    answers.iter().find(|a| a.code == code).unwrap_or_else(|| panic!("{code} was not asked")).said
}

fn world(members: Vec<crate::world::Member>) -> World {
    World { members, released: true, ..World::default() }
}

#[test]
fn every_check_of_the_catalogue_has_a_function_or_is_asked_where_instances_go() {
    for check in CATALOGUE {
        let elsewhere = check.at == [At::Instance];
        assert_eq!(function(check.code).is_none(), elsewhere, "{}", check.code);
    }
}

#[test]
fn versions_more_than_one_apart_are_refused_unless_somebody_says_so() {
    let world = world(vec![member("stock-1", "1.4.2"), member("stock-2", "2.0.0")]);
    let refused = asked(&change(|_| ()), &world);
    let held = standing_in_the_way(&refused).expect("it is held");
    assert_eq!((held.code.as_str(), held.said), ("V-COMPATIBLE", Said::Fail));
    assert!(held.message.starts_with("1.4.2 is more than one major version from 3.0"), "{}", held.message);
    let skip = Skip { reason: "tried in the lab".into(), actor: "user/a".into() };
    let skipped = asked(&change(|s| drop(s.skip_checks.insert("V-COMPATIBLE".into(), skip))), &world);
    assert!(standing_in_the_way(&skipped).is_none());
    assert_eq!(said(&skipped, "V-COMPATIBLE"), Said::Fail, "it is still told");
    let words = asked(&change(|s| s.action = weir_model::change::Action::ProxyUpgrade { version: "b".into() }), &world);
    assert_eq!(said(&words, "V-COMPATIBLE"), Said::Pass, "names that are no numbers say nothing");
}

#[test]
fn advice_holds_nothing_unless_it_is_required() {
    let world = World { ownerless: vec!["stock".into()], ..world(vec![member("stock-1", "2.0")]) };
    let advised = asked(&change(|_| ()), &world);
    assert_eq!(said(&advised, "F-OWNER"), Said::Fail);
    assert!(standing_in_the_way(&advised).is_none());
    let required = asked(&change(|s| s.require_checks.push("F-OWNER".into())), &world);
    assert_eq!(standing_in_the_way(&required).map(|a| a.code.as_str()), Some("F-OWNER"));
}

#[test]
fn tests_that_failed_and_missing_releases_hold() {
    let members = || vec![member("stock-1", "2.0")];
    let failed = asked(&change(|_| ()), &World { tests_failed: 2, ..world(members()) });
    assert_eq!(standing_in_the_way(&failed).map(|a| a.code.as_str()), Some("V-TESTED"));
    let missing = asked(&change(|_| ()), &World { released: false, ..world(members()) });
    assert_eq!(standing_in_the_way(&missing).map(|a| a.code.as_str()), Some("V-RELEASE"));
}

#[test]
fn an_app_without_error_budget_is_held_as_by_a_window_and_the_change_goes_on() {
    let slo = SloFact {
        name: "stock-errors".into(),
        app: "stock".into(),
        budget_left: Some(-0.25),
        alert: Alert::None,
        alert_since: None,
    };
    let spec = change(|_| ()).spec;
    let held = windows(&spec, [].into_iter(), std::slice::from_ref(&slo));
    assert_eq!(held[0].apps, ["stock"]);
    assert!(held[0].reason.starts_with("S-BUDGET: slo/stock-errors has spent its error budget, and 25 % more"));
    let answers = asked(&change(|_| ()), &World { slos: vec![slo.clone()], ..world(vec![member("stock-1", "2.0")]) });
    assert_eq!(said(&answers, "S-BUDGET"), Said::Wait);
    assert!(standing_in_the_way(&answers).is_none(), "only that app is held");
    let skip = Skip { reason: "the fix".into(), actor: String::new() };
    let skipping = change(|s| drop(s.skip_checks.insert("S-BUDGET".into(), skip))).spec;
    assert!(windows(&skipping, [].into_iter(), &[slo]).is_empty());
}

#[test]
fn who_skips_windows_does_not_pass_the_red_button() {
    let window = |all: bool| weir_model::FreezeSpec {
        roll_backs_too: all,
        reason: "r".into(),
        ..weir_model::FreezeSpec::default()
    };
    let skip = Skip { reason: "urgent".into(), actor: String::new() };
    let spec = change(|s| drop(s.skip_checks.insert("W-WINDOW".into(), skip))).spec;
    assert_eq!(windows(&spec, [window(false), window(true)].iter(), &[]), [window(true)]);
}

#[test]
fn approval_is_asked_at_level_two_for_a_batch_that_could_begin() {
    let members = world(vec![member("stock-1", "2.0")]);
    let plan = Plan::default();
    let next = Planned { rung: 0, instances: Vec::new(), why: String::new(), start: now(), end: now() };
    let change = change(|s| s.level = Level::L2);
    let stage = Stage::Planned { plan: &plan, findings: &[], next: Some(&next), number: 4 };
    let facts = Facts { change: &change, world: &members, telemetry: &Telemetry::default(), now: now(), stage };
    let held = before::approval(&facts).expect("asked");
    assert_eq!(held, Answer::wait("batch 4 waits for approval: weir change approve up"));
}

#[test]
fn an_answer_that_stays_keeps_its_beginning() {
    let answer = |code: &str, at: At, said: Said, second: i64| CheckAnswer {
        code: code.into(),
        at,
        severity: Severity::Required,
        said,
        message: String::new(),
        since: Timestamp::from_second(second).expect("a moment"),
        skipped: false,
    };
    let mut known = ChangeStatus::default().checks;
    note(&mut known, vec![answer("A", At::Batch, Said::Wait, 1), answer("B", At::Batch, Said::Pass, 1)]);
    note(&mut known, vec![answer("C", At::After, Said::Pass, 2)]);
    note(&mut known, vec![answer("A", At::Batch, Said::Wait, 3), answer("B", At::Batch, Said::Fail, 3)]);
    let seen: Vec<(&str, i64)> = known.iter().map(|a| (a.code.as_str(), a.since.as_second())).collect();
    assert_eq!(seen, [("A", 1), ("B", 3), ("C", 2)]);
}
