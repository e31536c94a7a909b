//! A protection window that shuts in the middle of a change holds the app it names and nobody else; when it opens, the
//! app catches up from its own first instance. All of that on live traffic, without a failed request.

use std::time::Duration;

use serde_json::{Value, json};
use weir_testkit::{Weir, eventually};

use crate::mesh::{self, Load, edge, get, list, release, resource, text};

/// A change takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_frozen_app_waits_alone_and_catches_up() {
    let weir = mesh::start(&["A", "B"].map(|version| release(version, json!([]))));
    let mut load = Load::start(&weir, edge(&weir));
    let failed_before = load.settled_failures();
    let rung = |percent: u32| json!({"percent": percent, "bakeSeconds": 3, "minRequests": 20});
    let spec = json!({
        "action": {"proxyUpgrade": {"version": "B"}},
        "ladder": [rung(0), rung(50), rung(100)],
        "judge": {"patienceSeconds": 120},
    });
    weir.apply(&resource("Change", "to-b", spec).to_string());
    eventually("the first batch has begun", PATIENCE, || {
        let batch = get(&weir, "changes/to-b")["status"]["progress"]["batch"].as_u64();
        if batch >= Some(1) { Ok(()) } else { Err(format!("{batch:?}")) }
    });
    weir.ok(&["freeze", "sale", "--apps", "front", "--reason", "the sale is on"]);
    let held = count(&weir, "front", "B");

    eventually("everybody else has changed", PATIENCE, || {
        let others: Vec<String> =
            ["stock", "edge"].iter().map(|app| format!("{app} {}", count(&weir, app, "A"))).collect();
        if others.iter().all(|o| o.ends_with(" 0")) { Ok(()) } else { Err(format!("{others:?}")) }
    });
    let waiting = eventually("it says what it waits for", PATIENCE, || {
        let status = weir.ok(&["change", "status", "to-b"]);
        let told = status.contains("W-WINDOW Wait: ") && status.contains("(the sale is on)");
        if told { Ok(status) } else { Err(status) }
    });
    assert!(waiting.contains("Running"), "{waiting}");
    assert!(weir.ok(&["explain", "change/to-b"]).contains("freeze/sale holds"), "it names the window");
    // What was in flight when the window shut may have finished; nobody else of the app has begun.
    assert!(count(&weir, "front", "B") <= held + 1, "{} after {held}", count(&weir, "front", "B"));

    weir.ok(&["delete", "freeze/sale"]);
    eventually("the app has caught up", PATIENCE, || {
        let status = get(&weir, "changes/to-b")["status"].clone();
        if status["phase"] == "Succeeded" { Ok(()) } else { Err(format!("{}: {}", status["phase"], status["message"])) }
    });
    assert!(list(&weir, "instances").iter().all(|i| i["status"]["proxyVersion"] == "B"));
    assert_eq!(load.settled_failures() - failed_before, 0, "{:?}", load.lines().last());
}

/// Instances of an app whose spec wants this version.
fn count(weir: &Weir, app: &str, version: &str) -> usize {
    let is = |i: &&Value| text(&i["spec"]["app"]) == app && text(&i["spec"]["proxyVersion"]) == version;
    list(weir, "instances").iter().filter(is).count()
}
