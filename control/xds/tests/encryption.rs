//! Encryption over a real socket: a server's proxy and a caller's, which acknowledge when the test lets them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::Server;
use weir_identity::Authority;
use weir_model::encryption::{EncryptionMode, EncryptionSpec, EncryptionStatus};
use weir_model::instance::{ALIVE, InstancePhase, InstanceTls, ManagedBy, Upstream};
use weir_model::{Author, Condition, ConditionStatus, Encryption, Instance, InstanceSpec, Kind as What};
use weir_store::memory::MemoryStore;
use weir_store::observed::Observed;
use weir_store::{SharedStore, WatchEvent, WatchQuery, typed};
use weir_xds::{Options, Xds, anyone};

const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Longer than anything here takes on the slowest machine; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(60);

fn authority(kept: Option<&std::path::Path>, ttl: Duration) -> Arc<Authority> {
    let options = weir_identity::Options { leaf_ttl: ttl, ..Default::default() };
    Arc::new(Authority::start(options, None, kept.map(Into::into), Timestamp::now()).expect("it starts"))
}

async fn serve(store: &SharedStore, authority: Arc<Authority>) -> (SocketAddr, watch::Sender<bool>) {
    let options = Options {
        settle: Duration::ZERO,
        strict_delay: Duration::ZERO,
        authority: Some(authority),
        ..Options::default()
    };
    let xds = Xds::new(store.clone(), Arc::new(Observed::default()), anyone(), options);
    let (shutdown, down) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let service = xds.service();
    let mut stop = down.clone();
    tokio::spawn(async move { xds.run(down).await });
    tokio::spawn(async move {
        let stopped = async move { drop(stop.wait_for(|down| *down).await) };
        Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
            .await
    });
    (address, shutdown)
}

/// A sidecar that acknowledges all it is sent, but for the types in `silent`.
struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    has: BTreeMap<(String, String), Vec<u8>>,
    silent: BTreeSet<&'static str>,
    unanswered: Vec<DeltaDiscoveryResponse>,
}

impl Proxy {
    async fn connect(to: SocketAddr, name: &str, app: &str, calls: &[&str], tls: bool) -> Proxy {
        let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{to}")).await.expect("it listens");
        let (requests, queue) = mpsc::channel(64);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(queue)).await.expect("it opens");
        let responses = responses.into_inner();
        let proxy = Proxy { requests, responses, has: BTreeMap::new(), silent: BTreeSet::new(), unanswered: vec![] };
        proxy.ask(name, app, calls, tls, SDS, &["weir:workload", "weir:roots"]).await;
        proxy.ask(name, app, calls, tls, CDS, &[]).await;
        if !calls.is_empty() {
            proxy.ask(name, app, calls, tls, EDS, calls).await;
        }
        proxy.ask(name, app, calls, tls, LDS, &[]).await;
        proxy
    }

    async fn ask(&self, name: &str, app: &str, calls: &[&str], tls: bool, type_url: &str, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            node: Some(node(name, app, calls, tls)),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|n| n.to_string()).collect(),
            ..Default::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    /// Reads on until it has what is looked for.
    async fn until(&mut self, what: &str, has: impl Fn(&Proxy) -> bool) {
        let reading = async {
            while !has(self) {
                self.step().await;
            }
        };
        if timeout(LONG, reading).await.is_err() {
            panic!("{what}");
        }
    }

    async fn step(&mut self) {
        let response = self.responses.message().await.expect("no error").expect("the stream goes on");
        for resource in &response.resources {
            let body = resource.resource.clone().expect("a body").value;
            self.has.insert((response.type_url.clone(), resource.name.clone()), body);
        }
        if self.silent.contains(response.type_url.as_str()) {
            self.unanswered.push(response);
        } else {
            self.acknowledge(&response).await;
        }
    }

    async fn acknowledge(&self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    async fn speak_up(&mut self) {
        self.silent.clear();
        for response in std::mem::take(&mut self.unanswered) {
            self.acknowledge(&response).await;
        }
    }

    fn read<M: Message + Default>(&self, type_url: &str, name: &str) -> Option<M> {
        let body = self.has.get(&(type_url.to_owned(), name.to_owned()))?;
        Some(M::decode(body.as_slice()).expect("what was encoded can be read"))
    }

    fn certificate(&self) -> Option<String> {
        self.read::<Secret>(SDS, "weir:workload").map(|secret| format!("{secret:?}"))
    }

    /// What its inbound listener takes.
    fn takes(&self) -> Vec<String> {
        let listener: Listener = self.read(LDS, "inbound").unwrap_or_default();
        let protocol = |m: envoy_types::pb::envoy::config::listener::v3::FilterChainMatch| m.transport_protocol;
        listener.filter_chains.into_iter().map(|c| c.filter_chain_match.map(protocol).unwrap_or_default()).collect()
    }

    /// How many of the app's endpoints it has, and how many of them are to be spoken TLS to.
    fn endpoints(&self, app: &str) -> (usize, usize) {
        let assignment: ClusterLoadAssignment = self.read(EDS, app).unwrap_or_default();
        let all: Vec<_> = assignment.endpoints.into_iter().flat_map(|l| l.lb_endpoints).collect();
        let tls = all.iter().filter_map(|e| e.metadata.as_ref());
        let tls = tls.filter(|m| m.filter_metadata.contains_key("envoy.transport_socket_match")).count();
        (all.len(), tls)
    }
}

