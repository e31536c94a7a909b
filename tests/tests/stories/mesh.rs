//! A small mesh of demo services under steady load, for the stories that change it: `edge` calls `front`, which calls
//! `stock`, in two units.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, Weir, binary, eventually};

/// Instances of front and stock in each of the two units.
pub const REPLICAS: usize = 2;

/// All instances.
pub const INSTANCES: usize = 4 * REPLICAS + 1;

/// Starts a control plane with `releases`, A among them, and the mesh in version A; waits until all of it serves.
pub fn start(releases: &[Value]) -> Weir {
    let weir = Weir::start();
    releases.iter().chain(&resources()).for_each(|resource| drop(weir.apply(&resource.to_string())));
    eventually("all instances serve", LONG, || {
        let serving = list(&weir, "instances").iter().filter(|i| i["status"]["phase"] == "Serving").count();
        if serving == INSTANCES { Ok(()) } else { Err(format!("{serving} of {INSTANCES}")) }
    });
    weir
}

/// `weir-demo load`, which writes what it has counted each second.
pub struct Load {
    process: Process,
    output: PathBuf,
}

impl Load {
    pub fn start(weir: &Weir, edge: SocketAddr) -> Load {
        let output = weir.data().join("load.jsonl");
        let mut command = Command::new(binary("weir-demo"));
        command.args(["load", "--rate", "60", "--to", &edge.to_string(), "--output"]).arg(&output);
        let load = Load { process: Process::spawn("weir-demo load", &mut command), output };
        eventually("requests are answered well", LONG, || {
            let last = load.counted(1)?;
            if last["ok"].as_u64() > Some(0) { Ok(()) } else { Err(last.to_string()) }
        });
        load
    }

    pub fn lines(&self) -> Vec<Value> {
        let written = fs::read_to_string(&self.output).unwrap_or_default();
        written.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn counted(&self, at_least: u64) -> Result<Value, String> {
        let last = self.lines().pop().ok_or("nothing is written")?;
        let answered = last["ok"].as_u64().unwrap_or(0) + last["failed"].as_u64().unwrap_or(0);
        if answered >= at_least { Ok(last) } else { Err(last.to_string()) }
    }

    /// Requests failed so far, of all that were sent before now.
    pub fn settled_failures(&mut self) -> u64 {
        let ended = self.process.exited();
        assert!(ended.is_none(), "the load ended: {ended:?}");
        let sent = self.lines().last().and_then(|line| line["sent"].as_u64()).unwrap_or(0);
        let last = eventually("what was sent is answered", LONG, || self.counted(sent + 1));
        last["failed"].as_u64().unwrap_or(0)
    }
}

pub fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "weir.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn resources() -> Vec<Value> {
    let unit = |name: &str| resource("Unit", name, json!({"canary": name == "east"}));
    let app = |name: &str, tier: u8| resource("App", name, json!({"tier": tier}));
    let mut all = vec![unit("east"), unit("west"), app("stock", 4), app("front", 3), app("edge", 1)];
    for unit in ["east", "west"] {
        all.push(workload("stock", unit, &[], REPLICAS));
        all.push(workload("front", unit, &["stock"], REPLICAS));
    }
    let edge = json!({"app": "edge", "unit": "east", "replicas": 1, "calls": ["front"], "proxyVersion": "A"});
    all.push(resource("Workload", "edge-east", edge));
    all
}

pub fn release(version: &str, args: Value) -> Value {
    let path = binary("weir-proxy").display().to_string();
    let spec = json!({"component": "proxy", "version": version, "path": path, "args": args});
    resource("Release", &format!("proxy-{}", version.to_lowercase()), spec)
}

fn workload(app: &str, unit: &str, calls: &[&str], replicas: usize) -> Value {
    let demo = binary("weir-demo").display().to_string();
    let mut command = vec![demo.as_str(), "service", "--name", app, "--listen", "{address}:{port}"];
    let called: Vec<String> = calls.iter().map(|call| format!("{call}={{upstream:{call}}}")).collect();
    called.iter().for_each(|call| command.extend(["--call", call]));
    let spec = json!({
        "app": app, "unit": unit, "replicas": replicas, "calls": calls, "command": command, "proxyVersion": "A",
    });
    resource("Workload", &format!("{app}-{unit}"), spec)
}

/// Where the edge's proxy offers front.
pub fn edge(weir: &Weir) -> SocketAddr {
    let instances = list(weir, "instances");
    let edge = instances.iter().find(|i| i["spec"]["app"] == "edge").expect("there is an edge");
    text(&edge["spec"]["upstreams"][0]["listen"]).parse().expect("an address")
}

pub fn get(weir: &Weir, path: &str) -> Value {
    weir.get(&format!("/apis/weir.dev/v1/{path}")).expect("the API answers").json()
}

pub fn list(weir: &Weir, plural: &str) -> Vec<Value> {
    get(weir, plural)["items"].as_array().cloned().expect("a list has items")
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
