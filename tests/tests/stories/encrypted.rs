//! What the stories of encryption share: a mesh whose calls can be encrypted, in each protocol, and load that counts what
//! becomes of its calls.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use weir_testkit::{LONG, Process, Weir, eventually, http, net, peers};

use crate::joined::{Caller, join, join_calling};

/// HTTP/1 callers at a time.
const CALLERS: usize = 4;
/// gRPC calls per second at most.
const RATE: &str = "100";
/// The order of modes, over and over: every step up and down, and the leap that must not be one (istio#48290).
const MODES: [&str; 7] = ["permissive", "strict", "permissive", "disabled", "strict", "disabled", "permissive"];
/// Certificates live for so short a time that they are replaced all the while.
const CERT_TTL: [&str; 2] = ["--cert-ttl", "40s"];

/// What `front` and `stock` speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Grpc,
    Bolt,
    Dubbo,
}

impl Protocol {
    /// As in an App.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Grpc => "grpc",
            Protocol::Bolt => "bolt",
            Protocol::Dubbo => "dubbo",
        }
    }

    /// The server's script.
    pub fn server(self) -> &'static str {
        match self {
            Protocol::Http1 => "http_server.py",
            Protocol::Grpc => "grpc_server.py",
            Protocol::Bolt => "rpc.js serve bolt",
            Protocol::Dubbo => "rpc.js serve dubbo",
        }
    }
}

/// `front` calls `stock`, of which there are two.
pub struct Mesh {
    pub weir: Weir,
    pub protocol: Protocol,
    /// Where `front`'s proxy offers `stock`.
    pub front: SocketAddr,
    /// `stock-a`, `stock-b`, `front-1`.
    pub programs: Vec<Process>,
}

impl Mesh {
    /// All of them can do TLS, and hold a certificate.
    pub fn start(protocol: Protocol) -> Mesh {
        Mesh::started(Weir::start_with(&CERT_TTL), protocol)
    }

    /// The same on this control plane.
    pub fn started(weir: Weir, protocol: Protocol) -> Mesh {
        let mut mesh = Mesh::declared(weir, protocol);
        mesh.programs = ["stock-a", "stock-b"].map(|name| mesh.join(name)).into();
        mesh.programs.push(mesh.join_front());
        mesh.certificates_are_in_use(3);
        mesh
    }

    /// The control plane with the app.
    pub fn without_programs(protocol: Protocol) -> Mesh {
        Mesh::declared(Weir::start_with(&CERT_TTL), protocol)
    }

    fn declared(weir: Weir, protocol: Protocol) -> Mesh {
        weir.apply(&format!(
            "apiVersion: weir.dev/v1\nkind: App\nmetadata: {{name: stock}}\nspec: {{protocol: {}}}\n",
            protocol.name()
        ));
        Mesh { weir, protocol, front: net::free_address(), programs: Vec::new() }
    }

    /// Another instance of `stock`.
    pub fn join(&self, name: &str) -> Process {
        join(&self.weir, "stock", name, self.protocol.server())
    }

    /// The one that calls `stock`.
    pub fn join_front(&self) -> Process {
        join_calling(&self.weir, "front", "front-1", "http_server.py", &[("stock", self.front)])
    }

    pub fn certificates_are_in_use(&self, at_least: usize) {
        eventually("every proxy has a certificate in use", LONG, || {
            let shown: Value = serde_json::from_str(&self.weir.ok(&["get", "instances", "-o", "json"])).expect("JSON");
            let items = shown["items"].as_array().ok_or("no items")?;
            let ready = |i: &&Value| i["status"]["tls"]["ready"] == true && i["status"]["phase"] == "Serving";
            let count = items.iter().filter(ready).count();
            if count >= at_least { Ok(()) } else { Err(format!("{count} of {at_least}: {shown}")) }
        });
    }

    pub fn want(&self, mode: &str) {
        self.weir.apply(&format!(
            "apiVersion: weir.dev/v1\nkind: Encryption\nmetadata: {{name: stock}}\nspec: {{app: stock, mode: {mode}}}\n"
        ));
    }

