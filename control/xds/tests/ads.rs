//! The server over a real socket, with a client that speaks gRPC: what is sent, what acknowledgements do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::Server;
use weir_model::instance::{InstancePhase, ManagedBy, UNPUBLISHED, Upstream};
use weir_model::token::Joiner;
use weir_model::{App, AppSpec, Author, Condition, ConditionStatus, Instance, InstanceSpec, Key, Kind as What};
use weir_store::memory::MemoryStore;
use weir_store::observed::Observed;
use weir_store::{Event, EventQuery, SharedStore, WatchEvent, WatchQuery, typed};
use weir_xds::{Options, Xds, anyone};

const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Longer than anything here takes on the slowest machine; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    observed: Arc<Observed>,
    shutdown: watch::Sender<bool>,
}

/// No settling and no graces, except where a test asks for them.
fn quick() -> Options {
    Options { settle: Duration::ZERO, ..Options::default() }
}

async fn serve(store: &SharedStore, options: Options) -> Running {
    let observed = Arc::new(Observed::default());
    let xds = Xds::new(store.clone(), Arc::clone(&observed), anyone(), options);
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
    Running { address, observed, shutdown }
}

/// A sidecar `front-1` that calls `stock`.
fn node() -> Node {
    let text = |t: &str| Value { kind: Some(Kind::StringValue(t.to_owned())) };
    let object =
        |fields: Vec<(&str, Value)>| Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() };
    let upstream = object(vec![("app", text("stock")), ("listen", text("127.0.0.1:15001"))]);
    let upstreams = ListValue { values: vec![Value { kind: Some(Kind::StructValue(upstream)) }] };
    let weir = object(vec![("app", text("front")), ("upstreams", Value { kind: Some(Kind::ListValue(upstreams)) })]);
    Node {
        id: "front-1".to_owned(),
        cluster: "front".to_owned(),
        metadata: Some(object(vec![("weir", Value { kind: Some(Kind::StructValue(weir)) })])),
        user_agent_name: "test".to_owned(),
        ..Default::default()
    }
}

struct Sotw {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Sotw {
    async fn connect(server: &Running) -> Sotw {
        let mut client =
            AggregatedDiscoveryServiceClient::connect(format!("http://{}", server.address)).await.expect("it listens");
        let (requests, queue) = mpsc::channel(64);
        // The server answers with its headers at once, so the stream is open before the first request.
        let responses = client.stream_aggregated_resources(ReceiverStream::new(queue)).await.expect("it opens");
        Sotw { requests, responses: responses.into_inner() }
    }

