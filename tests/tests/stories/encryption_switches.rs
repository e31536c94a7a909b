//! Encryption is switched on, off, to strict and back under load, while certificates are replaced every few seconds, while
//! half a fleet can't do TLS, and while the control plane is killed in between: no request fails, in HTTP/1, gRPC, SOFABolt
//! and Dubbo.
//!
//! `WEIR_SEEDS` says how many switches, [`SWITCHES`] without it:
//! `WEIR_SEEDS=300 cargo xtask test --story encryption_switches`

use weir_testkit::{LONG, Process, eventually, http, net};

use crate::encrypted::{self, Load, Mesh, Protocol};
use crate::envoy_runs_from_weir::{Envoy, NODE};
use crate::joined::{Caller, join, join_calling, join_without_tls};

/// Switches, unless `WEIR_SEEDS` says otherwise.
const SWITCHES: usize = 9;

#[test]
fn http1_loses_no_request() {
    loses_no_request(Protocol::Http1);
}

#[test]
fn http2_loses_no_request() {
    loses_no_request(Protocol::Grpc);
}

#[test]
fn bolt_loses_no_request() {
    loses_no_request(Protocol::Bolt);
}

#[test]
fn dubbo_loses_no_request() {
    loses_no_request(Protocol::Dubbo);
}

fn loses_no_request(protocol: Protocol) {
    let mesh = Mesh::start(protocol);
    let load = mesh.load(&["stock-a", "stock-b"]);
    mesh.switch(number("WEIR_SEEDS", SWITCHES));
    mesh.waver();
    load.has_lost_nothing();
}

#[test]
fn half_a_fleet_without_tls_costs_no_http1_request() {
    half_a_fleet_without_tls(Protocol::Http1);
}

#[test]
fn half_a_fleet_without_tls_costs_no_bolt_call() {
    half_a_fleet_without_tls(Protocol::Bolt);
}

#[test]
fn half_a_fleet_without_tls_costs_no_dubbo_call() {
    half_a_fleet_without_tls(Protocol::Dubbo);
}

/// `stock-b` is of old: it holds strict up, but not permissive, in which it is called in plaintext. Then a new one takes its
/// place.
fn half_a_fleet_without_tls(protocol: Protocol) {
    let mut mesh = Mesh::without_programs(protocol);
    let old = join_without_tls(&mesh.weir, "stock", "stock-b", protocol.server(), &[]);
    mesh.programs = vec![mesh.join("stock-a"), mesh.join_front()];
    mesh.certificates_are_in_use(2);
    let load = mesh.load(&["stock-a", "stock-b"]);
    for mode in ["permissive", "disabled", "permissive", "disabled"] {
        mesh.want(mode);
        mesh.is(mode);
    }
    mesh.want("strict");
    eventually("who is in the way is named", LONG, || {
        let told = mesh.weir.ok(&["explain", "encryption/stock"]);
        let all = ["Calls of stock are permissive; wanted is strict", "stock-b: its proxy can't do TLS"];
        if all.iter().all(|part| told.contains(part)) { Ok(()) } else { Err(told) }
    });
    speaks(&mesh, |plain, tls| plain > 0 && tls > 0);
    mesh.programs.push(mesh.join("stock-c"));
    old.terminate();
    mesh.is("strict");
    speaks(&mesh, |plain, tls| plain == 0 && tls > 0);
    load.has_lost_nothing();
}

/// `front`'s connections to `stock` as `weir explain` tells them: in plaintext, and TLS.
fn speaks(mesh: &Mesh, so: impl Fn(u32, u32) -> bool) {
    eventually("front speaks as it should", LONG, || {
        let told = mesh.weir.ok(&["explain", "encryption/stock"]);
        let rows = told.lines().filter_map(|line| line.trim().strip_prefix("front-1 to ")?.rsplit_once(": "));
        let sum = |what: &str| rows.clone().map(|(_, counts)| counted(counts, what)).sum();
        if so(sum(" plaintext"), sum(" TLS")) { Ok(()) } else { Err(told.clone()) }
    });
}

