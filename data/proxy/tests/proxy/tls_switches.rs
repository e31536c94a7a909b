//! Encryption switched on, off and over while requests are under way: not one of them may notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;
use weir_proxy::{Options, Snapshot};

use crate::peers::*;
use crate::pki::*;
use crate::rpc_peers::{Ask, RpcPeer, Wire};
use crate::tls::Mesh;
use crate::{rpc_peers, tls};

/// Switches in one run; `WEIR_SEEDS` asks for as many runs, each with its own order.
const SWITCHES: usize = 100;
/// Callers that send one request after the other.
const CALLERS: usize = 8;
/// Callers whose requests are held until the next switches have happened.
const HELD: usize = 4;

/// What callers, proxies and upstream speak.
#[derive(Debug, Clone, Copy)]
enum Speaks {
    Http1,
    /// Between the proxies.
    Http2,
    Rpc(Wire),
}

impl Speaks {
    /// A field for listener and cluster of both proxies, and one for the cluster between them.
    fn fields(self) -> (String, &'static str) {
        match self {
            Speaks::Http1 => (String::new(), ""),
            Speaks::Http2 => (String::new(), ", protocol: Http2"),
            Speaks::Rpc(wire) => (format!(", {}", wire.protocol()), ""),
        }
    }
}

/// A caller's proxy and a server's, as a control plane switches them.
struct World {
    pki: Pki,
    upstream: Upstream,
    server: Running,
    caller: Running,
    speaks: Speaks,
    /// The server takes nothing but TLS.
    is_strict: bool,
    /// The caller speaks TLS.
    is_tls: bool,
    /// Counts switches, for requests that wait for them.
    switched: watch::Sender<usize>,
}

/// What a control plane may do.
#[derive(Debug, Clone, Copy)]
enum Switch {
    Tls(bool),
    Strict(bool),
    RotateServer,
    RotateCaller,
}

impl World {
    async fn new(speaks: Speaks) -> Self {
        let pki = Pki::new();
        let (switched, switches) = watch::channel(0);
        let upstream = match speaks {
            Speaks::Rpc(wire) => holding_calls(wire, switches).await,
            Speaks::Http1 | Speaks::Http2 => holding(switches).await,
        };
        let server = Running::start(Options::default(), server(&pki, speaks, false, &upstream)).await;
        let caller = Running::start(Options::default(), caller(&pki, speaks, false, &server)).await;
        World { pki, upstream, server, caller, speaks, is_strict: false, is_tls: false, switched }
    }

    /// One that keeps the order which a control plane keeps.
    fn choose(&self, random: &mut fastrand::Rng) -> Switch {
        match (random.u8(..6), self.is_strict) {
            (0, _) => Switch::RotateServer,
            (1, _) => Switch::RotateCaller,
            (_, true) => Switch::Strict(false),
            (2 | 3, false) if self.is_tls => Switch::Strict(true),
            (_, false) => Switch::Tls(!self.is_tls),
        }
    }