    async fn ask(&self, type_url: &str, names: &[&str]) {
        let resource_names = names.iter().map(|n| n.to_string()).collect();
        let request = DiscoveryRequest {
            node: Some(node()),
            type_url: type_url.to_owned(),
            resource_names,
            ..Default::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    async fn next(&mut self) -> DiscoveryResponse {
        let response = timeout(LONG, self.responses.message()).await.expect("a response comes");
        response.expect("no error").expect("the stream goes on")
    }

    async fn answer(&self, response: &DiscoveryResponse, names: &[&str], error: Option<&str>) {
        let request = DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: names.iter().map(|n| n.to_string()).collect(),
            error_detail: error.map(|message| RpcStatus { code: 3, message: message.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }
}

struct Delta {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    async fn connect(server: &Running) -> Delta {
        let mut client =
            AggregatedDiscoveryServiceClient::connect(format!("http://{}", server.address)).await.expect("it listens");
        let (requests, queue) = mpsc::channel(64);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(queue)).await.expect("it opens");
        Delta { requests, responses: responses.into_inner() }
    }

    async fn ask(&self, type_url: &str, names: &[&str], has: HashMap<String, String>) {
        let request = DeltaDiscoveryRequest {
            node: Some(node()),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|n| n.to_string()).collect(),
            initial_resource_versions: has,
            ..Default::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = timeout(LONG, self.responses.message()).await.expect("a response comes");
        response.expect("no error").expect("the stream goes on")
    }

    async fn acknowledge(&self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }
}

fn endpoints(body: &[u8]) -> Vec<u32> {
    use envoy_types::pb::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
    use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let assignment = ClusterLoadAssignment::decode(body).expect("an assignment");
    let hosts = assignment.endpoints.into_iter().flat_map(|l| l.lb_endpoints).filter_map(|e| e.host_identifier);
    let mut ports: Vec<u32> = hosts
        .filter_map(|host| match host {
            HostIdentifier::Endpoint(endpoint) => endpoint.address?.address,
            HostIdentifier::EndpointName(_) => None,
        })
        .filter_map(|address| match address {
            Address::SocketAddress(socket) => socket.port_specifier,
            _ => None,
        })
        .filter_map(|port| if let PortSpecifier::PortValue(port) = port { Some(port) } else { None })
        .collect();
    ports.sort_unstable();
    ports
}

fn author() -> Author {
    Author::new("test", "a test")
}

async fn instance(store: &SharedStore, name: &str, app: &str, port: u16, calls: &[&str]) {
    let spec = InstanceSpec {
        app: app.to_owned(),
        unit: "east".to_owned(),
        zone: String::new(),
        group: String::new(),
        stack: String::new(),
        managed_by: ManagedBy::Weir,
        workload: None,
        address: [127, 0, 0, 1].into(),
        port,
        app_port: 1,
        app_address: None,
        protocol: Default::default(),
        upstreams: calls
            .iter()
            .map(|app| Upstream { app: app.to_string(), listen: "127.0.0.1:15001".parse().expect("an address") })
            .collect(),
        proxy_version: "a".to_owned(),
        app_version: String::new(),
        weight: 100,
        config_revision: String::new(),
        retire: false,
    };
    typed::create(&**store, &Instance::new(name, spec), &author()).await.expect("it is new");
    phase(store, name, InstancePhase::Serving).await;
}

async fn phase(store: &SharedStore, name: &str, phase: InstancePhase) {
    let change = |instance: &mut Instance| {
        instance.status.phase = phase;
        instance.status.phase_since = Some(Timestamp::now());
        true
    };
    typed::modify_status::<InstanceSpec>(&**store, name, change).await.expect("it is stored").expect("it is there");
}

/// A store with two instances of `stock`, at ports 1001 and 1002.
async fn stock() -> SharedStore {
    let store = MemoryStore::new().shared();
    typed::create(&*store, &App::new("stock", AppSpec::default()), &author()).await.expect("it is new");
    instance(&store, "stock-1", "stock", 1001, &[]).await;
    instance(&store, "stock-2", "stock", 1002, &[]).await;
    store
}

async fn condition(store: &SharedStore, name: &str) -> Option<Condition> {
    let instance = typed::get::<InstanceSpec>(&**store, name).await.expect("readable").expect("it is there");
    instance.status.conditions.into_iter().find(|c| c.r#type == UNPUBLISHED)
}

/// Waits for the condition to become `status`.
async fn becomes(store: &SharedStore, name: &str, status: ConditionStatus) -> Condition {
    let mut events = store.watch(&WatchQuery::kind(What::Instance, 0)).await.expect("a watch");
    let found = async {
        loop {
            if let Some(condition) = condition(store, name).await.filter(|c| c.status == status) {
                return condition;
            }
            let event: WatchEvent = events.next().await.expect("it goes on").expect("no gap");
            drop(event);
        }
    };
    timeout(LONG, found).await.expect("the condition changes")
}

async fn events(store: &SharedStore, name: &str) -> Vec<Event> {
    let query = EventQuery { about: Some(Key::new(What::Instance, name)), limit: 0 };
    store.events(&query).await.expect("readable")
}

#[tokio::test]
async fn state_of_the_world_follows_an_endpoint_change() {
    let store = stock().await;
    let server = serve(&store, quick()).await;
    let mut client = Sotw::connect(&server).await;
    client.ask(CDS, &[]).await;
    let clusters = client.next().await;
    assert_eq!((clusters.type_url.as_str(), clusters.resources.len()), (CDS, 1));
    client.answer(&clusters, &[], None).await;
    client.ask(EDS, &["stock"]).await;
    let first = client.next().await;
    assert_eq!(endpoints(&first.resources[0].value), [1001, 1002]);
    client.answer(&first, &["stock"], None).await;
    instance(&store, "stock-3", "stock", 1003, &[]).await;
    let second = client.next().await;
    assert_eq!(endpoints(&second.resources[0].value), [1001, 1002, 1003]);
    client.answer(&second, &["stock"], None).await;
    store.delete(&Key::new(What::Instance, "stock-1"), None, &author()).await.expect("it was there");
    assert_eq!(endpoints(&client.next().await.resources[0].value), [1002, 1003]);
}

#[tokio::test]
async fn a_delta_client_that_comes_back_after_a_restart_gets_only_what_changed() {
    let store = stock().await;
    let server = serve(&store, quick()).await;
    let mut client = Delta::connect(&server).await;
    let mut has: HashMap<&str, HashMap<String, String>> = HashMap::new();
    for (type_url, names) in [(CDS, &[][..]), (EDS, &["stock"]), (LDS, &[]), (RDS, &["outbound|stock"])] {
        client.ask(type_url, names, HashMap::new()).await;
        let response = client.next().await;
        assert_eq!(response.type_url, type_url);
        let versions = response.resources.iter().map(|r| (r.name.clone(), r.version.clone()));
        has.insert(type_url, versions.collect());
        client.acknowledge(&response).await;
    }
    server.shutdown.send_replace(true);
    let server = serve(&store, quick()).await;
    let mut client = Delta::connect(&server).await;
    for (type_url, names) in [(CDS, &[][..]), (EDS, &["stock"]), (LDS, &[]), (RDS, &["outbound|stock"])] {
        client.ask(type_url, names, has[type_url].clone()).await;
    }
    instance(&store, "stock-3", "stock", 1003, &[]).await;
    let only = client.next().await;
    assert_eq!(only.type_url, EDS);
    let body = &only.resources[0].resource.as_ref().expect("a body").value;
    assert_eq!(endpoints(body), [1001, 1002, 1003]);
}

#[tokio::test]
async fn an_instance_is_unpublished_when_its_callers_have_acknowledged_not_before() {
    let store = stock().await;
    let server = serve(&store, quick()).await;
    let mut client = Sotw::connect(&server).await;
    client.ask(EDS, &["stock"]).await;
    let first = client.next().await;
    client.answer(&first, &["stock"], None).await;
    phase(&store, "stock-1", InstancePhase::Unpublishing).await;
    let without = client.next().await;
    assert_eq!(endpoints(&without.resources[0].value), [1002]);
    assert_eq!(condition(&store, "stock-1").await, None, "sent is not acknowledged");
    client.answer(&without, &["stock"], None).await;
    let known = becomes(&store, "stock-1", ConditionStatus::True).await;
    assert_eq!(known.reason, "AcknowledgedByAll");
    assert!(known.message.contains("(1)"), "{}", known.message);
    phase(&store, "stock-1", InstancePhase::Serving).await;
    assert_eq!(endpoints(&client.next().await.resources[0].value), [1001, 1002]);
    assert_eq!(becomes(&store, "stock-1", ConditionStatus::False).await.reason, "Published");
}

#[tokio::test]
async fn a_caller_that_rejects_is_named_when_time_is_up() {
    let store = stock().await;
    let options = Options { unpublish_timeout: Duration::from_millis(300), ..quick() };
    let server = serve(&store, options).await;
    let mut client = Sotw::connect(&server).await;
    client.ask(EDS, &["stock"]).await;
    let first = client.next().await;
    client.answer(&first, &["stock"], None).await;
    phase(&store, "stock-1", InstancePhase::Unpublishing).await;
    let without = client.next().await;
    client.answer(&without, &["stock"], Some("I don't like it")).await;
    let given_up = becomes(&store, "stock-1", ConditionStatus::True).await;
    assert_eq!(given_up.reason, "TimedOut");
    assert!(given_up.message.contains("front-1"), "{}", given_up.message);
    let view = server.observed.proxies.all().remove(0);
    assert_eq!(view.types["EDS"].error, "I don't like it");
    assert_eq!(view.types["EDS"].rejected, without.version_info);
    assert_eq!(view.types["EDS"].acknowledged, first.version_info);
    assert!(events(&store, "stock-1").await.iter().any(|e| e.reason == "TimedOut"));
}

#[tokio::test]
async fn a_control_plane_killed_mid_upgrade_waits_for_callers_to_come_back() {
    let store = stock().await;
    instance(&store, "front-1", "front", 2001, &["stock"]).await;
    let first = serve(&store, quick()).await;
    let mut client = Sotw::connect(&first).await;
    client.ask(EDS, &["stock"]).await;
    let had = client.next().await;
    client.answer(&had, &["stock"], None).await;
    first.shutdown.send_replace(true);
    // While nobody serves xDS, the upgrade goes on as far as the store.
    phase(&store, "stock-1", InstancePhase::Unpublishing).await;
    let second = serve(&store, quick()).await;
    let mut client = Sotw::connect(&second).await;
    client.ask(EDS, &["stock"]).await;
    let now = client.next().await;
    assert_eq!(endpoints(&now.resources[0].value), [1002]);
    assert_eq!(condition(&store, "stock-1").await, None, "front-1 was not there, then it had not acknowledged");
    client.answer(&now, &["stock"], None).await;
    assert_eq!(becomes(&store, "stock-1", ConditionStatus::True).await.reason, "AcknowledgedByAll");
}

#[tokio::test]
async fn a_token_of_another_app_is_refused() {
    let joiner = Joiner { actor: "proxy/orders".to_owned(), apps: vec!["orders".to_owned()] };
    let bound: weir_xds::Authenticate = Arc::new(move |_| {
        let joiner = joiner.clone();
        Box::pin(async move { Ok(joiner) })
    });
    let xds = Xds::new(stock().await, Arc::new(Observed::default()), bound, quick());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(Server::builder().add_service(xds.service()).serve_with_incoming(TcpListenerStream::new(listener)));
    let (_down, stopped) = watch::channel(false);
    tokio::spawn(async move { xds.run(stopped).await });
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.expect("it listens");
    let node = Node { id: "front-1".to_owned(), cluster: "front".to_owned(), ..Default::default() };
    let asks = DeltaDiscoveryRequest { node: Some(node), type_url: CDS.to_owned(), ..Default::default() };
    let opened = client.delta_aggregated_resources(tokio_stream::once(asks)).await.expect("it opens");
    let status = timeout(LONG, opened.into_inner().message()).await.expect("it ends").expect_err("it is refused");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("is for orders and not for \"front\""), "{}", status.message());
}

#[tokio::test]
async fn who_is_not_allowed_is_told_so() {
    let store = stock().await;
    let observed = Arc::new(Observed::default());
    let nobody: weir_xds::Authenticate =
        Arc::new(|_| Box::pin(async { Err(tonic::Status::unauthenticated("no token")) }));
    let xds = Xds::new(store, observed, nobody, quick());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(Server::builder().add_service(xds.service()).serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.expect("it listens");
    let status = client.stream_aggregated_resources(tokio_stream::empty()).await.expect_err("it is refused");
    assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, "no token"));
}
