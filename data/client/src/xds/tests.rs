use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_types::pb::envoy::config::cluster::v3::cluster::DiscoveryType;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use tokio::sync::{mpsc, oneshot, watch};
use weir_config::ProxyConfig;

use super::*;
use crate::Token;
use crate::fixtures::{
    DeltaPeer, FakeControlPlane, SotwPeer, assignment, cluster_at, eds_cluster, listener, route_to, routes, soon,
    table_of,
};

const CDS: &str = crate::convert::CLUSTER;
const EDS: &str = crate::convert::ENDPOINTS;
const LDS: &str = crate::convert::LISTENER;
const RDS: &str = crate::convert::ROUTES;

/// A configuration on its way to the proxy, and where to say how that went.
struct Applying {
    config: ProxyConfig,
    done: oneshot::Sender<Result<(), ApplyError>>,
}

struct TestSink {
    applying: mpsc::Sender<Applying>,
    rejections: mpsc::UnboundedSender<String>,
}

impl Sink for TestSink {
    async fn apply(&mut self, config: ProxyConfig) -> Result<(), ApplyError> {
        let (done, outcome) = oneshot::channel();
        self.applying.send(Applying { config, done }).await.map_err(|_| ApplyError::Stopping)?;
        outcome.await.map_err(|_| ApplyError::Stopping)?
    }

    fn rejected(&mut self, message: &str) {
        let _ = self.rejections.send(message.to_owned());
    }
}

/// A client under test and the proxy's side of it.
struct Client {
    applying: mpsc::Receiver<Applying>,
    rejections: mpsc::UnboundedReceiver<String>,
    status: watch::Receiver<XdsStatus>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    fn start(ads: &FakeControlPlane, is_sotw: bool) -> Self {
        let (applying_sender, applying) = mpsc::channel(1);
        let (rejection_sender, rejections) = mpsc::unbounded_channel();
        let (status_sender, status) = watch::channel(XdsStatus::default());
        let node = Node { instance: "order-1".into(), app: "order".into(), ..Default::default() };
        let token = Token::new("secret", "test").unwrap();
        let options = XdsOptions { address: ads.address.clone(), token, trust: None, node, is_sotw };
        let sink = TestSink { applying: applying_sender, rejections: rejection_sender };
        let task = tokio::spawn(run(options, sink, status_sender));
        Client { applying, rejections, status, task }
    }

    async fn next(&mut self) -> Applying {
        soon("a configuration", self.applying.recv()).await.expect("the client runs")
    }