/// The number before `what` in `3 TLS, 0 plaintext`.
fn counted(counts: &str, what: &str) -> u32 {
    counts.split(", ").find_map(|part| part.strip_suffix(what)?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_control_plane_killed_in_between_costs_nothing() {
    let mut mesh = Mesh::start(Protocol::Http1);
    let load = mesh.load(&["stock-a", "stock-b"]);
    for mode in ["strict", "disabled", "permissive"] {
        mesh.want(mode);
        mesh.weir.kill();
        mesh.weir.start_again();
        mesh.is(mode);
        mesh.certificates_are_in_use(3);
    }
    load.has_lost_nothing();
}

#[test]
fn servers_and_callers_that_come_and_go_find_a_strict_app() {
    let mesh = Mesh::start(Protocol::Http1);
    mesh.want("strict");
    mesh.is("strict");
    let load = mesh.load(&["stock-a", "stock-b"]);
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
    let mesh = Mesh::start(Protocol::Http1);
    let envoy = Envoy::start(&mesh.weir, "DELTA_GRPC");
    let loads = [mesh.front, envoy.stock].map(|to| Load::http1(to, &["stock-b"]));
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
    let mesh = Mesh::start(Protocol::Http1);
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
fn an_interface_is_strict_by_itself() {
    let mesh = Mesh::start(Protocol::Http1);
    let inbound = mesh.inbound("stock-a");
    let plain =
        |path: &str| http::send(inbound, "GET", path, &[("Host", "stock")], b"").map(|answer| answer.status).ok();
    let load = mesh.load(&["stock-a", "stock-b"]);
    mesh.switch_interfaces("permissive", &[("/pay", "strict")]);
    let taken = |paths: [&str; 3]| paths.map(plain);
    becomes(|| taken(["/", "/pay", "/pay/again?x"]), [Some(200), Some(403), Some(403)]);
    mesh.switch_interfaces("strict", &[("/pay/health", "permissive")]);
    becomes(|| taken(["/", "/pay", "/pay/health"]), [Some(403), Some(403), Some(200)]);
    mesh.switch_interfaces("strict", &[("/pay", "permissive"), ("/pay/back", "strict")]);
    becomes(|| taken(["/", "/pay", "/pay/back"]), [Some(403), Some(200), Some(403)]);
    mesh.want("disabled");
    mesh.is("disabled");
    assert_eq!(taken(["/", "/pay", "/pay/back"]), [Some(200); 3]);
    mesh.want("strict");
    mesh.is("strict");
    becomes(|| taken(["/", "/pay", "/pay/back"]), [None; 3]);
    load.has_lost_nothing();
}

#[test]
fn a_bolt_method_is_strict_by_itself() {
    a_method_is_strict_by_itself(Protocol::Bolt);
}

#[test]
fn a_dubbo_method_is_strict_by_itself() {
    a_method_is_strict_by_itself(Protocol::Dubbo);
}

fn a_method_is_strict_by_itself(protocol: Protocol) {
    let mesh = Mesh::start(protocol);
    let load = mesh.load(&["stock-a", "stock-b"]);
    let service = if protocol == Protocol::Bolt { "/com.example.Service:1.0" } else { "/com.example.Service" };
    mesh.switch_interfaces("permissive", &[(&format!("{service}/name"), "strict")]);
    let inbound = mesh.inbound("stock-a").to_string();
    eventually("that method alone is refused in plaintext", LONG, || {
        let mut client = Process::spawn("plain", encrypted::rpc().args(["call", protocol.name(), &inbound, "denied"]));
        if client.wait_exit(LONG).success() { Ok(()) } else { Err(format!("{:?}", client.output())) }
    });
    mesh.want("disabled");
    mesh.is("disabled");
    load.has_lost_nothing();
}

fn becomes(mut look: impl FnMut() -> [Option<u16>; 3], wanted: [Option<u16>; 3]) {
    eventually(&format!("plaintext is answered {wanted:?}"), LONG, || {
        let seen = look();
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
