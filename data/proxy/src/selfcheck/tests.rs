use std::net::Ipv4Addr;

use weir_config::{Direction, Limits, ListenerProtocol, RouteTable};

use super::*;
use crate::{Options, Snapshot};

fn listener(name: &str, bind: SocketAddr, direction: Direction) -> Listener {
    Listener {
        name: name.into(),
        bind,
        direction,
        protocol: ListenerProtocol::Auto,
        routes: "r".into(),
        bind_to_port: true,
        original_destination: false,
        server_names: Vec::new(),
        tcp_cluster: None,
        limits: Limits::default(),
        access_log: false,
        trace: true,
        tls: None,
        drain_ms: None,
    }
}

fn config(listeners: Vec<Listener>) -> ProxyConfig {
    let table = RouteTable { name: "r".into(), hosts: Vec::new() };
    ProxyConfig { listeners, route_tables: vec![table], ..Default::default() }
}

fn inbound() -> Listener {
    listener("inbound", (Ipv4Addr::LOCALHOST, 0).into(), Direction::Inbound)
}

async fn checked(config: &ProxyConfig, expected: &Expectations) -> SelfCheck {
    let proxy = Proxy::start(Options::default(), Snapshot::empty()).await.unwrap();
    run(&proxy, config, expected).await
}

#[tokio::test]
async fn a_sound_proxy_passes_and_says_what_it_found() {
    let report = checked(&config(vec![inbound()]), &Expectations { has_application: true, ..Default::default() }).await;
    assert!(report.passed, "{}", failures(&report));
    let names: Vec<_> = report.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["config", "listeners", "upstreams", "clock", "descriptors", "memory", "self-request"]);
    assert!(report.checks.iter().all(|check| !check.detail.is_empty()));
    assert!(report.checks[6].micros > 0);
}

#[tokio::test]
async fn a_drill_is_not_noticed() {
    let options = Options { drill: Some(crate::Drill { fail_ratio: 1.0 }), ..Default::default() };
    let proxy = Proxy::start(options, Snapshot::empty()).await.unwrap();
    assert!(run(&proxy, &config(vec![inbound()]), &Expectations::default()).await.passed);
}

#[tokio::test]
async fn nothing_of_the_check_is_left_behind() {
    let proxy = Proxy::start(Options::default(), Snapshot::empty()).await.unwrap();
    run(&proxy, &config(vec![inbound()]), &Expectations::default()).await;
    assert_eq!(proxy.snapshot().config(), &ProxyConfig::default());
    assert_eq!(proxy.local_addr("self-check"), None);
}

#[tokio::test]
async fn every_failure_is_told() {
    // Listening without SO_REUSEPORT keeps the address from others.
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let outbound = listener("outbound|a", taken.local_addr().unwrap(), Direction::Outbound);
    let stock = ("stock".to_owned(), (Ipv4Addr::LOCALHOST, 1).into());
    let expected = Expectations { has_application: true, upstreams: vec![stock], ..Default::default() };
    let report = checked(&config(vec![outbound.clone()]), &expected).await;
    let words = failures(&report);
    assert!(!report.passed);
    assert!(words.contains("config: the control plane has no inbound listener"), "{words}");
    assert!(words.contains("listeners: `outbound|a` cannot listen on 127.0.0.1"), "{words}");
    assert!(words.contains("upstreams: `stock` is to be offered at 127.0.0.1:1"), "{words}");
    // A socket that was handed over need not be bound.
    let inherited = Expectations { inherited: ["outbound|a".to_owned()].into(), ..Default::default() };
    assert!(checked(&config(vec![outbound]), &inherited).await.passed);
}

#[tokio::test]
async fn no_listener_is_no_configuration() {
    let report = checked(&ProxyConfig::default(), &Expectations::default()).await;
    assert!(failures(&report).contains("no listener for this proxy"));
}