    /// Waits until the caller, who speaks TLS already, has no connection in plaintext any more, nor opens one.
    async fn leave_plaintext(&self) {
        // Requests that are held on such a connection are let go.
        self.switched.send_modify(|count| *count += 2);
        let left = || {
            let metrics = self.caller.proxy.metrics();
            let open = sum(&metrics, "weir_upstream_connections{cluster=\"up\"}", "");
            let secured = sum(&metrics, "weir_peer_connections{direction=\"outbound\"", "security=\"tls\"}");
            open == secured
        };
        soon(async {
            while !left() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn switch(&mut self, switch: Switch) {
        match switch {
            Switch::Tls(on) => self.is_tls = on,
            Switch::RotateServer => self.pki.issue("stock"),
            Switch::RotateCaller => self.pki.issue("order"),
            Switch::Strict(on) => {
                if on {
                    self.leave_plaintext().await;
                }
                self.is_strict = on;
            }
        }
        self.caller.proxy.apply(caller(&self.pki, self.speaks, self.is_tls, &self.server)).await.unwrap();
        self.server.proxy.apply(server(&self.pki, self.speaks, self.is_strict, &self.upstream)).await.unwrap();
        self.switched.send_modify(|count| *count += 1);
    }
}

const STOCK: &str = "spiffe://weir/app/stock/unit/a";

/// A line that says that there is no such connection any more.
fn gauge(direction: &str, cluster: &str, peer: &str, security: &str) -> String {
    let labels = format!("direction=\"{direction}\",cluster=\"{cluster}\",peer=\"{peer}\",security=\"{security}\"");
    format!("weir_peer_connections{{{labels}}} 0")
}

/// The sum of the metrics whose labels begin and end so.
fn sum(metrics: &str, begins: &str, ends: &str) -> u64 {
    let series = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let wanted = series.filter(|(labels, _)| labels.starts_with(begins) && labels.ends_with(ends));
    wanted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

fn server(pki: &Pki, speaks: Speaks, is_strict: bool, upstream: &Upstream) -> Arc<Snapshot> {
    let listener = if is_strict { "mode: strict" } else { "mode: permissive" };
    let (protocol, _) = speaks.fields();
    let mesh = Mesh { pki, listener, me: "stock", expects: "", protocol: &protocol, cluster: "", tls_endpoints: false };
    mesh.snapshot(&[upstream.address])
}

fn caller(pki: &Pki, speaks: Speaks, is_tls: bool, server: &Running) -> Arc<Snapshot> {
    let (protocol, cluster) = speaks.fields();
    let expects = tls::STOCK;
    let mesh = Mesh { pki, listener: "", me: "order", expects, protocol: &protocol, cluster, tls_endpoints: is_tls };
    mesh.snapshot(&[server.address])
}

/// An upstream that holds requests to `/held` until two more switches have happened.
async fn holding(switches: watch::Receiver<usize>) -> Upstream {
    Upstream::scripted(move |mut peer, _| {
        let mut switches = switches.clone();
        async move {
            while let Some(message) = peer.message().await {
                if message.head.contains("/held") {
                    let until = *switches.borrow_and_update() + 2;
                    // Without the sender there are no more switches to wait for.
                    let _ = switches.wait_for(|count| *count >= until).await;
                }
                peer.send(ok("hello")).await;
            }
        }
    })
    .await
}

/// The same for Bolt and Dubbo, where answers go out as they are ready: requests that say `held` wait.
async fn holding_calls(wire: Wire, switches: watch::Receiver<usize>) -> Upstream {
    rpc_peers::upstream(wire, move |mut peer, _| {
        let mut switches = switches.clone();
        async move {
            let mut held = Vec::new();
            loop {
                tokio::select! {
                    got = peer.request() => match got {
                        None => return,
                        Some(got) if got.says("held") => held.push((*switches.borrow() + 2, got)),
                        Some(got) => peer.send(wire.answer(&got, "hello")).await,
                    },
                    Ok(()) = switches.changed() => {
                        let now = *switches.borrow_and_update();
                        for (_, got) in held.extract_if(.., |(until, _)| *until <= now) {
                            peer.send(wire.answer(&got, "hello")).await;
                        }
                    }
                }
            }
        }
    })
    .await
}

/// Sends until told to stop, like [`send`].
async fn call(
    wire: Wire,
    address: std::net::SocketAddr,
    text: &'static str,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
) {
    let mut peer = RpcPeer::connect(wire, address).await;
    for id in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let got = peer.ask(Ask::new(id, text)).await;
        assert!(got.is_ok() && got.says("hello"), "{got:?}");
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends until told to stop. A connection that ends without an answer, or an answer that is not the upstream's, panics.
async fn send(address: std::net::SocketAddr, path: &'static str, stop: Arc<AtomicBool>, sent: Arc<AtomicUsize>) {
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let mut peer = Peer::connect(address).await;
    while !stop.load(Ordering::Relaxed) {
        let answer = peer.ask(&request).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"), "{}", answer.head);
        sent.fetch_add(1, Ordering::Relaxed);
        if answer.field("connection") == Some("close") {
            peer = Peer::connect(address).await;
        }
    }
}

async fn run(speaks: Speaks, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(speaks).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let start = |path| {
        let (address, stop, sent) = (world.caller.address, stop.clone(), sent.clone());
        match speaks {
            Speaks::Rpc(wire) => tokio::spawn(call(wire, address, path, stop, sent)),
            Speaks::Http1 | Speaks::Http2 => tokio::spawn(send(address, path, stop, sent)),
        }
    };
    let callers: Vec<_> = (0..CALLERS).map(|_| start("/")).chain((0..HELD).map(|_| start("/held"))).collect();
    let mut done = Vec::new();
    for _ in 0..SWITCHES {
        let switch = world.choose(&mut random);
        done.push(switch);
        world.switch(switch).await;
        let before = sent.load(Ordering::Relaxed);
        soon(async {
            // Some requests between any two switches; if a caller has failed, they would not come.
            while sent.load(Ordering::Relaxed) < before + CALLERS && !callers.iter().any(|caller| caller.is_finished())
            {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
        assert!(!callers.iter().any(|caller| caller.is_finished()), "seed {seed}: a request failed after {done:?}");
    }
    stop.store(true, Ordering::Relaxed);
    soon(async {
        // Those that are held go on with further switches, which change nothing.
        while !callers.iter().all(|caller| caller.is_finished()) {
            world.switched.send_modify(|count| *count += 2);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    for caller in callers {
        soon(caller).await.unwrap_or_else(|error| panic!("seed {seed}: {error} after {done:?}"));
    }
    ends_as_wanted(&mut world).await;
}

/// In the end there are only connections as the last configuration wants them.
async fn ends_as_wanted(world: &mut World) {
    if world.is_strict {
        world.switch(Switch::Strict(false)).await;
    }
    world.switch(Switch::Tls(false)).await;
    world.caller.metric(&gauge("outbound", "up", STOCK, "tls")).await;
    world.server.metric(&gauge("inbound", "", "spiffe://weir/app/order/unit/a", "tls")).await;
}

fn seeds() -> u64 {
    std::env::var("WEIR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[tokio::test]
async fn no_request_notices_switches_under_http1() {
    for seed in 0..seeds() {
        run(Speaks::Http1, seed).await;
    }
}

#[tokio::test]
async fn no_request_notices_switches_under_http2() {
    for seed in 0..seeds() {
        run(Speaks::Http2, seed).await;
    }
}

#[tokio::test]
async fn no_request_notices_switches_under_bolt() {
    for seed in 0..seeds() {
        run(Speaks::Rpc(Wire::Bolt), seed).await;
    }
}

#[tokio::test]
async fn no_request_notices_switches_under_dubbo() {
    for seed in 0..seeds() {
        run(Speaks::Rpc(Wire::Dubbo), seed).await;
    }
}

#[tokio::test]
async fn callers_in_plaintext_are_told_to_go_when_it_is_no_longer_taken() {
    let (pki, upstream) = (Pki::new(), Upstream::saying("hello").await);
    let running = Running::start(Options::default(), server(&pki, Speaks::Http1, false, &upstream)).await;
    let mut peer = running.connect().await;
    assert_eq!(peer.ask(GET).await.field("connection"), None);
    running.proxy.apply(server(&pki, Speaks::Http1, true, &upstream)).await.unwrap();
    let last = peer.ask(GET).await;
    assert_eq!((last.status(), last.field("connection")), (200, Some("close")));
    assert!(peer.rest().await.is_empty());
}

#[tokio::test]
async fn the_same_configuration_again_disturbs_no_connection() {
    let world = World::new(Speaks::Http1).await;
    world.caller.proxy.apply(caller(&world.pki, Speaks::Http1, true, &world.server)).await.unwrap();
    let mut peer = world.caller.connect().await;
    for _ in 0..5 {
        assert_eq!(peer.ask(GET).await.status(), 200);
        world.caller.proxy.apply(caller(&world.pki, Speaks::Http1, true, &world.server)).await.unwrap();
        world.server.proxy.apply(server(&world.pki, Speaks::Http1, false, &world.upstream)).await.unwrap();
    }
    world.server.metric("weir_connections_total 1").await;
}
