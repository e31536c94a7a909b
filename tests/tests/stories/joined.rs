//! What several stories share: programs that join the mesh through `weir run`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;
use weir_testkit::{LONG, Process, Weir, binary, eventually, http, net, peers};

/// Starts `tests/peers/SCRIPT HOST:PORT NAME` as instance NAME of an app behind its own proxy. Words after the script's
/// file are its first arguments.
pub fn join(weir: &Weir, app: &str, name: &str, script: &str) -> Process {
    join_calling(weir, app, name, script, &[])
}

/// The same for a program that calls other apps, each at a local address.
pub fn join_calling(weir: &Weir, app: &str, name: &str, script: &str, calls: &[(&str, SocketAddr)]) -> Process {
    Process::spawn(&format!("weir run {name}"), &mut joining(weir, app, name, script, calls))
}

/// The command that does so.
pub fn joining(weir: &Weir, app: &str, name: &str, script: &str, calls: &[(&str, SocketAddr)]) -> Command {
    let proxy = binary("weir-proxy").display().to_string();
    command(weir, app, name, script, calls, &["--proxy", &proxy])
}

/// The same behind a proxy that can't do TLS, as one from before there was TLS.
pub fn join_without_tls(weir: &Weir, app: &str, name: &str, script: &str, calls: &[(&str, SocketAddr)]) -> Process {
    let path = binary("weir-proxy").display().to_string();
    let release = json!({ "version": "old", "path": path, "args": ["--no-tls"] }).to_string();
    let mut command = command(weir, app, name, script, calls, &["--proxy-release", &release]);
    Process::spawn(&format!("weir run {name}"), &mut command)
}

fn command(weir: &Weir, app: &str, name: &str, script: &str, calls: &[(&str, SocketAddr)], proxy: &[&str]) -> Command {
    let program = net::free_address_on_localhost();
    let port = program.port().to_string();
    let inbound = net::free_address().to_string();
    let control = weir.control();
    let mut command = weir.command(&["run", "--app", app, "--instance", name, "--port", &port]);
    command.args(["--inbound", &inbound, "--control", &control, "--protocol", protocol(script)]);
    for (called, listen) in calls {
        command.args(["--upstream", &format!("{called}={listen}")]);
    }
    command.args(proxy).arg("--").args(peer(script)).args([&program.to_string(), name]);
    if script.starts_with("rpc.js") {
        command.env("NODE_PATH", peers::node_folder().join("node_modules"));
    }
    command
}

/// Interpreter, script and first arguments.
fn peer(script: &str) -> Vec<OsString> {
    let mut words = script.split(' ');
    let file = words.next().unwrap_or_default();
    let interpreter = if file.ends_with(".js") { peers::program("node", "nodejs") } else { peers::python() };
    let before = [interpreter.into_os_string(), peers::script(file).into_os_string()];
    before.into_iter().chain(words.map(OsString::from)).collect()
}

/// What the script speaks.
fn protocol(script: &str) -> &'static str {
    let known = [("grpc", "grpc"), ("rpc.js serve bolt", "bolt"), ("rpc.js serve dubbo", "dubbo")];
    known.into_iter().find(|(begin, _)| script.starts_with(begin)).map_or("http1", |(_, protocol)| protocol)
}

/// Somebody who calls an app at a local address. From the first answer on, no request may fail.
pub struct Caller {
    at: SocketAddr,
    host: &'static str,
    served: bool,
}

impl Caller {
    /// Nothing is asked yet.
    pub fn new(host: &'static str, at: SocketAddr) -> Caller {
        Caller { at, host, served: false }
    }

    /// Asks until `name` answers.
    pub fn until_answered_by(&mut self, name: &str) {
        eventually(&format!("{name} answers at {}", self.at), LONG, || {
            let seen = self.ask()?;
            if seen == name { Ok(()) } else { Err(format!("{seen} answers")) }
        });
    }

    /// Asks until `name` alone has answered many times in a row.
    pub fn until_only(&mut self, name: &str) {
        const IN_A_ROW: usize = 50;
        let mut in_a_row = 0;
        eventually(&format!("only {name} answers at {}", self.at), LONG, || {
            in_a_row = if self.ask()? == name { in_a_row + 1 } else { 0 };
            if in_a_row >= IN_A_ROW { Ok(()) } else { Err(format!("{in_a_row} in a row")) }
        });
    }

    /// Asks that many times, one after the other; each must be answered.
    pub fn times(&mut self, count: usize) {
        for _ in 0..count {
            self.ask().unwrap_or_else(|instead| panic!("not served: {instead}"));
        }
    }

    /// Who answered; `Err` before it is served for the first time.
    ///
    /// # Panics
    /// If a request fails after one had succeeded.
    pub fn ask(&mut self) -> Result<String, String> {
        match http::send(self.at, "GET", "/", &[("Host", self.host)], b"") {
            Ok(answer) if answer.status == 200 => {
                self.served = true;
                Ok(answer.text())
            }
            other if self.served => panic!("a request failed that had to succeed: {other:?}"),
            other => Err(format!("{other:?}")),
        }
    }
}
