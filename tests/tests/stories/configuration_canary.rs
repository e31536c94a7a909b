//! A configuration canary on real proxies under live traffic: a good Route reaches its callers one after the other and
//! then the store, without a failed request; a bad one is caught on the first proxy that has it and taken back, and the
//! Route in the store was never touched.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use weir_testkit::{Weir, eventually};

use crate::mesh::{self, Load, edge, get, list, release, resource, text};

/// A change that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn good_configuration_goes_everywhere_and_bad_no_further_than_its_first_proxy() {
    let weir = mesh::start(&[release("A", json!([]))]);
    let mut load = Load::start(&weir, edge(&weir));
    weir.apply(&resource("Route", "stock", route("stock", 5_000)).to_string());
    let failed = load.settled_failures();

    weir.apply(&change("slower", &route("stock", 7_000)).to_string());
    let good = ends(&weir, "slower", "Succeeded");
    assert_eq!(timeout(&weir), 7_000, "{good:#}");
    assert_eq!(good["status"]["progress"]["total"], 4, "front alone calls stock: {good:#}");
    assert_eq!(load.settled_failures(), failed, "requests failed: {:?}", load.lines().last());
    free(&weir);

    let before = get(&weir, "routes/stock");
    weir.apply(&change("astray", &route("nowhere", 7_000)).to_string());
    let had = let_go(&weir);
    let bad = ends(&weir, "astray", "RolledBack");
    assert_eq!(had.len(), 1, "more than one proxy had it: {had:?}");
    assert_eq!(bad["status"]["batches"].as_array().map(Vec::len), Some(1), "{bad:#}");
    let why = text(&bad["status"]["batches"][0]["verdict"]["reason"]);
    assert!(why.contains("app=front"), "{why}");
    assert_eq!(get(&weir, "routes/stock"), before, "the store was left alone");
    free(&weir);
    let failed = load.settled_failures();
    assert!(failed > 0, "it did harm where it was tried");
    assert_eq!(load.settled_failures(), failed, "and does none any more");
}

#[test]
fn calls_are_encrypted_caller_by_caller() {
    let weir = mesh::start(&[release("A", json!([]))]);
    let mut load = Load::start(&weir, edge(&weir));
    let failed = load.settled_failures();
    let action = json!({"encryptionSwitch": {"apps": ["stock"], "mode": "strict"}});
    weir.apply(&canary("to-strict", action).to_string());
    let ended = ends(&weir, "to-strict", "Succeeded");
    assert_eq!(ended["status"]["progress"]["total"], 4, "front alone calls stock: {ended:#}");
    assert_eq!(get(&weir, "encryptions/stock")["status"]["effectiveMode"], "strict");
    assert_eq!(load.settled_failures(), failed, "requests failed: {:?}", load.lines().last());
    free(&weir);
}

/// Calls of stock go to `backend`.
fn route(backend: &str, timeout_ms: u32) -> Value {
    json!({"app": "stock", "rules": [{"backends": [{"app": backend}], "timeoutMs": timeout_ms}]})
}

fn change(revision: &str, route: &Value) -> Value {
    let resources = [json!({"kind": "Route", "name": "stock", "spec": route})];
    canary(revision, json!({"configPublish": {"revision": revision, "resources": resources}}))
}

fn canary(name: &str, action: Value) -> Value {
    let rung = |percent: u32| json!({"percent": percent, "bakeSeconds": 3, "minRequests": 30});
    let judge = json!({"patienceSeconds": 120});
    resource("Change", name, json!({"action": action, "ladder": [rung(0), rung(50), rung(100)], "judge": judge}))
}

fn ends(weir: &Weir, name: &str, phase: &str) -> Value {
    eventually(&format!("{name} has ended"), PATIENCE, || {
        let change = get(weir, &format!("changes/{name}"));
        let now = text(&change["status"]["phase"]);
        let ended = ["Succeeded", "RolledBack", "Blocked"].contains(&&*now);
        assert!(!ended || now == phase, "{change:#}");
        if ended { Ok(change) } else { Err(change.to_string()) }
    })
}

/// Everybody who has been given configuration of its own until there was a roll-back.
fn let_go(weir: &Weir) -> BTreeSet<String> {
    let mut had = BTreeSet::new();
    eventually("it is rolled back", PATIENCE, || {
        had.extend(pinned(weir));
        let change = get(weir, "changes/astray");
        if change["status"]["rollback"].is_object() { Ok(()) } else { Err(change.to_string()) }
    });
    had.extend(pinned(weir));
    had
}

fn pinned(weir: &Weir) -> Vec<String> {
    let instances = list(weir, "instances").into_iter();
    instances.filter(|i| i["spec"]["configRevision"].is_string()).map(|i| text(&i["metadata"]["name"])).collect()
}

/// Every proxy goes by the store again, and says so.
fn free(weir: &Weir) {
    eventually("every proxy goes by the store", PATIENCE, || {
        let own = |i: &&Value| !i["spec"]["configRevision"].is_null() || i["status"]["config"]["revision"].is_string();
        let instances = list(weir, "instances");
        let with: Vec<&Value> = instances.iter().filter(own).collect();
        if with.is_empty() { Ok(()) } else { Err(format!("{with:?}")) }
    });
}

fn timeout(weir: &Weir) -> u64 {
    get(weir, "routes/stock")["spec"]["rules"][0]["timeoutMs"].as_u64().unwrap_or_default()
}
