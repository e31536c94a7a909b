//! Hosts of a test's own: network namespaces, removed at the end, and at the end of a failed test, too.

use std::cell::RefCell;
use std::process::{Command, Output};

use weir_testkit::Process;

/// A network namespace with loopback up.
pub struct Host {
    name: String,
    processes: RefCell<Vec<Process>>,
}

impl Host {
    pub fn new(name: &str) -> Host {
        let host = Host { name: format!("weir-{}-{name}", std::process::id()), processes: RefCell::default() };
        ip(&["netns", "add", &host.name]);
        host.ok(&["ip", "link", "set", "lo", "up"]);
        host
    }

    /// Two, with a wire between them: `10.77.0.1` and `fd77::1` on the first, `.2` and `::2` on the second.
    pub fn pair(name: &str) -> (Host, Host) {
        let (one, two) = (Host::new(&format!("{name}1")), Host::new(&format!("{name}2")));
        one.ok(&["ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", &two.name]);
        for (host, number) in [(&one, 1), (&two, 2)] {
            host.ok(&["ip", "address", "add", &format!("10.77.0.{number}/24"), "dev", "wire"]);
            // Without waiting for others with the same address.
            host.ok(&["ip", "address", "add", &format!("fd77::{number}/64"), "dev", "wire", "nodad"]);
            host.ok(&["ip", "link", "set", "wire", "up"]);
        }
        (one, two)
    }

    /// A command that runs there.
    pub fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(program);
        command
    }

    /// Starts a program that lives as long as the host; returns what it says in the line with `word`.
    pub fn start(&self, name: &str, command: &mut Command, word: &str) -> String {
        let mut process = Process::spawn(name, command);
        let line = process.wait_line(word);
        self.processes.borrow_mut().push(process);
        line
    }

    pub fn run(&self, program: &[&str]) -> Output {
        self.command(program).output().expect("ip can be run: the package iproute2 is installed, and this is root")
    }

    pub fn ok(&self, program: &[&str]) -> String {
        let output = self.run(program);
        assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.processes.borrow_mut().clear();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip can be run: the package iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
