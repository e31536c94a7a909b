//! `weir-proxy intercept` against the real kernel, in a network namespace of its own: connections of a program that knows
//! nothing of Weir are turned round to the proxy's port, all but those that are excluded, and back again.

use std::process::{Command, Output};

use weir_testkit::{Process, binary};

/// A user that the rules leave alone, as they must the proxy's own.
const EXCLUDED_UID: &str = "64321";

#[test]
fn connections_are_turned_round_but_those_of_the_excluded_user() {
    let host = Host::new("a");
    let port = host.listener("0.0.0.0", "proxy");
    host.ok(&[
        &proxy(),
        "intercept",
        "--outbound-port",
        &port,
        "--exclude-uid",
        EXCLUDED_UID,
        "--exclude-outbound",
        "81",
    ]);
    assert_eq!(host.fetch("192.0.2.7", "80", None), "proxy", "an address that nobody has is answered by the proxy");
    assert_eq!(host.fetch("192.0.2.7", "80", Some(EXCLUDED_UID)), "", "its own connections would come back to it");
    assert_eq!(host.fetch("192.0.2.7", "81", None), "", "this port is left alone");
    host.ok(&[&proxy(), "intercept", "--remove"]);
    assert_eq!(host.fetch("192.0.2.7", "80", None), "", "and it is as before");
}

#[test]
fn rules_are_replaced_and_removed_whole() {
    let host = Host::new("b");
    let dry = host.ok(&[&proxy(), "intercept", "--inbound-port", "15006", "--dry-run"]);
    assert!(dry.contains("redirect to :15006"), "{dry}");
    assert_eq!(host.rules(), "", "a dry run changes nothing");
    for inbound in ["15006", "15006", "15007"] {
        host.ok(&[&proxy(), "intercept", "--inbound-port", inbound, "--exclude-inbound", "22"]);
        assert_eq!(host.rules().matches("redirect").count(), 1, "{}", host.rules());
        assert!(host.rules().contains(&format!("redirect to :{inbound}")), "{}", host.rules());
    }
    for _ in 0..2 {
        host.ok(&[&proxy(), "intercept", "--remove"]);
        assert_eq!(host.rules(), "");
    }
}

fn proxy() -> String {
    binary("weir-proxy").display().to_string()
}

/// A host of its own: a network namespace, removed at the end.
struct Host {
    name: String,
    listeners: std::cell::RefCell<Vec<Process>>,
}

impl Host {
    /// With loopback up, and a way to everywhere that leads nowhere.
    fn new(name: &str) -> Host {
        let host = Host { name: format!("weir-{}-{name}", std::process::id()), listeners: Default::default() };
        ip(&["netns", "add", &host.name]);
        host.ok(&["ip", "link", "set", "lo", "up"]);
        host.ok(&["ip", "link", "add", "out", "type", "veth", "peer", "name", "nowhere"]);
        host.ok(&["ip", "link", "set", "nowhere", "up"]);
        host.ok(&["ip", "address", "add", "198.51.100.1/24", "dev", "out"]);
        host.ok(&["ip", "link", "set", "out", "up"]);
        host.ok(&["ip", "route", "add", "default", "dev", "out"]);
        host
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(arguments);
        command.output().expect("ip can be run: the package iproute2 is installed, and this is root")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Weir's table, empty if there is none.
    fn rules(&self) -> String {
        String::from_utf8_lossy(&self.run(&["nft", "list", "table", "inet", "weir"]).stdout).into_owned()
    }

    /// Answers each connection with a word; its port.
    fn listener(&self, address: &str, word: &str) -> String {
        let program = format!(
            "import socket\ns = socket.create_server(('{address}', 0))\nprint('port', s.getsockname()[1], flush=True)\n\
             while True:\n  c, _ = s.accept()\n  c.sendall(b'{word}')\n  c.close()\n"
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "/usr/bin/python3", "-c", &program]);
        let mut process = Process::spawn("listener", &mut command);
        let line = process.wait_line("port ");
        self.listeners.borrow_mut().push(process);
        line.trim_start_matches("port ").trim().to_owned()
    }

    /// What a program of that user reads from there; nothing if there is no connection within a second.
    fn fetch(&self, address: &str, port: &str, user: Option<&str>) -> String {
        let program = format!(
            "import encodings.idna, os, socket\n{}try:\n  print(socket.create_connection(('{address}', {port}), 1).recv(64).decode(), end='')\n\
             except OSError:\n  pass\n",
            user.map(|user| format!("os.setuid({user})\n")).unwrap_or_default()
        );
        self.ok(&["/usr/bin/python3", "-c", &program])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.listeners.borrow_mut().clear();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip can be run: the package iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