fn node(name: &str, app: &str, calls: &[&str], tls: bool) -> Node {
    let text = |t: &str| Value { kind: Some(Kind::StringValue(t.to_owned())) };
    let number = |n: f64| Value { kind: Some(Kind::NumberValue(n)) };
    let object =
        |fields: Vec<(&str, Value)>| Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() };
    let upstream = |app: &&str| Value {
        kind: Some(Kind::StructValue(object(vec![("app", text(app)), ("listen", text("127.0.0.1:15001"))]))),
    };
    let upstreams = ListValue { values: calls.iter().map(upstream).collect() };
    let weir = object(vec![
        ("app", text(app)),
        ("unit", text("east")),
        ("port", number(8000.0)),
        ("appPort", number(9000.0)),
        ("upstreams", Value { kind: Some(Kind::ListValue(upstreams)) }),
        ("tls", Value { kind: Some(Kind::BoolValue(tls)) }),
    ]);
    Node {
        id: name.to_owned(),
        cluster: app.to_owned(),
        metadata: Some(object(vec![("weir", Value { kind: Some(Kind::StructValue(weir)) })])),
        ..Default::default()
    }
}

fn author() -> Author {
    Author::new("test", "a test")
}

async fn instance(store: &SharedStore, name: &str, app: &str, calls: &[&str], tls: Option<bool>) {
    let listen = "127.0.0.1:15001".parse().expect("an address");
    let spec = InstanceSpec {
        app: app.to_owned(),
        unit: "east".to_owned(),
        zone: String::new(),
        group: String::new(),
        stack: String::new(),
        managed_by: ManagedBy::Itself,
        workload: None,
        address: [127, 0, 0, 1].into(),
        port: 8000,
        app_port: 9000,
        app_address: None,
        protocol: Default::default(),
        upstreams: calls.iter().map(|app| Upstream { app: app.to_string(), listen }).collect(),
        proxy_version: "a".to_owned(),
        app_version: String::new(),
        weight: 100,
        config_revision: String::new(),
        retire: false,
    };
    typed::create(&**store, &Instance::new(name, spec), &author()).await.expect("it is new");
    let change = |instance: &mut Instance| {
        instance.status.phase = InstancePhase::Serving;
        instance.status.tls = tls.map(|ready| InstanceTls { ready, ..Default::default() });
        instance.status.conditions = vec![Condition {
            r#type: ALIVE.to_owned(),
            status: ConditionStatus::True,
            reason: "Registered".to_owned(),
            message: String::new(),
            last_transition_time: Timestamp::UNIX_EPOCH,
        }];
        true
    };
    typed::modify_status::<InstanceSpec>(&**store, name, change).await.expect("it is stored").expect("it is there");
}