    /// Takes the next configuration as a proxy would.
    async fn take(&mut self) -> ProxyConfig {
        let applying = self.next().await;
        applying.done.send(Ok(())).unwrap();
        applying.config
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn endpoints(config: &ProxyConfig) -> BTreeSet<String> {
    config.clusters.iter().flat_map(|cluster| &cluster.endpoints).map(|endpoint| endpoint.address.to_string()).collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

/// Brings a client to where listener `l` serves cluster `a` with one endpoint.
async fn begin(peer: &mut DeltaPeer, client: &mut Client) -> ProxyConfig {
    peer.tell("c1", &[pack_any(eds_cluster("a"))], &[]).await;
    peer.answer_to("c1").await;
    peer.tell("e1", &[pack_any(assignment("a", &[("10.0.0.1", 80)]))], &[]).await;
    peer.answer_to("e1").await;
    peer.tell("l1", &[pack_any(listener("l", 8080, "r"))], &[]).await;
    peer.answer_to("l1").await;
    peer.tell("r1", &[pack_any(routes("r", "a"))], &[]).await;
    let config = client.take().await;
    peer.answer_to("r1").await;
    config
}

#[tokio::test]
async fn a_configuration_is_asked_for_piece_by_piece() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    assert_eq!(peer.authorization.as_deref(), Some("Bearer secret"));
    let first = peer.next().await;
    let node = first.node.unwrap();
    assert_eq!((first.type_url.as_str(), node.id.as_str(), node.cluster.as_str()), (CDS, "order-1", "order"));
    let second = peer.next().await;
    assert_eq!((second.type_url.as_str(), second.node), (LDS, None));
    peer.tell("c1", &[pack_any(eds_cluster("a"))], &[]).await;
    assert_eq!(peer.next().await.response_nonce, "c1");
    let wanted = peer.subscription(EDS).await;
    assert_eq!(wanted.resource_names_subscribe, ["a"]);
    peer.tell("e1", &[pack_any(assignment("a", &[("10.0.0.1", 80)]))], &[]).await;
    peer.tell("l1", &[pack_any(listener("l", 8080, "r"))], &[]).await;
    assert_eq!(peer.subscription(RDS).await.resource_names_subscribe, ["r"]);
    peer.tell("r1", &[pack_any(routes("r", "a"))], &[]).await;
    let config = client.take().await;
    assert_eq!((config.listeners.len(), endpoints(&config)), (1, set(&["10.0.0.1:80"])));
    let answer = peer.answer_to("r1").await;
    assert!(answer.error_detail.is_none() && answer.type_url == RDS);
    assert!(client.status.borrow().is_connected);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_in_force() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    let in_force = Arc::new(AtomicBool::new(false));
    peer.tell("e2", &[pack_any(assignment("a", &[("10.0.0.2", 80)]))], &[]).await;
    let seen = in_force.clone();
    let acknowledged = tokio::spawn(async move {
        peer.answer_to("e2").await;
        seen.load(Ordering::SeqCst)
    });
    let applying = client.next().await;
    assert_eq!(endpoints(&applying.config), set(&["10.0.0.2:80"]));
    // Let everything else run: an early acknowledgement would arrive now.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    in_force.store(true, Ordering::SeqCst);
    applying.done.send(Ok(())).unwrap();
    assert!(soon("the acknowledgement", acknowledged).await.unwrap());
}

#[tokio::test]
async fn what_is_bad_is_refused_by_name_and_the_rest_is_taken() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    let mut bad = routes("r", "a");
    bad.virtual_hosts[0].routes[0].r#match = None;
    peer.tell("r2", &[pack_any(bad)], &[]).await;
    let answer = peer.answer_to("r2").await;
    let words = answer.error_detail.unwrap().message;
    assert_eq!(words, "routes `r`: virtual_hosts[0].routes[0].match: is absent");
    assert_eq!(soon("the rejection", client.rejections.recv()).await.unwrap(), words);
    let far = assignment("a", &[("10.0.0.3", 80)]);
    peer.tell("e2", &[pack_any(assignment("b", &[("nowhere", 1)])), pack_any(far)], &[]).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.3:80"]));
    assert!(peer.answer_to("e2").await.error_detail.unwrap().message.contains("endpoints of `b`"));
    assert_eq!(client.status.borrow().rejected, 2);
}

#[tokio::test]
async fn a_listener_that_cannot_open_does_not_hold_up_the_rest() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    peer.tell("l2", &[pack_any(listener("l", 9090, "r")), pack_any(listener("m", 9091, "r"))], &[]).await;
    let applying = client.next().await;
    let error = ApplyError::Rejected { message: "listener l: in use".into(), listeners: vec!["l".into()] };
    applying.done.send(Err(error)).unwrap();
    let config = client.take().await;
    let ports: Vec<_> = config.listeners.iter().map(|listener| listener.bind.port()).collect();
    assert_eq!(ports, [8080, 9091]);
    assert_eq!(peer.answer_to("l2").await.error_detail.unwrap().message, "listener l: in use");
}

#[tokio::test]
async fn what_the_proxy_refuses_leaves_no_trace() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    peer.tell("e2", &[pack_any(assignment("a", &[("10.0.0.2", 80)]))], &[]).await;
    let error = ApplyError::Rejected { message: "no".into(), listeners: Vec::new() };
    client.next().await.done.send(Err(error)).unwrap();
    assert_eq!(peer.answer_to("e2").await.error_detail.unwrap().message, "no");
    peer.tell("c2", &[pack_any(cluster_at("z", DiscoveryType::Static, "10.0.0.9", 80))], &[]).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.1:80", "10.0.0.9:80"]));
}

#[tokio::test]
async fn a_lost_stream_is_resumed_where_it_was() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    drop(peer);
    let mut peer = ads.delta().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let request = peer.next().await;
        held.push((request.type_url, request.resource_names_subscribe, request.initial_resource_versions));
    }
    let version = |name: &str, version: &str| [(name.to_owned(), version.to_owned())].into();
    assert_eq!(held[0], (CDS.into(), vec![], version("a", "v-c1")));
    assert_eq!(held[1], (EDS.into(), vec!["a".into()], version("a", "v-e1")));
    assert_eq!(held[2], (LDS.into(), vec![], version("l", "v-l1")));
    assert_eq!(held[3], (RDS.into(), vec!["r".into()], version("r", "v-r1")));
    // Only what is new reaches the proxy: the next configuration has the change and nothing came before it.
    peer.tell("e2", &[pack_any(assignment("a", &[("10.0.0.4", 80)]))], &[]).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.4:80"]));
}

#[tokio::test]
async fn what_belongs_to_a_later_version_is_passed_over() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    let stranger = Any { type_url: "type.googleapis.com/weir.next.Thing".into(), value: vec![1] };
    peer.tell("x1", &[stranger], &[]).await;
    peer.tell("e2", &[pack_any(assignment("a", &[("10.0.0.5", 80)]))], &[]).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.5:80"]));
    assert_eq!(peer.next().await.response_nonce, "e2");
}

