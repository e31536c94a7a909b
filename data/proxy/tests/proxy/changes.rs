//! Changes while traffic flows: nothing is lost.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use weir_proxy::{DrainOptions, InheritedSockets, Options};

use crate::peers::{GET, Peer, Running, Setup, Upstream, nobody, ok, soon};

/// Callers that never stop asking, and open a new connection when told to.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(address: SocketAddr, callers: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers = (0..callers).map(|_| tokio::spawn(ask_on(address, stop.clone(), answered.clone()))).collect();
        Load { stop, answered, callers }
    }

    async fn answered(&self, more: usize) {
        let target = self.answered.load(Ordering::SeqCst) + more;
        let enough = async {
            while self.answered.load(Ordering::SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(enough).await;
    }

    /// Requests that failed.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = 0;
        for caller in self.callers {
            failed += soon(caller).await.unwrap();
        }
        failed
    }
}

async fn ask_on(address: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> usize {
    let mut failed = 0;
    let mut connection: Option<Peer> = None;
    while !stop.load(Ordering::SeqCst) {
        let mut peer = match connection.take() {
            Some(peer) => peer,
            None => Peer::connect(address).await,
        };
        peer.send(GET).await;
        match peer.message().await {
            Some(answer) if answer.status() == 200 => {
                answered.fetch_add(1, Ordering::SeqCst);
                if answer.field("connection") != Some("close") {
                    connection = Some(peer);
                }
            }
            _ => failed += 1,
        }
    }
    failed
}

#[tokio::test]
async fn endpoints_change_under_load() {
    let upstreams = [Upstream::saying("a").await, Upstream::saying("b").await, Upstream::saying("c").await];
    let [a, b, c] = upstreams.each_ref().map(|upstream| upstream.address);
    let setup = Setup::new();
    let running = setup.start(&[a, b]).await;
    let load = Load::start(running.address, 8);
    for endpoints in [vec![b, c], vec![c], vec![a, c], vec![a, b, c], vec![b]] {
        load.answered(100).await;
        running.proxy.apply(setup.snapshot(&endpoints)).await.unwrap();
    }
    load.answered(100).await;
    let only_b = upstreams[0].count() + upstreams[2].count();
    load.answered(100).await;
    // What was in flight at the last change has ended; from then on only b is asked.
    assert!(upstreams[0].count() + upstreams[2].count() <= only_b + 8);
    assert_eq!(load.end().await, 0);
}

#[tokio::test]
async fn connections_to_an_endpoint_that_left_are_closed() {
    let (a, b) = (Upstream::saying("a").await, Upstream::saying("b").await);
    let setup = Setup::new();
    let running = setup.start(&[a.address]).await;
    running.connect().await.ask(GET).await;
    running.metric("weir_upstream_connections{cluster=\"up\"} 1").await;
    running.proxy.apply(setup.snapshot(&[b.address])).await.unwrap();
    running.metric("weir_upstream_connections{cluster=\"up\"} 0").await;
}

#[tokio::test]
async fn a_drain_under_load_loses_nothing() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        while peer.head().await.is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            peer.send(ok("x")).await;
        }
    })
    .await;
    // The socket belongs to somebody else, as it does to a supervisor; a successor takes over.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let options = |socket: &std::net::TcpListener| {
        let inherited = OwnedFd::from(socket.try_clone().unwrap());
        Options { inherited: InheritedSockets::from_fds([("in".to_owned(), inherited)]), ..Default::default() }
    };
    let snapshot = Setup::new().snapshot(&[upstream.address]);
    let first = Running::start(options(&socket), snapshot.clone()).await;
    assert_eq!(first.address, address);
    let load = Load::start(address, 8);
    load.answered(100).await;
    let report = soon(first.proxy.drain(DrainOptions::default())).await;
    assert_eq!((report.connections, report.cut), (8, 0), "{report:?}");
    // Between the two, connections wait in the backlog.
    let second = Running::start(options(&socket), snapshot).await;
    load.answered(100).await;
    assert_eq!(load.end().await, 0);
    drop(second);
}

#[tokio::test]
async fn a_drain_waits_for_requests_and_says_close() {
    let (let_go, gate) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            peer.head().await;
            gate.wait_for(|open| *open).await.unwrap();
            peer.send(ok("done")).await;
        }
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    let mut idle = running.connect().await;
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    let proxy = running.proxy.clone();
    let options = DrainOptions { quiet: Duration::from_millis(10), ..Default::default() };
    let drain = tokio::spawn(async move { proxy.drain(options).await });
    assert!(idle.rest().await.is_empty());
    let_go.send(true).unwrap();
    let answer = caller.message().await.unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("done", Some("close")));
    let report = soon(drain).await.unwrap();
    assert_eq!((report.connections, report.finished, report.cut), (2, 1, 0));
}