/// A `stock` that can do TLS, and a `front` that calls it.
async fn mesh() -> SharedStore {
    let store = MemoryStore::new().shared();
    instance(&store, "stock-1", "stock", &[], Some(true)).await;
    instance(&store, "front-1", "front", &["stock"], Some(true)).await;
    store
}

async fn want(store: &SharedStore, mode: EncryptionMode) {
    let spec = EncryptionSpec { app: "stock".to_owned(), mode, interfaces: Vec::new() };
    match typed::get::<EncryptionSpec>(&**store, "stock").await.expect("readable") {
        None => drop(typed::create(&**store, &Encryption::new("stock", spec), &author()).await.expect("it is new")),
        Some(mut known) => {
            known.spec = spec;
            // The controller may have written its status just now.
            while let Err(error) = typed::update(&**store, &known, &author()).await {
                assert!(matches!(error, weir_store::Error::Conflict { .. }), "{error}");
                known.metadata =
                    typed::get::<EncryptionSpec>(&**store, "stock").await.expect("readable").expect("there").metadata;
            }
        }
    }
}

/// Waits for a status.
async fn until(store: &SharedStore, what: &str, is: impl Fn(&EncryptionStatus) -> bool) -> EncryptionStatus {
    let mut events = store.watch(&WatchQuery::kind(What::Encryption, 0)).await.expect("a watch");
    let found = async {
        loop {
            let known = typed::get::<EncryptionSpec>(&**store, "stock").await.expect("readable").expect("it is there");
            if is(&known.status) {
                return known.status;
            }
            let event: WatchEvent = events.next().await.expect("it goes on").expect("no gap");
            drop(event);
        }
    };
    match timeout(LONG, found).await {
        Ok(status) => status,
        Err(_) => panic!("{what}: {:?}", typed::get::<EncryptionSpec>(&**store, "stock").await),
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn plaintext_is_refused_only_after_every_caller_has_acknowledged_tls_and_taken_before_any_speaks_it() {
    let store = mesh().await;
    let (address, _running) = serve(&store, authority(None, DAY)).await;
    let mut server = Proxy::connect(address, "stock-1", "stock", &[], true).await;
    let mut caller = Proxy::connect(address, "front-1", "front", &["stock"], true).await;
    server.until("both are taken before any Encryption", |p| p.takes() == ["tls", "raw_buffer"]).await;
    server.until("it has its certificate", |p| p.certificate().is_some()).await;
    caller.until("plaintext is spoken", |p| p.endpoints("stock") == (1, 0)).await;

    // The caller reads that it is to speak TLS, but does not say that it does.
    caller.silent.insert(EDS);
    want(&store, EncryptionMode::Strict).await;
    caller.until("TLS is to be spoken", |p| p.endpoints("stock") == (1, 1)).await;
    let held = until(&store, "held", |s| s.message.contains("front-1")).await;
    assert_eq!(held.effective_mode, EncryptionMode::Permissive, "{}", held.message);
    assert_eq!(server.takes(), ["tls", "raw_buffer"]);
    caller.speak_up().await;
    until(&store, "strict", |s| s.effective_mode == EncryptionMode::Strict).await;
    server.until("plaintext is refused", |p| p.takes() == ["tls"]).await;

    // Back: the server is told, but does not say that it takes plaintext.
    server.silent.insert(LDS);
    want(&store, EncryptionMode::Disabled).await;
    server.until("plaintext is taken", |p| p.takes() == ["tls", "raw_buffer"]).await;
    let held = until(&store, "held", |s| s.message.contains("stock-1")).await;
    assert_eq!(held.effective_mode, EncryptionMode::Permissive, "{}", held.message);
    assert_eq!(caller.endpoints("stock"), (1, 1));
    server.speak_up().await;
    caller.until("plaintext is spoken", |p| p.endpoints("stock") == (1, 0)).await;
    until(&store, "disabled", |s| s.effective_mode == EncryptionMode::Disabled && s.message.contains("disabled")).await;
}

#[tokio::test]
async fn who_cannot_do_tls_is_named_and_left_as_it_was() {
    let store = mesh().await;
    instance(&store, "stock-2", "stock", &[], None).await;
    let (address, _running) = serve(&store, authority(None, DAY)).await;
    let mut server = Proxy::connect(address, "stock-2", "stock", &[], false).await;
    let mut caller = Proxy::connect(address, "front-1", "front", &["stock"], true).await;
    let _other = Proxy::connect(address, "stock-1", "stock", &[], true).await;
    want(&store, EncryptionMode::Strict).await;
    caller.until("TLS to the one that can", |p| p.endpoints("stock") == (2, 1)).await;
    let held = until(&store, "held", |s| s.message.contains("stock-2") && s.callers.ready == 1).await;
    assert_eq!(held.effective_mode, EncryptionMode::Permissive);
    assert_eq!((held.instances.ready, held.instances.total), (1, 2));
    server.until("its listener", |p| p.takes() == [""]).await;
    assert!(server.certificate().is_none(), "it is given no secrets");
    assert!(!server.has.keys().any(|(type_url, _)| type_url == SDS));
}

#[tokio::test]
async fn a_caller_that_is_away_holds_strict_up() {
    let store = mesh().await;
    let (address, _running) = serve(&store, authority(None, DAY)).await;
    let mut server = Proxy::connect(address, "stock-1", "stock", &[], true).await;
    server.until("it has its certificate", |p| p.certificate().is_some()).await;
    want(&store, EncryptionMode::Strict).await;
    let held = until(&store, "held", |s| s.message.contains("front-1 (is not connected")).await;
    assert_eq!(held.effective_mode, EncryptionMode::Permissive);
}

#[tokio::test]
async fn a_certificate_is_replaced_at_half_its_life_on_the_same_stream() {
    let store = mesh().await;
    let (address, _running) = serve(&store, authority(None, weir_identity::Options::MIN_LEAF_TTL)).await;
    let mut server = Proxy::connect(address, "stock-1", "stock", &[], true).await;
    server.until("it has its certificate", |p| p.certificate().is_some()).await;
    let first = server.certificate();
    assert!(server.read::<Secret>(SDS, "weir:roots").is_some() || first.is_some());
    server.until("another one", |p| p.certificate() != first).await;
}

#[tokio::test]
async fn after_a_restart_nothing_is_signed_before_all_know_the_new_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    drop(authority(Some(&path), DAY));
    let store = mesh().await;
    let (address, _running) = serve(&store, authority(Some(&path), DAY)).await;
    let mut server = Proxy::connect(address, "stock-1", "stock", &[], true).await;
    server.until("it has the roots", |p| p.read::<Secret>(SDS, "weir:roots").is_some()).await;
    server.until("it has its listener", |p| !p.takes().is_empty()).await;
    assert!(server.certificate().is_none(), "front-1 is not back yet");
    let mut caller = Proxy::connect(address, "front-1", "front", &["stock"], true).await;
    caller.until("both have acknowledged", |p| p.certificate().is_some()).await;
    server.until("it has its certificate", |p| p.certificate().is_some()).await;
}

#[tokio::test]
async fn a_node_that_names_another_app_than_its_instance_is_given_no_certificate_of_it() {
    let store = mesh().await;
    let (address, _running) = serve(&store, authority(None, DAY)).await;
    let mut thief = Proxy::connect(address, "front-1", "stock", &[], true).await;
    thief.until("it has its listener", |p| !p.takes().is_empty()).await;
    assert_eq!(thief.takes(), [""]);
    assert!(thief.certificate().is_none());
}
