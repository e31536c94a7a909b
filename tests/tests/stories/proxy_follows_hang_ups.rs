//! SIGHUP: the proxy goes on, with its file and its access log as they are now. A file with a mistake changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, Signal, TempDir, binary, eventually, http, net, peers};

#[test]
fn file_and_log_are_followed() {
    let (mut proxy, first, second) = (Proxy::start(), Server::start("first"), Server::start("second"));
    proxy.write(&config(proxy.address, first.address));
    proxy.hang_up("the file is in force");
    proxy.answers("first");
    fs::rename(proxy.log(), proxy.log().with_extension("1")).expect("a log can be moved");
    proxy.write(&config(proxy.address, second.address));
    proxy.hang_up("the file is in force");
    proxy.answers("second");
    eventually("the log goes on in a file of its name", LONG, || {
        let [now, before] = [proxy.log(), proxy.log().with_extension("1")].map(|path| lines(&path));
        if now == 1 && before == 1 { Ok(()) } else { Err(format!("{before} lines before, {now} now")) }
    });
    fs::write(&proxy.file, "listeners: [{}]").expect("a temporary file can be written");
    proxy.hang_up("the configuration stays as it was");
    proxy.answers("second");
}

/// Lines in a file.
fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

struct Proxy {
    process: Process,
    folder: TempDir,
    file: PathBuf,
    address: SocketAddr,
    hang_ups: usize,
}

impl Proxy {
    /// Without any listener.
    fn start() -> Proxy {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let (file, log) = (folder.path().join("weir.yaml"), folder.path().join("access.log"));
        fs::write(&file, "{}").expect("a temporary file can be written");
        let [config, log] = [&file, &log].map(|path| path.display().to_string());
        let admin = net::free_address();
        let flags = ["--config", &config, "--access-log", &log, "--admin", &admin.to_string()];
        let mut process = Process::start("weir-proxy", binary("weir-proxy"), &flags);
        process.wait_http(admin, "/ready");
        Proxy { process, folder, file, address: net::free_address(), hang_ups: 0 }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    fn write(&self, config: &Value) {
        fs::write(&self.file, config.to_string()).expect("a temporary file can be written");
    }

    /// Sends the signal, and waits for what it says to it.
    fn hang_up(&mut self, told: &str) {
        self.process.signal(Signal::HUP);
        self.hang_ups += 1;
        eventually(&format!("it says {told:?}"), LONG, || {
            let output = self.process.output();
            let said: Vec<&String> =
                output.iter().filter(|line| line.contains("SIGHUP: the ") && !line.contains("access log")).collect();
            match said.get(self.hang_ups - 1) {
                Some(line) if line.contains(told) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// One request.
    fn answers(&self, name: &str) {
        let answer = http::get(self.address, "/").expect("it is answered");
        assert_eq!((answer.status, answer.text()), (200, name.to_owned()));
    }
}

fn config(bind: SocketAddr, to: SocketAddr) -> Value {
    let forward = json!({ "clusters": [{ "cluster": "upstream" }] });
    json!({
        "listeners": [{ "name": "all", "bind": bind.to_string(), "routes": "all", "accessLog": true }],
        "routeTables": [{ "name": "all", "hosts": [{ "name": "all", "domains": ["*"], "routes": [{ "action": { "forward": forward } }] }] }],
        "clusters": [{ "name": "upstream", "endpoints": [{ "address": to.to_string() }] }]
    })
}

/// Answers with its name.
struct Server {
    _process: Process,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str) -> Server {
        let address = net::free_address();
        let mut command = Command::new(peers::python());
        command.arg(peers::script("http_server.py")).args([&address.to_string(), name]);
        let mut process = Process::spawn(name, &mut command);
        process.wait_line("serving");
        Server { _process: process, address }
    }
}
