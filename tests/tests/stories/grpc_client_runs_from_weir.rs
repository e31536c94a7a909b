//! gRPC's own xDS client runs from Weir's control plane: it resolves `xds:///stock`, calls an instance that joined, and
//! follows when instances come and go, without a failed call.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use weir_testkit::{LONG, Process, TempDir, Weir, eventually, peers};

use crate::joined::join;

#[test]
fn resolves_and_follows() {
    let weir = Weir::start_with(&["--insecure-loopback"]);
    weir.apply(STOCK_SPEAKS_GRPC);
    let first = join(&weir, "stock", "stock-a", "grpc_server.py");
    let mut client = Client::start(&weir);
    client.process.wait_line("answered by stock-a");

    let _second = join(&weir, "stock", "stock-b", "grpc_server.py");
    client.process.wait_line("answered by stock-b");

    first.terminate();
    client.settles_on("stock-b");
    client.never_failed();
}

const STOCK_SPEAKS_GRPC: &str = "
apiVersion: weir.dev/v1
kind: App
metadata: { name: stock }
spec: { protocol: grpc }
";

/// A gRPC program that calls `xds:///stock`.
pub struct Client {
    process: Process,
    _folder: TempDir,
}

impl Client {
    /// Starts it.
    pub fn start(weir: &Weir) -> Client {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("bootstrap.json");
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": weir.xds().to_string(),
                "channel_creds": [credentials(weir)],
                "server_features": ["xds_v3"]
            }],
            "node": { "id": "grpc-front", "cluster": "front" }
        });
        fs::write(&file, bootstrap.to_string()).expect("a temporary file can be written");
        let mut command = Command::new(peers::python());
        command.arg(peers::script("grpc_client.py")).arg("xds:///stock");
        let process = Process::spawn("gRPC client", command.env("GRPC_XDS_BOOTSTRAP", &file));
        Client { process, _folder: folder }
    }

    /// Waits until that one has answered.
    pub fn wait_answer(&mut self, name: &str) {
        self.process.wait_line(&format!("answered by {name}"));
    }

    /// The last calls were all answered by `name`.
    fn settles_on(&self, name: &str) {
        const IN_A_ROW: usize = 50;
        let wanted = format!("answered by {name}");
        eventually(&format!("only {name} answers the gRPC client"), LONG, || {
            let output = self.process.output();
            let in_a_row = output.iter().rev().take_while(|line| **line == wanted).count();
            if in_a_row >= IN_A_ROW { Ok(()) } else { Err(format!("{in_a_row} in a row")) }
        });
    }

    fn never_failed(&self) {
        let output = self.process.output();
        let failed: Vec<_> = output.iter().filter(|line| line.starts_with("failed")).collect();
        assert!(failed.is_empty(), "calls failed during a planned change: {failed:?}");
    }
}

/// How it speaks to the control plane.
fn credentials(weir: &Weir) -> Value {
    match weir.control().starts_with("https") {
        true => json!({ "type": "tls", "config": { "ca_certificate_file": weir.ca_file() } }),
        false => json!({ "type": "insecure" }),
    }
}