#[tokio::test]
async fn an_empty_mesh_is_a_configuration_too() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let peer = ads.delta().await;
    peer.tell_of(CDS, "c1", &[], &[]).await;
    peer.tell_of(LDS, "l1", &[], &[]).await;
    assert_eq!(client.take().await, ProxyConfig::default());
}

#[tokio::test]
async fn the_client_ends_with_the_proxy() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    peer.tell("e2", &[pack_any(assignment("a", &[]))], &[]).await;
    client.next().await.done.send(Err(ApplyError::Stopping)).unwrap();
    soon("the end", &mut client.task).await.unwrap();
}

fn whole(kind: &str, version: &str, resources: &[Any]) -> DiscoveryResponse {
    DiscoveryResponse {
        type_url: kind.to_owned(),
        version_info: version.to_owned(),
        nonce: format!("n-{kind}-{version}"),
        resources: resources.to_vec(),
        ..Default::default()
    }
}

/// The next request of a type that acknowledges or refuses a version.
async fn answer_of(peer: &mut SotwPeer, kind: &str, version: &str) -> DiscoveryRequest {
    loop {
        let request = peer.next().await;
        if request.response_nonce == format!("n-{kind}-{version}") {
            return request;
        }
    }
}

#[tokio::test]
async fn the_whole_state_is_followed_too() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, true);
    let mut peer = ads.sotw().await;
    peer.send(whole(CDS, "1", &[pack_any(eds_cluster("a")), pack_any(eds_cluster("b"))])).await;
    assert_eq!(answer_of(&mut peer, CDS, "1").await.version_info, "1");
    let wanted = peer.next().await;
    assert_eq!((wanted.type_url.as_str(), wanted.resource_names), (EDS, vec!["a".to_owned(), "b".to_owned()]));
    let both = [pack_any(assignment("a", &[("10.0.0.1", 80)])), pack_any(assignment("b", &[("10.0.0.2", 80)]))];
    peer.send(whole(EDS, "1", &both)).await;
    peer.send(whole(LDS, "1", &[pack_any(listener("l", 8080, "r"))])).await;
    answer_of(&mut peer, LDS, "1").await;
    peer.send(whole(RDS, "1", &[pack_any(routes("r", "a"))])).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.1:80", "10.0.0.2:80"]));
    // A cluster that is not there any more is gone, since nothing refers to it; so are its endpoints.
    peer.send(whole(CDS, "2", &[pack_any(eds_cluster("a"))])).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.1:80"]));
    answer_of(&mut peer, CDS, "2").await;
    assert_eq!(peer.next().await.resource_names, ["a"]);
    // A refusal repeats the version that stands.
    peer.send(whole(RDS, "2", &[pack_any(table_of("r", vec![Default::default()]))])).await;
    let refusal = answer_of(&mut peer, RDS, "2").await;
    assert_eq!(refusal.version_info, "1");
    assert!(refusal.error_detail.unwrap().message.starts_with("routes `r`: virtual_hosts[0].routes[0].match"));
    // So does the first request of the next stream.
    drop(peer);
    let mut peer = ads.sotw().await;
    let again = peer.next().await;
    assert_eq!((again.version_info.as_str(), again.response_nonce.as_str()), ("2", ""));
    assert!(again.node.is_some());
    peer.send(whole(EDS, "2", &[pack_any(assignment("a", &[("10.0.0.3", 80)]))])).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.3:80"]));
}

#[tokio::test]
async fn routes_to_a_new_cluster_wait_for_it() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let mut peer = ads.delta().await;
    begin(&mut peer, &mut client).await;
    let table = table_of("r", vec![route_to("new")]);
    peer.tell("r2", &[pack_any(table)], &[]).await;
    // Acknowledged, since it is sound; in force once what it needs has come.
    assert!(peer.answer_to("r2").await.error_detail.is_none());
    peer.tell("c2", &[pack_any(eds_cluster("new"))], &["a"]).await;
    assert!(peer.answer_to("c2").await.error_detail.is_none());
    peer.tell("e2", &[pack_any(assignment("new", &[("10.0.0.6", 80)]))], &[]).await;
    assert_eq!(endpoints(&client.take().await), set(&["10.0.0.6:80"]));
}

#[tokio::test]
async fn a_name_is_resolved_before_its_cluster_is_used() {
    let mut ads = FakeControlPlane::start().await;
    let mut client = Client::start(&ads, false);
    let peer = ads.delta().await;
    peer.tell_of(LDS, "l1", &[], &[]).await;
    peer.tell("c1", &[pack_any(cluster_at("db", DiscoveryType::StrictDns, "localhost", 5432))], &[]).await;
    let resolved = endpoints(&client.take().await);
    assert!(resolved.contains("127.0.0.1:5432") || resolved.contains("[::1]:5432"), "{resolved:?}");
}

mod equivalence;
