//! A check of one's own asks a real Prometheus, which scrapes a shop on loopback: a change waits for the shop to be well
//! and goes on by itself; a batch after which the shop is unwell is taken back. And the rules that Weir writes for
//! Prometheus are rules to Prometheus.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weir_testkit::peers::program;
use weir_testkit::{Process, TempDir, Weir, eventually, net};

use crate::mesh::{self, Load, edge, get, list, release, resource, text};

/// A change takes seconds, and waits for scrapes.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_change_asks_a_real_prometheus() {
    let shop = Shop::open();
    let prometheus = Prometheus::start(shop.address);
    let weir = mesh::start(&["A", "B"].map(|version| release(version, json!([]))));
    let mut load = Load::start(&weir, edge(&weir));
    let failed_before = load.settled_failures();
    shop.is_well(false);
    prometheus.sees(1.0);
    weir.apply(&check("till", &["Batch"], &prometheus).to_string());

    weir.apply(&change("to-b", "B").to_string());
    reaches(&weir, "to-b", "Blocked");
    let status = weir.ok(&["change", "status", "to-b"]);
    assert!(status.contains("U-TILL Fail: the tills work: 1 is not < 0.5"), "{status}");
    assert!(weir.ok(&["explain", "change/to-b"]).contains("skip-check to-b CHECK"), "it says what to do");
    assert!(list(&weir, "instances").iter().all(|i| i["spec"]["proxyVersion"] == "A"), "nothing has changed");
    shop.is_well(true);
    reaches(&weir, "to-b", "Succeeded");
    assert_eq!(load.settled_failures() - failed_before, 0, "{:?}", load.lines().last());

    weir.ok(&["delete", "check/till"]);
    weir.apply(&check("stock", &["After"], &prometheus).to_string());
    weir.apply(&change("to-a", "A").to_string());
    shop.is_well(false);
    reaches(&weir, "to-a", "RolledBack");
    let report = weir.ok(&["change", "report", "to-a"]);
    assert!(report.contains("U-STOCK Fail: the tills work: 1 is not < 0.5"), "{report}");
    assert!(list(&weir, "instances").iter().all(|i| i["spec"]["proxyVersion"] == "B"), "it is taken back");
    assert_eq!(load.settled_failures() - failed_before, 0, "{:?}", load.lines().last());
}

#[test]
fn prometheus_takes_the_rules_of_objectives() {
    let weir = Weir::start_with(&["--no-instances"]);
    let slo = |name: &str, more: Value| {
        let mut spec = json!({"app": "stock", "objectivePercent": 99.9});
        spec["indicator"] = more;
        resource("Slo", name, spec)
    };
    weir.apply(&slo("stock-errors", json!("errors")).to_string());
    weir.apply(&slo("stock-latency", json!({"latency": {"thresholdUs": 250_000}})).to_string());
    let file = weir.data().join("rules.yaml");
    fs::write(&file, weir.ok(&["slo", "rules"])).expect("the data folder can be written");
    let mut promtool = Command::new(program("promtool", "prometheus"));
    let checked = promtool.args(["check", "rules"]).arg(&file).output().expect("promtool starts");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    // Of each objective: a ratio for each of 8 windows, what is left, and 4 alerts.
    assert!(checked.status.success() && said.contains("SUCCESS: 26 rules found"), "{said}");
    let missing = weir.cli(&["slo", "rules", "nobody"]);
    assert!(missing.code == 1 && missing.stderr.contains("there is no slo/nobody"), "{missing:?}");
    let unreadable = resource("Check", "typo", json!({"meaning": "m", "ask": {"cel": "change.name =="}}));
    fs::write(&file, unreadable.to_string()).expect("the data folder can be written");
    let refused = weir.cli(&["apply", "-f", &file.to_string_lossy()]);
    assert!(refused.code == 1 && refused.stderr.contains("spec.ask.cel"), "{refused:?}");
    let table = weir.ok(&["get", "slos"]);
    assert!(table.contains("stock-errors") && table.contains("99.9 %"), "{table}");
}

fn check(name: &str, at: &[&str], prometheus: &Prometheus) -> Value {
    let server = format!("http://{}", prometheus.address);
    let promql = json!({"server": server, "query": "max(shop_failing)", "op": "<", "value": 0.5});
    let ask = json!({"promql": promql});
    let spec = json!({"meaning": "the tills work", "at": at, "ask": ask, "intervalSeconds": 1, "timeoutSeconds": 20});
    resource("Check", name, spec)
}

fn change(name: &str, target: &str) -> Value {
    let rung = |percent: u32| json!({"percent": percent, "bakeSeconds": 5, "minRequests": 20});
    let spec = json!({
        "action": {"proxyUpgrade": {"version": target}},
        "ladder": [rung(0), rung(50), rung(100)],
        "judge": {"patienceSeconds": 120},
    });
    resource("Change", name, spec)
}

fn reaches(weir: &Weir, name: &str, phase: &str) {
    eventually(&format!("{name} is {phase}"), PATIENCE, || {
        let status = get(weir, &format!("changes/{name}"))["status"].clone();
        if status["phase"] == phase {
            Ok(())
        } else {
            Err(format!("{}: {}", text(&status["phase"]), status["message"]))
        }
    });
}

/// An exporter of one number.
struct Shop {
    address: SocketAddr,
    failing: Arc<AtomicBool>,
}

impl Shop {
    /// Serves until the test ends.
    fn open() -> Shop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let failing = Arc::new(AtomicBool::new(false));
        let shop = Shop { address, failing: failing.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let value = u8::from(failing.load(Ordering::SeqCst));
                // A scraper that hangs up in between asks again.
                let _either = answer(stream, &format!("# TYPE shop_failing gauge\nshop_failing {value}\n"));
            }
        });
        shop
    }

    fn is_well(&self, well: bool) {
        self.failing.store(!well, Ordering::SeqCst);
    }
}

fn answer(mut stream: std::net::TcpStream, body: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < 16_384 {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}")
}

/// The real one, which scrapes the shop each second.
struct Prometheus {
    _process: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Prometheus {
    fn start(shop: SocketAddr) -> Prometheus {
        let (folder, address) = (TempDir::new().expect("a temporary folder can be made"), net::free_address());
        let config = json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [shop.to_string()]}]}],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("it can be written");
        let mut command = Command::new(program("prometheus", "prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn("prometheus", &mut command);
        process.wait_http(address, "/-/ready");
        Prometheus { _process: process, _folder: folder, address }
    }

    fn sees(&self, value: f64) {
        eventually("Prometheus has scraped the shop", PATIENCE, || {
            let answer = weir_testkit::http::get(self.address, "/api/v1/query?query=shop_failing");
            let answer = answer.map_err(|e| e.to_string())?.json();
            let seen = answer.pointer("/data/result/0/value/1").and_then(Value::as_str).map(str::to_owned);
            if seen.as_deref() == Some(&value.to_string()) { Ok(()) } else { Err(answer.to_string()) }
        });
    }
}
