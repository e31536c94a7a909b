//! Encryption is switched on, off, to strict and back under load, while certificates are replaced every few seconds, and
//! the control plane is killed in between: no request fails, in HTTP/1 and in HTTP/2.
//!
//! `WEIR_SEEDS` says how many switches, [`SWITCHES`] without it:
//! `WEIR_SEEDS=300 cargo xtask test --story encryption_switches`

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use weir_testkit::{LONG, Process, Weir, eventually, http, net, peers};

use crate::envoy_runs_from_weir::{Envoy, NODE};
use crate::joined::{Caller, join, join_calling};

/// Switches, unless `WEIR_SEEDS` says otherwise.
const SWITCHES: usize = 9;
/// HTTP/1 callers at a time.
const CALLERS: usize = 4;
/// gRPC calls per second at most.
const RATE: &str = "100";
/// The order of modes, over and over: every step up and down, and the leap that must not be one (istio#48290).
const MODES: [&str; 7] = ["permissive", "strict", "permissive", "disabled", "strict", "disabled", "permissive"];

#[test]
fn http1_loses_no_request() {
    let mesh = Mesh::start("http_server.py", "http1");
    let load = Load::http1(mesh.front);
    mesh.switch(number("WEIR_SEEDS", SWITCHES));
    load.has_lost_nothing();
}

#[test]
fn http2_loses_no_request() {
    let mesh = Mesh::start("grpc_server.py", "grpc");
    let load = Load::http2(mesh.front);
    mesh.switch(number("WEIR_SEEDS", SWITCHES));
    load.has_lost_nothing();
}

#[test]
fn a_control_plane_killed_in_between_costs_nothing() {
    let mut mesh = Mesh::start("http_server.py", "http1");
    let load = Load::http1(mesh.front);
    for mode in ["strict", "disabled", "permissive"] {
        mesh.want(mode);
        mesh.weir.kill();
        mesh.weir.start_again();
        mesh.is(mode);
        mesh.certificates_are_in_use();
    }
    load.has_lost_nothing();
}

#[test]
fn servers_and_callers_that_come_and_go_find_a_strict_app() {
    let mesh = Mesh::start("http_server.py", "http1");
    mesh.want("strict");
    mesh.is("strict");
    let load = Load::http1(mesh.front);
    let third = join(&mesh.weir, "stock", "stock-c", "http_server.py");
    let mut caller = Caller::new("stock", mesh.front);
    caller.until_answered_by("stock-c");
    let later = net::free_address();
    let _front = join_calling(&mesh.weir, "front", "front-2", "http_server.py", &[("stock", later)]);
    Caller::new("stock", later).until_answered_by("stock-c");
    third.terminate();
    caller.until_answered_by("stock-a");
    load.has_lost_nothing();
}

#[test]
fn a_caller_that_cannot_do_tls_holds_strict_up_and_loses_nothing() {
    let mesh = Mesh::start("http_server.py", "http1");
    let envoy = Envoy::start(&mesh.weir, "DELTA_GRPC");
    let loads = [Load::http1(mesh.front), Load::http1(envoy.stock)];
    mesh.want("strict");
    mesh.is("permissive");
    eventually("who is in the way is named", LONG, || {
        let told = mesh.weir.ok(&["explain", "encryption/stock"]);
        if told.contains(&format!("{NODE}: its proxy can't do TLS")) { Ok(()) } else { Err(told) }
    });
    Caller::new("stock", envoy.stock).until_answered_by("stock-a");
    loads.into_iter().for_each(Load::has_lost_nothing);
    drop(envoy);
    mesh.is("strict");
}

#[test]
fn strict_refuses_plaintext_and_says_who_speaks_what() {
    let mesh = Mesh::start("http_server.py", "http1");
    let mut caller = Caller::new("stock", mesh.front);
    caller.until_answered_by("stock-a");
    let inbound = mesh.inbound("stock-a");
    let plain = || http::send(inbound, "GET", "/", &[("Host", "stock")], b"");
    assert_eq!(plain().expect("plaintext is taken").text(), "stock-a");
    mesh.want("strict");
    mesh.is("strict");
    eventually("plaintext is refused", LONG, || match plain() {
        Err(_) => Ok(()),
        Ok(answer) => Err(format!("{answer:?}")),
    });
    caller.until_answered_by("stock-a");
    eventually("it is told who speaks TLS to whom", LONG, || {
        let told = mesh.weir.ok(&["describe", "encryption/stock"]);
        let all = ["effectiveMode: strict", "front-1 to spiffe://weir/app/stock/unit/default"];
        if all.iter().all(|part| told.contains(part)) { Ok(()) } else { Err(told) }
    });
    let refused = mesh.weir.cli(&["delete", "encryption/stock"]);
    assert!(refused.code != 0 && refused.stderr.contains("mode: disabled"), "{refused:?}");
    assert!(mesh.weir.ok(&["check", "--only", "certificates"]).contains('√'));
}

#[test]
fn no_private_key_is_in_any_file() {
    let mesh = Mesh::start("http_server.py", "http1");
    mesh.want("strict");
    mesh.is("strict");
    let mut files = vec![mesh.weir.data().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("readable");
            let marks: [&[u8]; 2] = [b"PRIVATE KEY", PKCS8_P256];
            let found = marks.iter().any(|mark| bytes.windows(mark.len()).any(|window| window == *mark));
            assert!(!found, "{} holds a private key", path.display());
        }
    }
}

