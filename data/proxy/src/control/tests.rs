use std::net::{Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::cluster::v3::cluster::DiscoveryType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::google::protobuf::Any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir_client::fixtures::{
    ControlPeer, DeltaPeer, FakeControlPlane, assignment, cluster_at, eds_cluster, listener, listener_with, manager,
    pack_any, routes, soon,
};
use weir_proto::control::command::Command as CommandKind;
use weir_proto::control::{Command, Unpublished};

use super::*;
use crate::{Drill, Options, Snapshot};

/// An application that answers every request with its name.
async fn application(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, name));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, name: &'static str) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        if bytes.ends_with(b"\r\n\r\n") {
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            let _ = stream.write_all(text.as_bytes()).await;
            bytes.clear();
        }
    }
}

/// The body of an answer, or what went wrong.
async fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("the answer", stream.read_to_string(&mut text)).await.unwrap();
    text.rsplit("\r\n").next().unwrap().to_owned()
}

/// A proxy under a scripted control plane.
struct Running {
    control: FakeControlPlane,
    proxy: Proxy,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<DrainReport, ControlError>>,
}

fn flags(address: &str) -> ControlFlags {
    use clap::Parser;
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        control: ControlFlags,
    }
    let line = ["weir-proxy", "--control", address, "--instance", "order-1", "--app", "order", "--token-env", "NONE"];
    Line::try_parse_from(line).unwrap().control
}

