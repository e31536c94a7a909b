//! What several stories share: programs that join the mesh through `weir run`.

use std::net::SocketAddr;

use weir_testkit::{LONG, Process, Weir, binary, eventually, http, net, peers};

/// Starts `tests/peers/SCRIPT HOST:PORT NAME` as instance NAME of an app behind its own proxy.
pub fn join(weir: &Weir, app: &str, name: &str, script: &str) -> Process {
    join_calling(weir, app, name, script, &[])
}

/// The same for a program that calls other apps, each at a local address.
pub fn join_calling(weir: &Weir, app: &str, name: &str, script: &str, calls: &[(&str, SocketAddr)]) -> Process {
    let program = net::free_address_on_localhost();
    let port = program.port().to_string();
    let inbound = net::free_address().to_string();
    let control = format!("http://{}", weir.xds());
    let mut command = weir.command(&["run", "--app", app, "--instance", name, "--port", &port]);
    command.args(["--inbound", &inbound, "--control", &control, "--protocol", protocol(script)]);
    for (called, listen) in calls {
        command.args(["--upstream", &format!("{called}={listen}")]);
    }
    command.arg("--proxy").arg(binary("weir-proxy")).arg("--").arg(peers::python());
    command.arg(peers::script(script)).args([&program.to_string(), name]);
    Process::spawn(&format!("weir run {name}"), &mut command)
}

/// What the script speaks.
fn protocol(script: &str) -> &'static str {
    if script.starts_with("grpc") { "grpc" } else { "http1" }
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