/// A proxy of an application that, once let go, asks another service through it over a new connection before it answers.
/// The sockets belong to somebody else, as they do to a supervisor.
async fn nested(other: &Upstream) -> (Running, tokio::sync::watch::Sender<bool>) {
    let sockets = ["in", "out"].map(|name| (name, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    let out = sockets[1].1.local_addr().unwrap();
    let (let_go, gate) = tokio::sync::watch::channel(false);
    let application = Upstream::scripted(move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            peer.head().await;
            gate.wait_for(|open| *open).await.unwrap();
            let answer = Peer::connect(out).await.ask(GET).await;
            peer.send(ok(&format!("it said {}", answer.text()))).await;
        }
    })
    .await;
    let inherited = sockets.map(|(name, socket)| (name.to_owned(), OwnedFd::from(socket)));
    let options = Options { inherited: InheritedSockets::from_fds(inherited), ..Default::default() };
    let running = Running::start(options, nested_snapshot(application.address, other.address)).await;
    // It lives as long as the test.
    std::mem::forget(application);
    (running, let_go)
}

fn nested_snapshot(application: SocketAddr, other: SocketAddr) -> Arc<weir_proxy::Snapshot> {
    let table = |name| {
        format!(
            "{{name: {name}, hosts: [{{name: any, domains: ['*'], routes: [{{action: {{forward: {{clusters: [{{cluster: {name}}}]}}}}}}]}}]}}"
        )
    };
    crate::peers::snapshot(&format!(
        "listeners:
- {{name: in, bind: '127.0.0.1:0', direction: Inbound, routes: application}}
- {{name: out, bind: '127.0.0.1:0', routes: other}}
routeTables: [{}, {}]
clusters:
- {{name: application, endpoints: [{{address: '{application}'}}]}}
- {{name: other, endpoints: [{{address: '{other}'}}]}}",
        table("application"),
        table("other")
    ))
}

#[tokio::test]
async fn a_request_in_flight_may_still_call_others_while_its_proxy_drains() {
    let other = Upstream::saying("yes").await;
    let (running, let_go) = nested(&other).await;
    let (mut caller, mut idle) = (running.connect().await, running.connect().await);
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    let proxy = running.proxy.clone();
    let options = DrainOptions { quiet: Duration::from_millis(10), ..Default::default() };
    let drain = tokio::spawn(async move { proxy.drain(options).await });
    assert!(idle.rest().await.is_empty(), "inbound is closed when quiet");
    let_go.send(true).unwrap();
    assert_eq!(caller.message().await.unwrap().text(), "it said yes");
    let report = soon(drain).await.unwrap();
    assert_eq!((report.finished, report.cut), (2, 0));
    assert!(report.took < options.deadline / 2, "{report:?}");
}

#[tokio::test]
async fn outbound_gets_its_part_of_the_time_even_if_inbound_does_not_end() {
    let other = Upstream::saying("yes").await;
    let (running, _never) = nested(&other).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    let mut outbound = Peer::connect(running.proxy.local_addr("out").unwrap()).await;
    outbound.ask(GET).await;
    let options = DrainOptions { quiet: Duration::ZERO, deadline: Duration::from_millis(200), ..Default::default() };
    let proxy = running.proxy.clone();
    let drain = tokio::spawn(async move { proxy.drain(options).await });
    assert!(outbound.rest().await.is_empty());
    assert_eq!(soon(drain).await.unwrap().cut, 1);
}

#[tokio::test]
async fn configuration_is_followed_while_draining() {
    let (old, new) = (Upstream::saying("old").await, Upstream::saying("new").await);
    let (running, let_go) = nested(&old).await;
    let application = running.proxy.snapshot().config().clusters[0].endpoints[0].address;
    let (mut caller, mut idle) = (running.connect().await, running.connect().await);
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    let proxy = running.proxy.clone();
    let options = DrainOptions { quiet: Duration::from_millis(10), ..Default::default() };
    let drain = tokio::spawn(async move { proxy.drain(options).await });
    assert!(idle.rest().await.is_empty());
    let applied = running.proxy.apply(nested_snapshot(application, new.address)).await.unwrap();
    assert_eq!(applied.opened, 0);
    let_go.send(true).unwrap();
    assert_eq!(caller.message().await.unwrap().text(), "it said new");
    soon(drain).await.unwrap();
}

#[tokio::test]
async fn what_is_not_finished_at_the_deadline_is_cut() {
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.rest().await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    let options = DrainOptions { deadline: Duration::from_millis(50), ..Default::default() };
    let report = soon(running.proxy.drain(options)).await;
    assert_eq!(report.cut, 1);
    assert!(caller.rest().await.is_empty());
    running.metric("weir_proxy_faults_total{reason=\"cut\"} 1").await;
    let window = running.proxy.take_health_window();
    assert_eq!((window.inbound.requests, window.inbound.errors, window.faults["cut"]), (1, 1, 1));
}