impl Running {
    async fn start(options: Options) -> Self {
        let control = FakeControlPlane::start().await;
        let proxy = Proxy::start(options, Snapshot::empty()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopping = async move { drop(stopped.await) };
        let task = tokio::spawn(run(proxy.clone(), flags(&control.address), HashSet::new(), stopping));
        Running { control, proxy, stop, task }
    }

    fn address(&self) -> SocketAddr {
        self.proxy.local_addr("l").expect("the listener is open")
    }
}

/// Tells of listener `l`, which sends everything to cluster `a` at an address.
async fn configure(peer: &DeltaPeer, target: SocketAddr) {
    peer.tell("c1", &[pack_any(eds_cluster("a"))], &[]).await;
    peer.tell("e1", &[pack_any(assignment("a", &[(&target.ip().to_string(), target.port())]))], &[]).await;
    peer.tell("l1", &[pack_any(listener("l", 0, "r"))], &[]).await;
    peer.tell("r1", &[pack_any(routes("r", "a"))], &[]).await;
}

/// Runs until the proxy serves and has said hello.
async fn serving(running: &mut Running, target: SocketAddr) -> (DeltaPeer, ControlPeer, Hello) {
    let mut peer = running.control.delta().await;
    configure(&peer, target).await;
    peer.answer_to("r1").await;
    let mut control = running.control.control().await;
    let hello = control.hello().await;
    control.welcome().await;
    (peer, control, hello)
}

#[tokio::test]
async fn it_checks_itself_then_serves_then_registers() {
    let mut running = Running::start(Options { release: "7".into(), ..Default::default() }).await;
    assert!(!running.proxy.readiness().is_ready());
    let target = application("first").await;
    let (_peer, mut control, hello) = serving(&mut running, target).await;
    assert!(running.proxy.readiness().is_ready());
    let check = hello.self_check.unwrap();
    assert!(check.passed && check.checks.len() == 7);
    assert_eq!(
        (hello.instance.as_str(), hello.proxy_version.as_str(), hello.pid),
        ("order-1", "7", std::process::id())
    );
    assert_eq!(get(running.address()).await, "first");
    let mut requests = 0;
    while requests == 0 {
        let health = control.health().await;
        assert!(health.rss_bytes > 0 && health.duration_ms > 0);
        requests += health.outbound.unwrap().requests;
    }
    // The request of the self-check is not counted.
    assert_eq!(requests, 1);
}

/// As a later version might send it: with fields that this one does not know, a number and a message.
fn newer(mut resource: Any) -> Any {
    resource.value.extend([0xf8, 0xf0, 0x04, 0x01]);
    resource.value.extend([0xf2, 0xf0, 0x04, 0x03, b'n', b'e', b'w']);
    resource
}

/// The control plane is upgraded before the proxies are, so each proxy is started by a later version sometime.
#[tokio::test]
async fn it_starts_on_what_a_newer_control_plane_sends() {
    let mut running = Running::start(Options::default()).await;
    let (target, mut peer) = (application("first").await, running.control.delta().await);
    let unknown = Any { type_url: "type.googleapis.com/weir.dev.v2.Newer".into(), value: vec![8, 1] };
    let mut http = manager("r");
    let filter = HttpFilter { name: "weir.newer".into(), is_optional: true, ..Default::default() };
    http.http_filters.insert(0, HttpFilter { config_type: Some(ConfigType::TypedConfig(unknown)), ..filter });
    let endpoints = assignment("a", &[(&target.ip().to_string(), target.port())]);
    let resources = [
        ("c1", pack_any(eds_cluster("a"))),
        ("e1", pack_any(endpoints)),
        ("l1", pack_any(listener_with("l", 0, newer(pack_any(http))))),
        ("r1", pack_any(routes("r", "a"))),
    ];
    for (nonce, resource) in resources {
        peer.tell(nonce, &[newer(resource)], &[]).await;
    }
    for nonce in ["c1", "e1", "l1", "r1"] {
        assert!(peer.answer_to(nonce).await.error_detail.is_none(), "{nonce}");
    }
    let mut control = running.control.control().await;
    control.hello().await;
    control.send(Command { command: None }).await;
    control.welcome().await;
    assert_eq!(get(running.address()).await, "first");
}

#[tokio::test]
async fn an_acknowledged_endpoint_change_is_in_force() {
    let mut running = Running::start(Options::default()).await;
    let (mut peer, _control, _) = serving(&mut running, application("first").await).await;
    let second = application("second").await;
    for (nonce, target, name) in [("e2", second, "second"), ("e3", application("third").await, "third")] {
        peer.tell(nonce, &[pack_any(assignment("a", &[(&target.ip().to_string(), target.port())]))], &[]).await;
        assert!(peer.answer_to(nonce).await.error_detail.is_none());
        assert_eq!(get(running.address()).await, name);
    }
}

#[tokio::test]
async fn traffic_goes_on_without_the_control_plane() {
    let mut running = Running::start(Options::default()).await;
    let (peer, control, _) = serving(&mut running, application("first").await).await;
    drop((peer, control));
    assert_eq!(get(running.address()).await, "first");
    let mut peer = running.control.delta().await;
    assert_eq!(peer.subscription(weir_client::fixtures::ENDPOINTS).await.initial_resource_versions.len(), 1);
    let mut control = running.control.control().await;
    assert!(control.hello().await.self_check.unwrap().passed);
    assert_eq!(get(running.address()).await, "first");
    assert!(running.proxy.readiness().is_ready());
}

#[tokio::test]
async fn a_refused_configuration_is_told_and_changes_nothing() {
    let mut running = Running::start(Options::default()).await;
    let (mut peer, mut control, _) = serving(&mut running, application("first").await).await;
    let mut broken = routes("r", "a");
    broken.virtual_hosts[0].domains = vec!["a*b".into()];
    peer.tell("r2", &[pack_any(broken)], &[]).await;
    let words = peer.answer_to("r2").await.error_detail.unwrap().message;
    assert!(words.starts_with("routes `r`: ") && words.contains("a*b"), "{words}");
    assert_eq!(get(running.address()).await, "first");
    let mut faults = 0;
    while faults == 0 {
        faults = control.health().await.faults.get("config_rejected").copied().unwrap_or_default();
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_and_the_rest_serves() {
    let mut running = Running::start(Options::default()).await;
    let (mut peer, _control, _) = serving(&mut running, application("first").await).await;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let fixed = cluster_at("b", DiscoveryType::Static, "127.0.0.1", 9);
    peer.tell("c2", &[pack_any(fixed)], &[]).await;
    peer.tell("l2", &[pack_any(listener("m", port, "r"))], &[]).await;
    let words = peer.answer_to("l2").await.error_detail.unwrap().message;
    assert!(words.contains("listener m: cannot listen on"), "{words}");
    assert_eq!(get(running.address()).await, "first");
    assert!(running.proxy.snapshot().config().clusters.iter().any(|cluster| cluster.name == "b"));
}

#[tokio::test]
async fn a_failed_self_check_is_told_and_takes_no_traffic() {
    let running = Running::start(Options::default()).await;
    let mut running = running;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut peer = running.control.delta().await;
    let cluster = cluster_at("a", DiscoveryType::Static, "127.0.0.1", 9);
    peer.tell("c1", &[pack_any(cluster)], &[]).await;
    peer.tell("l1", &[pack_any(listener("l", port, "r"))], &[]).await;
    peer.tell("r1", &[pack_any(routes("r", "a"))], &[]).await;
    peer.answer_to("r1").await;
    let mut control = running.control.control().await;
    let check = control.hello().await.self_check.unwrap();
    assert!(!check.passed && selfcheck::failures(&check).starts_with("listeners: `l` cannot listen on"));
    assert!(matches!(running.proxy.readiness(), Readiness::Failed(words) if words.contains("`l`")));
    assert_eq!(running.proxy.local_addr("l"), None);
    // Once the address is free the checks pass by themselves, and another hello says so.
    drop(taken);
    let hello = running.control.control().await.hello().await;
    assert!(hello.self_check.unwrap().passed);
    assert!(running.proxy.readiness().is_ready());
}

#[tokio::test]
async fn leaving_waits_until_callers_know_and_then_drains() {
    let mut running = Running::start(Options { drill: Some(Drill { fail_ratio: 0.0 }), ..Default::default() }).await;
    let (_peer, mut control, hello) = serving(&mut running, application("first").await).await;
    assert_eq!(hello.drill, "fail-ratio=0");
    let address = running.address();
    running.stop.send(()).unwrap();
    assert_eq!(control.goodbye().await, "stopping");
    // It serves as before until callers know.
    assert_eq!(get(address).await, "first");
    assert!(running.proxy.readiness().is_ready());
    control.say(CommandKind::Unpublished(Unpublished::default())).await;
    let report = soon("the end", running.task).await.unwrap().unwrap();
    assert_eq!(report.cut, 0);
    assert_eq!(running.proxy.readiness(), Readiness::Draining);
}

#[tokio::test]
async fn asked_by_its_admin_endpoint_it_says_goodbye_too_and_stays() {
    let mut running = Running::start(Options::default()).await;
    let (_peer, mut control, _) = serving(&mut running, application("first").await).await;
    let admin = crate::admin::serve(running.proxy.clone(), (Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"POST /drain HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(control.goodbye().await, "stopping");
    assert_eq!(get(running.address()).await, "first");
    control.say(CommandKind::Unpublished(Unpublished::default())).await;
    while running.proxy.readiness() != Readiness::Draining {
        tokio::task::yield_now().await;
    }
    control.ended().await;
    assert!(!running.task.is_finished(), "the process stays until it is stopped");
    running.stop.send(()).unwrap();
    soon("the end", running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_proxy_that_never_served_stops_at_once() {
    let mut running = Running::start(Options::default()).await;
    let _peer = running.control.delta().await;
    running.stop.send(()).unwrap();
    soon("the end", running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_incomplete_identity_is_refused() {
    let proxy = Proxy::start(Options::default(), Snapshot::empty()).await.unwrap();
    let incomplete = ControlFlags { app: None, ..flags("http://127.0.0.1:1") };
    let result = run(proxy, incomplete, HashSet::new(), async {}).await;
    assert!(matches!(result, Err(ControlError::Incomplete)));
}

/// A later control plane says more than this version knows: fields, a filter it may go without, a resource type, a
/// command.
#[tokio::test]
async fn a_later_control_plane_is_served_from() {
    let mut running = Running::start(Options::default()).await;
    let target = application("first").await;
    let mut peer = running.control.delta().await;
    peer.tell("c1", &[later(pack_any(eds_cluster("a")))], &[]).await;
    let endpoints = assignment("a", &[(&target.ip().to_string(), target.port())]);
    peer.tell("e1", &[later(pack_any(endpoints))], &[]).await;
    let mut manager = manager("r");
    let config = Any { type_url: "type.googleapis.com/weir.next.Filter".into(), value: vec![1] };
    let filter = HttpFilter {
        name: "next".into(),
        is_optional: true,
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Default::default()
    };
    manager.http_filters.insert(0, filter);
    peer.tell("l1", &[later(pack_any(listener_with("l", 0, later(pack_any(manager)))))], &[]).await;
    peer.tell("x1", &[Any { type_url: "type.googleapis.com/weir.next.Thing".into(), value: vec![1] }], &[]).await;
    peer.tell("r1", &[later(pack_any(routes("r", "a")))], &[]).await;
    assert!(peer.answer_to("r1").await.error_detail.is_none());
    let mut control = running.control.control().await;
    assert!(control.hello().await.self_check.unwrap().passed);
    control.send(Command { command: None }).await;
    control.welcome().await;
    assert_eq!(get(running.address()).await, "first");
}

/// Adds a field that this version does not know: number 15000, three bytes.
fn later(mut any: Any) -> Any {
    any.value.extend([0xc2, 0xa9, 0x07, 3, 1, 2, 3]);
    any
}
