//! What several stories share: a program that joins the mesh through `weir run`.

use weir_testkit::{Process, Weir, binary, net, peers};

/// Starts `tests/peers/SCRIPT HOST:PORT NAME` as instance NAME of an app behind its own proxy.
pub fn join(weir: &Weir, app: &str, name: &str, script: &str) -> Process {
    let program = net::free_address_on_localhost();
    let port = program.port().to_string();
    let inbound = net::free_address().to_string();
    let control = format!("http://{}", weir.xds());
    let proxy = binary("weir-proxy");
    let (python, script) = (peers::python(), peers::script(script));
    let mut command = weir.command(&["run", "--app", app, "--instance", name, "--port", &port]);
    command.args(["--inbound", &inbound, "--control", &control]);
    command.arg("--proxy").arg(proxy).arg("--").arg(python).arg(script).args([&program.to_string(), name]);
    Process::spawn(&format!("weir run {name}"), &mut command)
}
