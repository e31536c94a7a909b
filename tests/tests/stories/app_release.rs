//! A release of an application reaches its instances one after the other, each ended and started again while nobody sends
//! it requests: no request fails, no other app is touched, and the record tells it all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use weir_testkit::{Weir, binary, eventually};

use crate::mesh::{self, Load, edge, get, list, release, resource, text};

/// A change that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn a_release_of_an_app_fails_no_request() {
    let weir = mesh::start(&[release("A", json!([]))]);
    let mut load = Load::start(&weir, edge(&weir));
    let (failed, before) = (load.settled_failures(), programs(&weir));
    let demo = binary("weir-demo").display().to_string();
    let release = json!({"component": {"app": "stock"}, "version": "2", "path": demo});
    weir.apply(&resource("Release", "stock-2", release).to_string());
    weir.apply(&change().to_string());
    let ended = eventually("the change has ended", PATIENCE, || {
        let change = get(&weir, "changes/stock-2");
        let phase = text(&change["status"]["phase"]);
        if ["Succeeded", "RolledBack", "Blocked"].contains(&&*phase) { Ok(change) } else { Err(change.to_string()) }
    });
    assert_eq!(ended["status"]["phase"], "Succeeded", "{ended:#}");
    let after = programs(&weir);
    for (name, (app, version, pid)) in &after {
        let new = app == "stock";
        assert_eq!((version == "2", *pid != before[name].2), (new, new), "{name}: {before:?} {after:?}");
    }
    assert_eq!(load.settled_failures(), failed, "requests failed: {:?}", load.lines().last());
    let told = text(&get(&weir, "changes/stock-2/report")["markdown"]);
    for part in ["app stock 2: **Succeeded**", "Plan 1 of", "Batch 1: Passed", "1 let go"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

fn change() -> Value {
    let rung = |percent: u32| json!({"percent": percent, "bakeSeconds": 3, "minRequests": 10});
    let action = json!({"appRelease": {"app": "stock", "version": "2"}});
    resource("Change", "stock-2", json!({"action": action, "ladder": [rung(0), rung(100)]}))
}

/// App, release and process of each instance's program.
fn programs(weir: &Weir) -> BTreeMap<String, (String, String, Value)> {
    let program = |i: &Value| {
        let status = &i["status"];
        (text(&i["spec"]["app"]), text(&status["appVersion"]), status["appPid"].clone())
    };
    list(weir, "instances").iter().map(|i| (text(&i["metadata"]["name"]), program(i))).collect()
}
