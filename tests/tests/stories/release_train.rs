//! A release train on real proxies under live traffic: CI registers a nightly, it proves itself in the canary unit and
//! goes to production without a failed request; a bad nightly is withdrawn, and nothing runs it any more.

use std::time::Duration;

use serde_json::{Value, json};
use weir_testkit::{Weir, binary, eventually};

use crate::mesh::{self, Load, edge, get, list, release, resource, text};

/// Departures are a minute apart, and a change takes seconds.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn a_good_nightly_reaches_production_and_a_bad_one_is_withdrawn() {
    let weir = mesh::start(&[release("A", json!([]))]);
    let mut load = Load::start(&weir, edge(&weir));
    let failed_before = load.settled_failures();
    weir.apply(&train().to_string());
    let ci = text_line(&weir.ok(&["token", "create", "nightly", "--role", "ci", "--quiet"]));

    register(&weir, &ci, "B", "b0b", &[]);
    reaches(&weir, "B", "Released");
    assert!(list(&weir, "instances").iter().all(|instance| instance["spec"]["proxyVersion"] == "B"));
    assert_eq!(load.settled_failures() - failed_before, 0, "{:?}", load.lines().last());
    let rider = rider(&weir, "B");
    assert!(rider["evidence"]["requests"].as_u64() > Some(0) && rider["score"].as_f64() > Some(0.0), "{rider:#}");

    register(&weir, &ci, "C", "c0c", &["--arg=--drill", "--arg=fail-ratio=0.3"]);
    reaches(&weir, "C", "Withdrawn");
    assert!(list(&weir, "instances").iter().all(|instance| instance["spec"]["proxyVersion"] == "B"));
    assert!(text(&self::rider(&weir, "C")["why"]).contains("it came with b0b..c0c"), "{:#}", self::rider(&weir, "C"));
    let marked = || get(&weir, "releases/proxy-c")["spec"]["withdrawn"].clone();
    eventually("its Release says so", PATIENCE, || marked().as_str().map(drop).ok_or("not marked".to_owned()));
    let status = weir.ok(&["train", "status", "proxy"]);
    assert!(status.contains("Withdrawn") && status.contains("Released"), "{status}");
}

#[test]
fn ci_can_register_releases_and_nothing_else() {
    let weir = Weir::start_with(&["--no-instances"]);
    let ci = text_line(&weir.ok(&["token", "create", "nightly", "--role", "ci", "--quiet"]));
    register(&weir, &ci, "B", "b0b", &[]);
    let path = binary("weir-proxy").display().to_string();
    let wrong = ["release", "register", "D", "--artifact", &path, "--sha256", &"0".repeat(64), "--token", &ci];
    assert!(weir.cli(&wrong).stderr.contains("hashes to"), "another checksum than the file's is refused");
    let freeze = weir.cli(&["freeze", "mine", "--reason", "no", "--token", &ci]);
    assert!(freeze.stderr.contains("role Ci"), "{}", freeze.stderr);
}

/// Quick steps; the calendar is real, with a departure each minute.
fn train() -> Value {
    let rung = |percent: u32| json!({"percent": percent, "bakeSeconds": 3, "minRequests": 10});
    let stage =
        |ladder: Value, scope: Value| json!({"ladder": ladder, "scope": scope, "judge": {"patienceSeconds": 120}});
    let spec = json!({
        "component": "proxy",
        "canary": stage(json!([rung(0), rung(100)]), json!({"units": ["east"]})),
        "proof": {"soakSeconds": 3, "minRequests": 10},
        "departures": {"cron": "* * * * *"},
        "production": stage(json!([rung(50), rung(100)]), json!({})),
    });
    resource("ReleaseTrain", "proxy", spec)
}

fn register(weir: &Weir, token: &str, version: &str, commit: &str, more: &[&str]) {
    let path = binary("weir-proxy").display().to_string();
    let register = ["release", "register", version, "--artifact", &path, "--commit", commit, "--token", token];
    weir.ok(&[&register[..], more].concat());
}

fn rider(weir: &Weir, version: &str) -> Value {
    get(weir, "releasetrains/proxy")["status"]["riders"][version].clone()
}

fn reaches(weir: &Weir, version: &str, state: &str) {
    eventually(&format!("{version} is {state}"), PATIENCE, || {
        let rider = rider(weir, version);
        let lost = state != "Withdrawn" && rider["state"] == "Withdrawn";
        assert!(!lost, "{version} was withdrawn: {rider:#}");
        if rider["state"] == state { Ok(()) } else { Err(rider.to_string()) }
    });
}

fn text_line(output: &str) -> String {
    output.trim().to_owned()
}
