//! `weir run` beside a program: proxies are swapped and killed under requests, the program never notices, and nothing
//! outlives the supervisor.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, Weir, binary, eventually, http, net};

/// A supervisor of the story and the folder with its socket.
struct Supervised {
    process: Process,
    folder: PathBuf,
}

impl Supervised {
    fn run(weir: &Weir, app: &str, name: &str, arguments: &[&str], program: &[&str]) -> Supervised {
        let folder = weir.data().join(format!("run-{name}"));
        let control = format!("http://{}", weir.xds());
        let mut command = weir.command(&["run", "--app", app, "--instance", name, "--control", &control]);
        command.arg("--folder").arg(&folder).arg("--proxy").arg(binary("weir-proxy")).args(arguments);
        command.arg("--").args(program);
        Supervised { process: Process::spawn(&format!("weir run {name}"), &mut command), folder }
    }

    fn stock(weir: &Weir, name: &str) -> Supervised {
        let address = net::free_address_on_localhost();
        let (listen, port) = (address.to_string(), address.port().to_string());
        let (inbound, demo) = (net::free_address().to_string(), binary("weir-demo"));
        let program = [&demo.to_string_lossy(), "service", "--name", name, "--listen", &listen];
        Supervised::run(weir, "stock", name, &["--port", &port, "--inbound", &inbound], &program)
    }

    fn ask(&self, request: &Value) -> Result<Value, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut stream = UnixStream::connect(self.folder.join("supervisor.sock")).map_err(told)?;
        writeln!(stream, "{request}").map_err(told)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(told)?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        answer.get("status").cloned().ok_or_else(|| answer.to_string())
    }

    fn swap(&self, version: &str) {
        let path = binary("weir-proxy");
        let request = json!({ "request": "swap", "version": version, "path": path });
        self.ask(&request).expect("the order is taken");
    }

    /// Its status, once its proxy of that version is ready.
    fn ready(&self, version: &str) -> Value {
        eventually(&format!("proxy {version} is ready in {}", self.folder.display()), LONG, || {
            let status = self.ask(&json!({ "request": "status" }))?;
            let proxy = &status["proxy"];
            if proxy["version"] == version && proxy["state"] == "ready" { Ok(status) } else { Err(status.to_string()) }
        })
    }
}

fn first_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Asks through the edge; after the first answer every request must succeed.
fn answered_by(edge: SocketAddr) -> Result<String, String> {
    let answer = http::send(edge, "GET", "/", &[("Host", "stock")], b"").map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.text()) } else { Err(format!("{} {}", answer.status, answer.text())) }
}

/// Asks until the proxy of this version is ready, and some more; none may fail.
fn all_answered_until_ready(edge: SocketAddr, swapped: &Supervised, version: &str) {
    for _ in 0..20 {
        answered_by(edge).unwrap_or_else(|error| panic!("a request failed during a swap: {error}"));
    }
    swapped.ready(version);
    for _ in 0..20 {
        answered_by(edge).unwrap_or_else(|error| panic!("a request failed after a swap: {error}"));
    }
}

#[test]
fn proxies_come_and_go_and_the_program_stays() {
    let weir = Weir::start();
    let (one, two) = (Supervised::stock(&weir, "stock-1"), Supervised::stock(&weir, "stock-2"));
    let at = net::free_address();
    let edge = Supervised::run(&weir, "edge", "edge-1", &["--upstream", &format!("stock={at}")], &[]);
    let before = one.ready(first_version());
    two.ready(first_version());
    edge.ready(first_version());
    for name in ["stock-1", "stock-2"] {
        eventually(&format!("{name} answers"), LONG, || {
            let text = answered_by(at)?;
            if text.contains(name) { Ok(()) } else { Err(text) }
        });
    }

    one.swap("B");
    all_answered_until_ready(at, &one, "B");
    edge.swap("B");
    all_answered_until_ready(at, &edge, "B");
    let after = one.ready("B");
    assert_eq!(after["app"], before["app"], "the program is the same process");
    assert_ne!(after["proxy"]["pid"], before["proxy"]["pid"]);
    one.swap("B");
    assert_eq!(one.ready("B")["proxy"]["pid"], after["proxy"]["pid"], "the same order again changes nothing");

    kill(&after["proxy"]["pid"]);
    let again = eventually("a killed proxy is started again", LONG, || {
        let status = one.ready("B");
        if status["proxy"]["pid"] == after["proxy"]["pid"] { Err(status.to_string()) } else { Ok(status) }
    });
    assert_eq!(again["app"], before["app"]);
    eventually("it leaves an event and a count, and shows its admin endpoint", LONG, || {
        let described = weir.ok(&["describe", "instance/stock-1"]);
        let shown = ["proxyRestarts: 1", "ProxyRestarted", "proxyAdmin: "].iter().all(|text| described.contains(text));
        if shown { Ok(()) } else { Err(described) }
    });
}

#[test]
fn nothing_outlives_a_supervisor() {
    let weir = Weir::start();
    let mut stopped = Supervised::stock(&weir, "stopped");
    stopped.ready(first_version());
    let mode = fs::metadata(stopped.folder.join("supervisor.sock")).expect("there is a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner gives orders");
    stopped.process.terminate();
    assert_eq!(stopped.process.wait_exit(LONG).code(), Some(0), "the program ended by itself when told to");
    assert_eq!(stopped.process.family(), [] as [u32; 0]);

    let mut killed = Supervised::stock(&weir, "killed");
    killed.ready(first_version());
    killed.process.kill();
    eventually("a killed supervisor's children end", LONG, || {
        let family = killed.process.family();
        if family.is_empty() { Ok(()) } else { Err(format!("{family:?} run")) }
    });
}

#[test]
fn the_programs_exit_code_is_passed_on() {
    let weir = Weir::start();
    let port = net::free_address_on_localhost().port().to_string();
    let mut run = Supervised::run(&weir, "short", "short-1", &["--port", &port], &["sh", "-c", "exit 7"]);
    assert_eq!(run.process.wait_exit(LONG).code(), Some(7));
}

fn kill(pid: &Value) {
    let pid = pid.as_u64().expect("a process id").to_string();
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill runs");
    assert!(killed.success());
}
