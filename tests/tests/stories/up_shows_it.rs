//! `weir up --demo-exit`: one command makes a mesh, changes it under live traffic without losing a request, finds a bad
//! version on its first batch, undoes it, says so in a report, and leaves nothing running.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weir_testkit::{Process, binary, net};

/// The demo gives up by itself long before.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn a_newcomer_sees_a_lossless_change_and_a_bad_one_undone() {
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let report = data.path().join("report.json");
    let mut command = Command::new(binary("weir"));
    command.args(["up", "--demo-exit", "--replicas", "2", "--rate", "60"]);
    command.args(["--api", &net::free_address().to_string(), "--xds", &net::free_address().to_string()]);
    command.arg("--data").arg(data.path().join("data")).arg("--report").arg(&report);
    // Both stand beside `weir`, where it looks for them.
    let _there = (binary("weir-proxy"), binary("weir-demo"));
    let mut up = Process::spawn("weir up", &mut command);
    let status = up.wait_exit(PATIENCE);
    assert!(status.success(), "{status}: {:#?}", up.output());
    assert_eq!(up.family(), [] as [u32; 0], "nothing is left running");

    let text = fs::read(&report).expect("the report is written");
    let report: Value = serde_json::from_slice(&text).expect("the report is JSON");
    assert_eq!(report["good"]["failed"], 0, "{report:#}");
    assert!(report["good"]["sent"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["bad"]["caught_in_batch"], 1, "{report:#}");
    assert_eq!(report["bad"]["rolled_back"], true, "{report:#}");
    assert!(report["bad"]["harmed"].as_u64() > Some(0), "a drill that harms nobody shows nothing: {report:#}");
}
