//! The control stream over a real socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Status, Streaming};
use weir_model::instance::{ALIVE, InstancePhase, ManagedBy, UNPUBLISHED};
use weir_model::token::Joiner;
use weir_model::{App, Author, Condition, ConditionStatus, Instance, InstanceSpec, Key, Kind};
use weir_proto::control::proxy_control_client::ProxyControlClient;
use weir_proto::control::{
    Command, EndpointTraffic, Goodbye, Health, Hello, Report, SelfCheck, Traffic, command, report,
};
use weir_registry::{Authenticate, Options, Registry, anyone};
use weir_store::memory::MemoryStore;
use weir_store::observed::{Observed, ProxyView};
use weir_store::{EventQuery, SharedStore, WatchEvent, WatchQuery, typed};

/// Longer than anything here takes on the slowest machine; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(30);

struct Running {
    store: SharedStore,
    observed: Arc<Observed>,
    address: SocketAddr,
    _shutdown: watch::Sender<bool>,
}

async fn serve(options: Options) -> Running {
    serve_those(options, anyone()).await
}

async fn serve_those(options: Options, authenticate: Authenticate) -> Running {
    let store = MemoryStore::new().shared();
    let observed = Arc::new(Observed::default());
    let registry = Registry::new(store.clone(), Arc::clone(&observed), authenticate, options);
    let (shutdown, down) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(
        Server::builder().add_service(registry.service()).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    tokio::spawn(async move { registry.run(down).await });
    Running { store, observed, address, _shutdown: shutdown }
}

fn hello(instance: &str, port: u32) -> Hello {
    Hello {
        instance: instance.to_owned(),
        app: "stock".to_owned(),
        unit: "east".to_owned(),
        address: "127.0.0.1".to_owned(),
        port,
        app_port: 9000,
        protocols: vec!["http1".to_owned()],
        proxy_version: "a".to_owned(),
        build: "0.1.0".to_owned(),
        pid: port,
        self_check: Some(SelfCheck { passed: true, checks: Vec::new() }),
        ..Default::default()
    }
}

struct Proxy {
    reports: mpsc::Sender<Report>,
    commands: Streaming<Command>,
}

impl Proxy {
    async fn open(running: &Running, hello: Hello) -> Proxy {
        let mut client = ProxyControlClient::connect(format!("http://{}", running.address)).await.expect("it listens");
        let (reports, queue) = mpsc::channel(16);
        let commands = client.open(ReceiverStream::new(queue)).await.expect("it opens").into_inner();
        let proxy = Proxy { reports, commands };
        proxy.say(report::Report::Hello(hello)).await;
        proxy
    }

    /// Opens and is welcomed.
    async fn join(running: &Running, hello: Hello) -> Proxy {
        let mut proxy = Proxy::open(running, hello).await;
        match proxy.next().await {
            command::Command::Welcome(welcome) => assert!(welcome.lease_seconds > 0),
            other => panic!("not welcome: {other:?}"),
        }
        proxy
    }

    async fn say(&self, report: report::Report) {
        self.reports.send(Report { report: Some(report) }).await.expect("the stream is open");
    }

    async fn goodbye(&self) {
        self.say(report::Report::Goodbye(Goodbye { reason: "SIGTERM".to_owned() })).await;
    }

    async fn next(&mut self) -> command::Command {
        let message = timeout(LONG, self.commands.message()).await.expect("a command comes");
        message.expect("no error").expect("the stream goes on").command.expect("it says something")
    }
}

/// Waits until the instance is as wanted (`None`: gone).
async fn until(store: &SharedStore, name: &str, wanted: impl Fn(Option<&Instance>) -> bool) -> Option<Instance> {
    let mut events = store.watch(&WatchQuery::all(0)).await.expect("a watch");
    let found = async {
        loop {
            let instance = typed::get::<InstanceSpec>(&**store, name).await.expect("readable");
            if wanted(instance.as_ref()) {
                return instance;
            }
            drop(events.next().await);
        }
    };
    timeout(LONG, found).await.unwrap_or_else(|_| panic!("{name} does not become what is wanted"))
}

fn alive(instance: &Instance) -> Option<(ConditionStatus, String)> {
    let condition = instance.status.conditions.iter().find(|c| c.r#type == ALIVE)?;
    Some((condition.status, condition.reason.clone()))
}

fn is(instance: Option<&Instance>, status: ConditionStatus) -> bool {
    instance.and_then(alive).is_some_and(|(s, _)| s == status)
}

#[tokio::test]
async fn one_that_has_said_goodbye_is_not_published_again_by_a_later_stream() {
    let running = serve(Options::default()).await;
    let mut events = running.store.watch(&WatchQuery::kind(Kind::Instance, 0)).await.expect("a watch");
    let proxy = Proxy::join(&running, Hello { leaving: "SIGTERM".to_owned(), ..hello("stock-1", 8001) }).await;
    proxy.goodbye().await;
    until(&running.store, "stock-1", |i| i.and_then(alive).is_some_and(|(_, reason)| reason == "Leaving")).await;
    let mut reason = String::new();
    while reason != "Leaving" {
        let event = timeout(LONG, events.next()).await.expect("an event comes").expect("the watch goes on");
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event.expect("no error") else { continue };
        let instance = Instance::try_from(object).expect("an instance");
        assert!(!instance.status.published(), "{:?}", instance.status);
        reason = alive(&instance).map(|(_, reason)| reason).unwrap_or_default();
    }
}

#[tokio::test]
async fn a_proxy_that_was_started_again_leaves_a_count_and_an_event() {
    let running = serve(Options::default()).await;
    let admin = "127.0.0.1:7000".to_owned();
    drop(Proxy::join(&running, Hello { admin, ..hello("stock-1", 8001) }).await);
    until(&running.store, "stock-1", |i| i.is_some_and(|i| i.status.proxy_admin.is_some())).await;
    let _proxy = Proxy::join(&running, Hello { restarts: 2, ..hello("stock-1", 8001) }).await;
    until(&running.store, "stock-1", |i| i.is_some_and(|i| i.status.proxy_restarts == 2)).await;
    let query = EventQuery { about: Some(Key::new(Kind::Instance, "stock-1")), ..Default::default() };
    let told = async {
        loop {
            let events = running.store.events(&query).await.expect("readable");
            if let Some(event) = events.iter().find(|e| e.reason == "ProxyRestarted") {
                return event.message.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(LONG, told).await.expect("an event comes").contains("2 so far"));
}

#[tokio::test]
async fn another_token_cannot_take_the_name_of_a_proxy_that_is_there() {
    let calls = AtomicUsize::new(0);
    let authenticate: Authenticate = Arc::new(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(Joiner::of_any_app(format!("proxy/{call}"))) })
    });
    let running = serve_those(Options::default(), authenticate).await;
    let _first = Proxy::join(&running, hello("stock-1", 8001)).await;
    // It says the same of itself, word for word.
    let mut other = Proxy::open(&running, hello("stock-1", 8001)).await;
    match other.next().await {
        command::Command::Refused(refused) => assert!(refused.reason.contains("proxy/0"), "{}", refused.reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_of_another_app_cannot_register() {
    let joiner = Joiner { actor: "proxy/orders".to_owned(), apps: vec!["orders".to_owned()] };
    let authenticate: Authenticate = Arc::new(move |_| {
        let joiner = joiner.clone();
        Box::pin(async move { Ok(joiner) })
    });
    let running = serve_those(Options::default(), authenticate).await;
    let mut other = Proxy::open(&running, hello("stock-1", 8001)).await;
    match other.next().await {
        command::Command::Refused(refused) => assert!(refused.reason.contains("is for orders"), "{}", refused.reason),
        other => panic!("not refused: {other:?}"),
    }
    assert!(typed::get::<InstanceSpec>(&*running.store, "stock-1").await.expect("readable").is_none());
    let _own = Proxy::join(&running, Hello { app: "orders".to_owned(), ..hello("orders-1", 8002) }).await;
}

/// Stands for the xDS server: says that callers know, once the instance is leaving.
async fn acknowledge_unpublished(store: &SharedStore, name: &str) {
    until(store, name, |i| i.is_some_and(|i| i.status.phase == InstancePhase::Unpublishing)).await;
    let change = |instance: &mut Instance| {
        instance.status.conditions.push(Condition {
            r#type: UNPUBLISHED.to_owned(),
            status: ConditionStatus::True,
            reason: "AcknowledgedByAll".to_owned(),
            message: String::new(),
            last_transition_time: Timestamp::now(),
        });
        true
    };
    typed::modify_status::<InstanceSpec>(&**store, name, change).await.expect("stored").expect("there");
}

async fn reasons(store: &SharedStore, name: &str) -> Vec<String> {
    let query = EventQuery { about: Some(Key::new(Kind::Instance, name)), limit: 0 };
    store.events(&query).await.expect("readable").into_iter().map(|e| e.reason).collect()
}

#[tokio::test]
async fn a_program_that_joins_is_declared_serves_reports_and_leaves_in_order() {
    let running = serve(Options::default()).await;
    let mut proxy = Proxy::join(&running, hello("stock-1", 8001)).await;
    let joined = typed::get::<InstanceSpec>(&*running.store, "stock-1").await.expect("readable").expect("declared");
    assert_eq!(joined.spec.managed_by, ManagedBy::Itself);
    assert!(joined.status.published());
    assert_eq!((joined.status.proxy_version.as_str(), joined.status.proxy_pid), ("a", Some(8001)));
    for (kind, name) in [(Kind::App, "stock"), (Kind::Unit, "east")] {
        assert!(running.store.get(&Key::new(kind, name)).await.expect("readable").is_some(), "{name} is declared too");
    }
    proxy.goodbye().await;
    acknowledge_unpublished(&running.store, "stock-1").await;
    assert!(matches!(proxy.next().await, command::Command::Unpublished(u) if u.detail == "callers have acknowledged"));
    drop(proxy);
    until(&running.store, "stock-1", |i| i.is_none()).await;
}

#[tokio::test]
async fn a_goodbye_whose_record_is_deleted_waits_for_connected_callers() {
    let running = serve(Options { publish_time: Duration::ZERO, ..Options::default() }).await;
    running.observed.proxies.put(1, caller_view());
    running.observed.proxies.update(1, "EDS", |state| state.sent = "2".to_owned());
    let mut proxy = Proxy::join(&running, hello("stock-1", 8001)).await;
    proxy.goodbye().await;
    until(&running.store, "stock-1", |i| i.is_some_and(|i| i.status.phase == InstancePhase::Unpublishing)).await;
    let author = Author::new("test", "a test");
    running.store.delete(&Key::new(Kind::Instance, "stock-1"), None, &author).await.expect("deleted");
    let early = timeout(Duration::from_millis(200), proxy.commands.message()).await;
    assert!(early.is_err(), "a caller is behind: {early:?}");
    running.observed.proxies.update(1, "EDS", |state| state.acknowledged = "2".to_owned());
    assert!(matches!(proxy.next().await, command::Command::Unpublished(u) if u.detail.contains("its record is gone")));
}

fn caller_view() -> ProxyView {
    ProxyView {
        node: "front-1".to_owned(),
        app: "front".to_owned(),
        agent: String::new(),
        protocol: "delta".to_owned(),
        connected_at: Timestamp::UNIX_EPOCH,
        types: Default::default(),
    }
}

#[tokio::test]
async fn health_reaches_the_reporter_and_the_instances_it_called() {
    let running = serve(Options::default()).await;
    let _callee = Proxy::join(&running, hello("stock-1", 8001)).await;
    let mut caller = Proxy::join(&running, hello("stock-2", 8002)).await;
    let seen = |address: &str| EndpointTraffic {
        cluster: "stock".to_owned(),
        address: address.to_owned(),
        requests: 7,
        errors: 2,
    };
    let health = Health {
        sequence: 1,
        inbound: Some(Traffic { requests: 5, errors: 9, latency: vec![1, 2, 3] }),
        endpoints: vec![seen("127.0.0.1:8001"), seen("127.0.0.1:9"), seen("nowhere")],
        ..Default::default()
    };
    // Addresses come by way of the store's watch, so the report is repeated until they are known.
    let arrived = async {
        while running.observed.telemetry.caller_views("stock-1", Timestamp::MIN).is_empty() {
            caller.say(report::Report::Health(health.clone())).await;
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, arrived).await.expect("the callee is seen");
    let view = running.observed.telemetry.caller_views("stock-1", Timestamp::MIN).remove(0);
    assert!(view.requests % 7 == 0 && view.errors % 2 == 0 && view.requests > 0);
    let window = running.observed.telemetry.windows("stock-2", Timestamp::MIN).remove(0);
    assert_eq!(window.proxy_version, "a");
    assert_eq!((window.window.inbound.requests, window.window.inbound.errors), (5, 5), "errors are requests");
    assert!(window.window.inbound.latency.is_empty(), "a histogram of another shape is left out");
    caller.goodbye().await;
    acknowledge_unpublished(&running.store, "stock-2").await;
    assert!(matches!(caller.next().await, command::Command::Unpublished(_)));
}

#[tokio::test]
async fn a_broken_stream_takes_an_instance_out_after_the_grace_and_a_return_brings_it_back() {
    let running = serve(Options { stream_grace: Duration::from_millis(50), ..quick_sweep() }).await;
    let _others =
        [Proxy::join(&running, hello("stock-2", 8002)).await, Proxy::join(&running, hello("stock-3", 8003)).await];
    drop(Proxy::join(&running, hello("stock-1", 8001)).await);
    let dead = until(&running.store, "stock-1", |i| is(i, ConditionStatus::False)).await.expect("kept");
    assert_eq!(alive(&dead), Some((ConditionStatus::False, "LeaseExpired".to_owned())));
    assert!(!dead.status.published());
    let _back = Proxy::join(&running, hello("stock-1", 8001)).await;
    let back = typed::get::<InstanceSpec>(&*running.store, "stock-1").await.expect("readable").expect("there");
    assert!(back.status.published());
    let told = reasons(&running.store, "stock-1").await;
    assert_eq!(told, ["Registered", "LeaseExpired", "Registered"]);
}

#[tokio::test]
async fn an_app_is_not_emptied_by_lapsed_leases() {
    let running = serve(Options { stream_grace: Duration::from_millis(50), ..quick_sweep() }).await;
    let proxies =
        [Proxy::join(&running, hello("stock-1", 8001)).await, Proxy::join(&running, hello("stock-2", 8002)).await];
    drop(proxies);
    for name in ["stock-1", "stock-2"] {
        let kept = until(&running.store, name, |i| is(i, ConditionStatus::Unknown)).await.expect("kept");
        assert!(kept.status.published());
    }
    assert_eq!(reasons(&running.store, "stock-1").await, ["Registered", "SelfPreservation"]);
}

fn quick_sweep() -> Options {
    Options { sweep_every: Duration::from_millis(20), ..Options::default() }
}

#[tokio::test]
async fn one_that_weir_manages_stays_as_declared_and_in_the_hands_of_its_controller() {
    let running = serve(Options::default()).await;
    let author = Author::new("test", "a test");
    let mut seed = Proxy::join(&running, hello("seed", 8009)).await;
    let mut declared =
        typed::get::<InstanceSpec>(&*running.store, "seed").await.expect("readable").expect("there").spec;
    declared.managed_by = ManagedBy::Weir;
    declared.port = 8001;
    declared.proxy_version = "b".to_owned();
    typed::create(&*running.store, &Instance::new("stock-1", declared.clone()), &author).await.expect("new");
    let mut stranger = Proxy::open(&running, hello("stock-1", 8002)).await;
    match stranger.next().await {
        command::Command::Refused(refused) => assert!(refused.reason.contains("127.0.0.1:8001"), "{}", refused.reason),
        other => panic!("not refused: {other:?}"),
    }
    drop(stranger);
    let mut proxy = Proxy::join(&running, hello("stock-1", 8001)).await;
    let instance = typed::get::<InstanceSpec>(&*running.store, "stock-1").await.expect("readable").expect("there");
    assert_eq!(instance.spec, declared, "what is declared stands");
    assert_eq!(instance.status.phase, InstancePhase::Pending, "phases are the controller's");
    assert_eq!(instance.status.proxy_version, "a");
    assert!(is(Some(&instance), ConditionStatus::True));
    proxy.goodbye().await;
    assert!(matches!(proxy.next().await, command::Command::Unpublished(_)), "it was never published");
    drop(proxy);
    seed.goodbye().await;
    acknowledge_unpublished(&running.store, "seed").await;
    assert!(matches!(seed.next().await, command::Command::Unpublished(_)));
    drop(seed);
    until(&running.store, "seed", |i| i.is_none()).await;
    let kept = typed::get::<InstanceSpec>(&*running.store, "stock-1").await.expect("readable");
    assert!(kept.is_some(), "its record is not the registry's to delete");
}

#[tokio::test]
async fn what_contradicts_or_breaks_the_rules_is_refused_with_the_reason() {
    let running = serve(Options::default()).await;
    let _first = Proxy::join(&running, hello("stock-1", 8001)).await;
    let refused = [
        (hello("stock-1", 8002), "is taken by another proxy, process 8001"),
        (Hello { app: "order".to_owned(), ..hello("stock-1", 8001) }, "declared as one of app \"stock\""),
        (Hello { instance: "No Name".to_owned(), ..hello("x", 8003) }, "instance: \"No Name\" is not a legal name"),
        (Hello { address: "here".to_owned(), ..hello("x", 8003) }, "address: \"here\" is no IP address"),
        (Hello { stack: "x".repeat(300), ..hello("x", 8003) }, "stack: has 300 characters, at most 253"),
    ];
    for (hello, why) in refused {
        let mut proxy = Proxy::open(&running, hello).await;
        match proxy.next().await {
            command::Command::Refused(refused) => assert!(refused.reason.contains(why), "{}", refused.reason),
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_but_not_when_that_cannot_be_told() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let authenticate: Authenticate = Arc::new(move |_| {
        let answer = match count.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(Joiner::of_any_app("proxy/test")),
            1 => Err(Status::unavailable("the store is away")),
            _ => Err(Status::unauthenticated("revoked")),
        };
        Box::pin(async { answer })
    });
    let options = Options { authenticate_every: Duration::from_millis(100), ..Options::default() };
    let running = serve_those(options, authenticate).await;
    let mut proxy = Proxy::join(&running, hello("stock-1", 8001)).await;
    let ended = timeout(LONG, proxy.commands.message()).await.expect("it ends").expect_err("with a reason");
    assert_eq!((ended.code(), ended.message()), (Code::Unauthenticated, "revoked"));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_failed_self_check_gets_no_traffic() {
    let running = serve(Options::default()).await;
    let failed = Some(SelfCheck { passed: false, checks: Vec::new() });
    let _proxy = Proxy::join(&running, Hello { self_check: failed, ..hello("stock-1", 8001) }).await;
    let instance = typed::get::<InstanceSpec>(&*running.store, "stock-1").await.expect("readable").expect("there");
    assert_eq!(instance.status.phase, InstancePhase::Failed);
    assert!(!instance.status.published());
    assert!(reasons(&running.store, "stock-1").await.contains(&"SelfCheckFailed".to_owned()));
}

#[tokio::test]
async fn what_is_declared_beforehand_stands() {
    let running = serve(Options::default()).await;
    let author = Author::new("test", "a test");
    let mut app = App::new("stock", Default::default());
    app.spec.owner = "team".to_owned();
    typed::create(&*running.store, &app, &author).await.expect("new");
    let _proxy = Proxy::join(&running, hello("stock-1", 8001)).await;
    let kept = typed::get::<weir_model::AppSpec>(&*running.store, "stock").await.expect("readable").expect("there");
    assert_eq!(kept.spec.owner, "team");
}
