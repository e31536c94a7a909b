//! A planned upgrade fails no request, though the app has one instance only: short requests wait while it is away, long
//! ones and streams finish. What takes longer than it was given is cut, and that is told.

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, Weir, eventually, peers};

use crate::mesh::{get, list, release, resource, text};

/// Longer than the time to drain would be without the App's own words.
const SLOW_SECONDS: &str = "33";

/// A control plane with the releases A and B, one instance of `slow` (HTTP/1.1) and of `names` (gRPC), and an edge that
/// calls both; in version A.
fn start(slow: &Value, names: &Value) -> Weir {
    let weir = Weir::start();
    let edge = json!({"app": "edge", "unit": "east", "replicas": 1, "calls": ["slow", "names"], "proxyVersion": "A"});
    let all = [
        release("A", json!([])),
        release("B", json!([])),
        resource("Unit", "east", json!({"canary": true})),
        resource("App", "slow", slow.clone()),
        resource("App", "names", names.clone()),
        workload("slow", "slow_server.py"),
        workload("names", "grpc_server.py"),
        resource("Workload", "edge-east", edge),
    ];
    all.iter().for_each(|resource| drop(weir.apply(&resource.to_string())));
    until_all_run(&weir, &["slow-east-1", "names-east-1", "edge-east-1"], "A");
    weir
}

fn workload(app: &str, script: &str) -> Value {
    let program = [peers::python().display().to_string(), peers::script(script).display().to_string()];
    let command = [&program[..], &["{address}:{port}".to_owned(), "{instance}".to_owned()]].concat();
    let spec = json!({"app": app, "unit": "east", "replicas": 1, "command": command, "proxyVersion": "A"});
    resource("Workload", &format!("{app}-east"), spec)
}

fn until_all_run(weir: &Weir, names: &[&str], version: &str) {
    eventually(&format!("{names:?} run {version}"), 2 * LONG, || {
        let instances = list(weir, "instances");
        let runs = |i: &&Value| i["status"]["phase"] == "Serving" && i["status"]["proxyVersion"] == version;
        let running: Vec<String> = instances.iter().filter(runs).map(|i| text(&i["metadata"]["name"])).collect();
        if names.iter().all(|name| running.iter().any(|r| r == name)) { Ok(()) } else { Err(format!("{running:?}")) }
    });
}

/// Where the edge's proxy offers an app.
fn offered(weir: &Weir, app: &str) -> String {
    let edge = get(weir, "instances/edge-east-1");
    let upstreams = edge["spec"]["upstreams"].as_array().expect("it calls others");
    let upstream = upstreams.iter().find(|u| u["app"] == app).expect("it calls this app");
    text(&upstream["listen"])
}

fn call(weir: &Weir, seconds: &str) -> Process {
    let script = peers::script("upgrade_caller.py").display().to_string();
    let arguments = [script, offered(weir, "slow"), offered(weir, "names"), seconds.to_owned()];
    let mut caller = Process::start("upgrade_caller.py", peers::python(), &arguments);
    caller.wait_line("begun");
    caller
}

/// As a Change does it, without its waiting.
fn upgrade(weir: &Weir, instance: &str, version: &str) {
    let mut wanted = get(weir, &format!("instances/{instance}"));
    wanted["spec"]["proxyVersion"] = json!(version);
    wanted.as_object_mut().expect("an object").remove("status");
    weir.apply(&wanted.to_string());
}

#[test]
fn an_only_instance_is_upgraded_and_no_request_fails_however_long_it_takes() {
    let weir = start(&json!({"timeoutMs": 60_000}), &json!({"protocol": "grpc", "drainMs": 60_000}));
    let mut caller = call(&weir, SLOW_SECONDS);
    upgrade(&weir, "slow-east-1", "B");
    upgrade(&weir, "names-east-1", "B");
    until_all_run(&weir, &["slow-east-1", "names-east-1"], "B");
    caller.terminate();
    let ended = caller.wait_exit(LONG);
    assert!(ended.success(), "{ended}: {:?}", caller.output());
}

#[test]
fn what_takes_longer_than_it_was_given_is_cut_and_told() {
    let weir = start(&json!({"drainMs": 500}), &json!({"protocol": "grpc", "drainMs": 500}));
    let mut caller = call(&weir, "100");
    upgrade(&weir, "names-east-1", "B");
    until_all_run(&weir, &["names-east-1"], "B");
    eventually("it is told", LONG, || {
        let described = weir.ok(&["describe", "instance/names-east-1"]);
        if described.contains("RequestsCut") { Ok(()) } else { Err(described) }
    });
    caller.kill();
}