#[tokio::test]
async fn requests_get_as_long_to_finish_as_a_listener_says() {
    let drain_time = |listener: &str| {
        let setup = Setup::new().listener(listener);
        async move { setup.start(&[nobody()]).await.proxy.drain_time() }
    };
    assert_eq!(drain_time("accessLog: false").await, Duration::from_secs(30));
    assert_eq!(drain_time("drainMs: 70000").await, Duration::from_secs(70));
    let told = Options { drain_time: Some(Duration::from_secs(5)), ..Default::default() };
    let running = Running::start(told, Setup::new().listener("drainMs: 70000").snapshot(&[nobody()])).await;
    assert_eq!(running.proxy.drain_time(), Duration::from_secs(5), "who starts it has said how long");
}

#[tokio::test]
async fn requests_wait_for_the_only_endpoint_to_come_back() {
    let upstream = Upstream::saying("back").await;
    let away = Setup::new().cluster("returning: true").forward("timeoutMs: 0");
    let running = away.start(&[]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    running.proxy.apply(away.snapshot(&[])).await.unwrap();
    running.proxy.apply(Setup::new().snapshot(&[upstream.address])).await.unwrap();
    assert_eq!(caller.message().await.unwrap().text(), "back");
    running.proxy.apply(Setup::new().snapshot(&[])).await.unwrap();
    assert_eq!(caller.ask(GET).await.status(), 503, "nobody is to come back: at once");
}

#[tokio::test]
async fn who_waits_for_an_endpoint_waits_no_longer_than_the_route_allows() {
    let away = Setup::new().cluster("returning: true").forward("timeoutMs: 50");
    let running = away.start(&[]).await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 503);
    running.metric("weir_refused_total{reason=\"no_endpoint\"} 1").await;
}

#[tokio::test]
async fn listeners_come_and_go() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut kept = running.connect().await;
    kept.ask(GET).await;
    let both = format!(
        "listeners:
- {{name: in, bind: '127.0.0.1:0', direction: Inbound, routes: main}}
- {{name: more, bind: '127.0.0.1:0', routes: main}}
routeTables: [{{name: main, hosts: [{{name: any, domains: ['*'], routes: [{{action: {{forward: {{clusters: [{{cluster: up}}]}}}}}}]}}]}}]
clusters: [{{name: up, endpoints: [{{address: '{}'}}]}}]",
        upstream.address
    );
    let applied = running.proxy.apply(crate::peers::snapshot(&both)).await.unwrap();
    assert_eq!((applied.listeners, applied.opened, applied.closed), (2, 1, 0));
    assert_eq!(running.proxy.local_addr("in"), Some(running.address));
    let more = running.proxy.local_addr("more").unwrap();
    let mut caller = Peer::connect(more).await;
    assert_eq!(caller.ask(GET).await.status(), 200);
    let applied = running.proxy.apply(Setup::new().snapshot(&[upstream.address])).await.unwrap();
    assert_eq!((applied.listeners, applied.opened, applied.closed), (1, 0, 1));
    assert!(caller.rest().await.is_empty(), "an idle connection of a listener that went is closed");
    assert!(tokio::net::TcpStream::connect(more).await.is_err());
    assert_eq!(kept.ask(GET).await.status(), 200);
}

#[tokio::test]
async fn a_listener_that_went_refuses_while_its_connections_finish() {
    let (let_go, gate) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            peer.head().await;
            gate.wait_for(|open| *open).await.unwrap();
            peer.send(ok("done")).await;
        }
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    running.metric("weir_active_requests 1").await;
    running.proxy.apply(weir_proxy::Snapshot::empty()).await.unwrap();
    let refused = async {
        while tokio::net::TcpStream::connect(running.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(refused).await;
    let_go.send(true).unwrap();
    assert_eq!(caller.message().await.unwrap().text(), "done");
}

#[tokio::test]
async fn an_address_that_is_taken_changes_nothing() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let text = format!(
        "listeners: [{{name: other, bind: '{}', protocol: Tcp, routes: up}}]
clusters: [{{name: up, endpoints: [{{address: '{}'}}]}}]",
        running.address,
        nobody()
    );
    let error = running.proxy.apply(crate::peers::snapshot(&text)).await.unwrap_err().to_string();
    assert!(error.contains("other") && error.contains(&running.address.to_string()), "{error}");
    assert_eq!(running.connect().await.ask(GET).await.status(), 200);
}

#[tokio::test]
async fn workers_share_an_address() {
    let upstream = Upstream::saying("x").await;
    let options = Options { workers: 3, ..Default::default() };
    let running = Running::start(options, Setup::new().snapshot(&[upstream.address])).await;
    for _ in 0..20 {
        assert_eq!(running.connect().await.ask(GET).await.status(), 200);
    }
    let labels = "listener=\"in\",direction=\"inbound\",route=\"all\",cluster=\"up\"";
    running.metric(&format!("weir_requests_total{{{labels},code_class=\"2xx\"}} 20")).await;
}