/// How a P-256 key in PKCS #8 begins, in DER (RFC 5958, RFC 5480).
const PKCS8_P256: &[u8] = &[
    0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d,
];

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `front` calls `stock`, of which there are two.
struct Mesh {
    weir: Weir,
    front: SocketAddr,
    _programs: Vec<Process>,
}

impl Mesh {
    /// Certificates live for so short a time that they are replaced all the while.
    fn start(script: &str, protocol: &str) -> Mesh {
        let weir = Weir::start_with(&["--cert-ttl", "40s"]);
        weir.apply(&format!(
            "apiVersion: weir.dev/v1\nkind: App\nmetadata: {{name: stock}}\nspec: {{protocol: {protocol}}}\n"
        ));
        let front = net::free_address();
        let mut programs: Vec<Process> =
            ["stock-a", "stock-b"].iter().map(|name| join(&weir, "stock", name, script)).collect();
        programs.push(join_calling(&weir, "front", "front-1", "http_server.py", &[("stock", front)]));
        let mesh = Mesh { weir, front, _programs: programs };
        mesh.certificates_are_in_use();
        mesh
    }

    fn certificates_are_in_use(&self) {
        eventually("every proxy has a certificate in use", LONG, || {
            let shown: Value = serde_json::from_str(&self.weir.ok(&["get", "instances", "-o", "json"])).expect("JSON");
            let items = shown["items"].as_array().ok_or("no items")?;
            let ready = |i: &&Value| i["status"]["tls"]["ready"] == true && i["status"]["phase"] == "Serving";
            let count = items.iter().filter(ready).count();
            if count >= 3 { Ok(()) } else { Err(format!("{count} of 3: {shown}")) }
        });
    }

    fn want(&self, mode: &str) {
        self.weir.apply(&format!(
            "apiVersion: weir.dev/v1\nkind: Encryption\nmetadata: {{name: stock}}\nspec: {{app: stock, mode: {mode}}}\n"
        ));
    }

    /// Waits until it is so.
    fn is(&self, mode: &str) {
        eventually(&format!("calls are {mode}"), LONG, || {
            let shown = self.weir.ok(&["get", "encryption", "stock", "-o", "json"]);
            let shown: Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
            if shown["status"]["effectiveMode"] == mode { Ok(()) } else { Err(shown["status"].to_string()) }
        });
    }

    fn switch(&self, times: usize) {
        for mode in MODES.iter().cycle().take(times) {
            self.want(mode);
            self.is(mode);
        }
    }

    fn inbound(&self, name: &str) -> SocketAddr {
        let shown = self.weir.ok(&["get", "instance", name, "-o", "json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let (ip, port) = (&shown["spec"]["address"], &shown["spec"]["port"]);
        format!("{}:{port}", ip.as_str().expect("an address")).parse().expect("an address")
    }
}

/// Callers that ask one request after the other, from the first answer on. They wait for each answer, so that a slow
/// machine makes for fewer requests and not for a queue.
enum Load {
    Http1 { stop: Arc<AtomicBool>, callers: Vec<JoinHandle<Counts>> },
    Http2(Process),
}

#[derive(Debug, Default)]
struct Counts {
    ok: u64,
    failures: Vec<String>,
}

impl Load {
    fn http1(to: SocketAddr) -> Load {
        Caller::new("stock", to).until_answered_by("stock-b");
        let stop = Arc::new(AtomicBool::new(false));
        let call = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask_until(&stop, to))
        };
        let callers = (0..CALLERS).map(call).collect();
        Load::Http1 { stop, callers }
    }

    fn http2(to: SocketAddr) -> Load {
        let mut process = Process::spawn("gRPC load", peer("grpc_load.py").args([&to.to_string(), RATE]));
        process.wait_line("calling");
        Load::Http2(process)
    }

    fn has_lost_nothing(self) {
        let counts = match self {
            Load::Http1 { stop, callers } => {
                stop.store(true, Ordering::Relaxed);
                let counts = callers.into_iter().map(|caller| caller.join().expect("a caller counts"));
                counts.fold(Counts::default(), |mut sum, each| {
                    sum.ok += each.ok;
                    sum.failures.extend(each.failures);
                    sum
                })
            }
            Load::Http2(process) => told_by(process),
        };
        assert!(counts.failures.is_empty() && counts.ok > 20, "{counts:?}");
        println!("{} requests, none failed", counts.ok);
    }
}

fn ask_until(stop: &AtomicBool, to: SocketAddr) -> Counts {
    let mut counts = Counts::default();
    while !stop.load(Ordering::Relaxed) {
        match http::send(to, "GET", "/", &[("Host", "stock")], b"") {
            Ok(answer) if answer.status == 200 => counts.ok += 1,
            other => counts.failures.push(format!("{other:?}")),
        }
    }
    counts
}

fn told_by(mut process: Process) -> Counts {
    process.terminate();
    process.wait_exit(LONG);
    let last = process.output().into_iter().rfind(|line| line.contains("\"ok\"")).expect("it tells its counts");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    let failures = last["reasons"].as_object().into_iter().flatten().map(|(why, count)| format!("{count} {why}"));
    Counts { ok: last["ok"].as_u64().expect("a count"), failures: failures.collect() }
}

fn peer(script: &str) -> Command {
    let mut command = Command::new(peers::python());
    command.arg(peers::script(script));
    command
}
