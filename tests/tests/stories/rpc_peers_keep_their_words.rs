//! SOFABolt's and Dubbo's own libraries call each other through two proxies, one beside each: many calls at once and out of
//! order, a megabyte each way, one-way calls, heartbeats, timeouts, arguments of every shape with labels edited around
//! them. When a server dies, every caller that waits is told so in its own protocol, over a connection that stays.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, net, peers};

use crate::fixed::Proxy;

const CALLS: [&str; 8] = ["many", "order", "large", "one-way", "heartbeat", "timeout", "failing", "shapes"];

#[test]
fn bolt_peers_call_each_other() {
    let mesh = Mesh::start("bolt");
    for scenario in CALLS {
        mesh.call("bolt", scenario);
        mesh.call("bolt2", scenario);
    }
    mesh.call("bolt-protobuf", "headers");
}

#[test]
fn dubbo_peers_call_each_other() {
    let mesh = Mesh::start("dubbo");
    for scenario in CALLS {
        mesh.call("dubbo", scenario);
    }
    mesh.call("dubbo", "edited");
}

#[test]
fn bolt_callers_are_told_when_the_server_dies() {
    callers_are_told_when_the_server_dies("bolt");
}

#[test]
fn dubbo_callers_are_told_when_the_server_dies() {
    callers_are_told_when_the_server_dies("dubbo");
}

fn callers_are_told_when_the_server_dies(protocol: &str) {
    let mut mesh = Mesh::start(protocol);
    let mut client = mesh.client(protocol, "lost");
    mesh.server.wait_line("holding 20");
    mesh.server.kill();
    client.wait_line("all answered");
    mesh.call(protocol, "refused");
    mesh.server.spawn_again(&mut serve(protocol, mesh.upstream));
    mesh.server.wait_line("serving");
    assert!(client.wait_exit(LONG).success(), "{:?}", client.output());
}

#[test]
fn idle_bolt_servers_get_heartbeats() {
    idle_servers_get_heartbeats("bolt");
}

#[test]
fn idle_dubbo_servers_get_heartbeats() {
    idle_servers_get_heartbeats("dubbo");
}

/// One call opens the connection; what comes on it afterwards is the proxy's own.
fn idle_servers_get_heartbeats(protocol: &str) {
    let mut mesh = Mesh::with_limits(protocol, &json!({ "heartbeatIntervalMs": 1000 }));
    mesh.call(protocol, "failing");
    mesh.server.wait_line("heartbeat 4");
}

/// A server and the proxies on the way to it.
struct Mesh {
    server: Process,
    upstream: SocketAddr,
    first: Proxy,
    _second: Proxy,
}

impl Mesh {
    fn start(protocol: &str) -> Mesh {
        Self::with_limits(protocol, &json!({}))
    }

    /// `limits` are those of the cluster of each proxy.
    fn with_limits(protocol: &str, limits: &Value) -> Mesh {
        let upstream = net::free_address();
        let mut server = Process::spawn("server", &mut serve(protocol, upstream));
        server.wait_line("serving");
        let second = proxy(protocol, upstream, limits, &json!({}));
        let edits = json!({ "set": [["set", "by the route"]], "remove": ["remove", "absent"] });
        let first = proxy(protocol, second.address, limits, &json!({ "requestHeaders": edits }));
        Mesh { server, upstream, first, _second: second }
    }

    /// Runs a scenario of the script to its end.
    fn call(&self, protocol: &str, scenario: &str) {
        let mut client = self.client(protocol, scenario);
        assert!(client.wait_exit(LONG).success(), "{protocol} {scenario}: {:?}", client.output());
    }

    fn client(&self, protocol: &str, scenario: &str) -> Process {
        let address = self.first.address.to_string();
        Process::spawn(&format!("{protocol} {scenario}"), script().args(["call", protocol, &address, scenario]))
    }
}

fn proxy(protocol: &str, upstream: SocketAddr, limits: &Value, route: &Value) -> Proxy {
    let protocol = if protocol == "dubbo" { "Dubbo" } else { "Bolt" };
    let listener = json!({ "protocol": protocol });
    let cluster = json!({ "protocol": protocol, "limits": limits });
    Proxy::configured(&listener, &cluster, route, upstream)
}

fn serve(protocol: &str, address: SocketAddr) -> Command {
    let mut command = script();
    command.args(["serve", protocol, &address.to_string()]);
    command
}

fn script() -> Command {
    let mut command = Command::new(peers::program("node", "nodejs"));
    command.arg(peers::script("rpc.js")).env("NODE_PATH", peers::node_folder().join("node_modules"));
    command
}