    /// Wants interfaces to be otherwise than the app, and waits until it is so.
    pub fn switch_interfaces(&self, mode: &str, interfaces: &[(&str, &str)]) {
        let interface = |(path, mode): &(&str, &str)| format!("{{path: '{path}', mode: {mode}}}");
        let interfaces: Vec<_> = interfaces.iter().map(interface).collect();
        let interfaces = interfaces.join(", ");
        self.weir.apply(&format!(
            "apiVersion: weir.dev/v1\nkind: Encryption\nmetadata: {{name: stock}}\n\
             spec: {{app: stock, mode: {mode}, interfaces: [{interfaces}]}}\n"
        ));
        eventually("all is as wanted", LONG, || {
            let shown = self.weir.ok(&["get", "encryption", "stock", "-o", "json"]);
            let shown: Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
            let (spec, status) = (&shown["spec"], &shown["status"]);
            let all = status["effectiveInterfaces"] == spec["interfaces"] && status["effectiveMode"] == mode;
            if all { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Waits until it is so.
    pub fn is(&self, mode: &str) {
        eventually(&format!("calls are {mode}"), LONG, || {
            let shown = self.weir.ok(&["get", "encryption", "stock", "-o", "json"]);
            let shown: Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
            if shown["status"]["effectiveMode"] == mode { Ok(()) } else { Err(shown["status"].to_string()) }
        });
    }

    pub fn switch(&self, times: usize) {
        for mode in MODES.iter().cycle().take(times) {
            self.want(mode);
            self.is(mode);
        }
    }

    /// Wants one thing and the other, faster than either can be.
    pub fn waver(&self) {
        for mode in ["disabled", "strict", "disabled", "strict", "permissive", "disabled", "strict"] {
            self.want(mode);
        }
        self.is("strict");
        self.want("disabled");
        self.is("disabled");
    }

    /// Where callers reach the proxy of an instance.
    pub fn inbound(&self, name: &str) -> SocketAddr {
        let shown = self.weir.ok(&["get", "instance", name, "-o", "json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let (ip, port) = (&shown["spec"]["address"], &shown["spec"]["port"]);
        format!("{}:{port}", ip.as_str().expect("an address")).parse().expect("an address")
    }

    /// Load on `stock` by way of `front`, begun once each of `names` has answered.
    pub fn load(&self, names: &[&str]) -> Load {
        match self.protocol {
            Protocol::Http1 => Load::http1(self.front, names),
            Protocol::Grpc => Load::http2(self.front),
            Protocol::Bolt | Protocol::Dubbo => Load::rpc(self.protocol, self.front, names),
        }
    }
}

/// Callers that ask one request after the other, from the first answer on. They wait for each answer, so that a slow
/// machine makes for fewer requests and not for a queue.
pub enum Load {
    Threads { stop: Arc<AtomicBool>, callers: Vec<JoinHandle<Counts>> },
    Peer(Process),
}

#[derive(Debug, Default)]
pub struct Counts {
    ok: u64,
    failures: Vec<String>,
}

impl Load {
    pub fn http1(to: SocketAddr, names: &[&str]) -> Load {
        let mut caller = Caller::new("stock", to);
        names.iter().for_each(|name| caller.until_answered_by(name));
        let stop = Arc::new(AtomicBool::new(false));
        let call = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask_until(&stop, to))
        };
        let callers = (0..CALLERS).map(call).collect();
        Load::Threads { stop, callers }
    }

    fn http2(to: SocketAddr) -> Load {
        let mut command = Command::new(peers::python());
        command.arg(peers::script("grpc_load.py"));
        Load::peer("gRPC load", command.args([&to.to_string(), RATE]))
    }

    fn rpc(protocol: Protocol, to: SocketAddr, names: &[&str]) -> Load {
        let mut command = rpc();
        let command = command.args(["load", protocol.name(), &to.to_string()]).args(names);
        Load::peer(&format!("{} load", protocol.name()), command)
    }

    fn peer(name: &str, command: &mut Command) -> Load {
        let mut process = Process::spawn(name, command);
        process.wait_line("calling");
        Load::Peer(process)
    }

    pub fn has_lost_nothing(self) {
        let counts = match self {
            Load::Threads { stop, callers } => {
                stop.store(true, Ordering::Relaxed);
                let counts = callers.into_iter().map(|caller| caller.join().expect("a caller counts"));
                counts.fold(Counts::default(), |mut sum, each| {
                    sum.ok += each.ok;
                    sum.failures.extend(each.failures);
                    sum
                })
            }
            Load::Peer(process) => told_by(process),
        };
        assert!(counts.failures.is_empty() && counts.ok > 20, "{counts:?}");
        println!("{} requests, none failed", counts.ok);
    }
}

/// The script of the RPC peers.
pub fn rpc() -> Command {
    let mut command = Command::new(peers::program("node", "nodejs"));
    command.env("NODE_PATH", peers::node_folder().join("node_modules")).arg(peers::script("rpc.js"));
    command
}

fn ask_until(stop: &AtomicBool, to: SocketAddr) -> Counts {
    let mut counts = Counts::default();
    while !stop.load(Ordering::Relaxed) {
        let path = if counts.ok % 2 == 0 { "/" } else { "/pay" };
        match http::send(to, "GET", path, &[("Host", "stock")], b"") {
            Ok(answer) if answer.status == 200 => counts.ok += 1,
            other => counts.failures.push(format!("{other:?}")),
        }
    }
    counts
}

fn told_by(mut process: Process) -> Counts {
    process.terminate();
    process.wait_exit(LONG);
    let last = process.output().into_iter().rfind(|line| line.contains("\"ok\"")).expect("it tells its counts");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    let failures = last["reasons"].as_object().into_iter().flatten().map(|(why, count)| format!("{count} {why}"));
    Counts { ok: last["ok"].as_u64().expect("a count"), failures: failures.collect() }
}
