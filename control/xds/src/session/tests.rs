//! A simulated client on the other side, for both variants of the protocol.

use envoy_types::pb::envoy::config::route::v3 as wire;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::fixtures::{Store, app, client, dead, in_phase, instance, route, sidecar};
use weir_model::instance::InstancePhase;

mod acknowledging;
mod secrets;

const PATIENCE: Duration = Duration::from_secs(5);

/// A proxy or a gRPC client, as far as xDS goes.
struct Client {
    node: Node,
    mode: Mode,
    session: Session,
    now: Instant,
    has: [BTreeMap<String, Arc<Resource>>; 5],
    asked: [BTreeSet<String>; 5],
    versions: [String; 5],
    /// Responses that it has read but not answered.
    unanswered: Vec<Response>,
    log: Vec<(Type, usize)>,
    acknowledged: BTreeMap<String, u64>,
    progress: Vec<(Type, Progress)>,
    /// It has had everything once: from then on nothing it routes to may be missing.
    complete: bool,
}

impl Client {
    fn connect(node: Node, mode: Mode, world: Arc<World>) -> Client {
        let session = Session::new(node.clone(), mode, world, PATIENCE, 1000);
        Client {
            node,
            mode,
            session,
            now: Instant::now(),
            has: Default::default(),
            asked: Default::default(),
            versions: Default::default(),
            unanswered: Vec::new(),
            log: Vec::new(),
            acknowledged: BTreeMap::new(),
            progress: Vec::new(),
            complete: false,
        }
    }

    /// As a sidecar begins: everything of the root types.
    fn sidecar(mode: Mode, world: Arc<World>) -> Client {
        let mut client = Client::connect(sidecar("front-1", "front", &["order"]), mode, world);
        client.ask(Type::Cluster, &[]);
        client.ask(Type::Listener, &[]);
        client.settle();
        client.complete = true;
        client
    }

    /// First request of a type.
    fn ask(&mut self, r#type: Type, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        self.asked[r#type.index()] = names.iter().cloned().collect();
        let result = match self.mode {
            Mode::Sotw => {
                let version = self.versions[r#type.index()].clone();
                self.session.sotw(r#type, SotwRequest { names, version, ..Default::default() })
            }
            Mode::Delta => {
                let versions = self.has[r#type.index()].iter();
                let initial = versions.map(|(n, r)| (n.clone(), r.version.to_string())).collect();
                self.session.delta(r#type, DeltaRequest { subscribe: names, initial, ..Default::default() })
            }
        };
        result.expect("within bounds");
    }

    /// The stream breaks; the client keeps what it has and asks again on a new one.
    fn reconnect(&mut self, world: Arc<World>) {
        self.session = Session::new(self.node.clone(), self.mode, world, PATIENCE, 1000);
        self.unanswered.clear();
        self.acknowledged.clear();
        for r#type in Type::ALL {
            let names: Vec<String> = self.asked[r#type.index()].iter().cloned().collect();
            if r#type.is_root() && self.node.sidecar.is_some() || !names.is_empty() {
                self.ask(r#type, &names.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }

    /// Reads what the server sends now.
    fn read(&mut self) -> usize {
        let output = self.session.poll(self.now);
        for (name, seq) in output.acknowledged {
            match seq {
                Some(seq) => drop(self.acknowledged.insert(name.to_string(), seq)),
                None => drop(self.acknowledged.remove(&*name)),
            }
        }
        self.progress.extend(output.progress);
        let count = output.responses.len();
        for response in output.responses {
            self.log.push((response.r#type, response.resources.len()));
            self.unanswered.push(response);
        }
        count
    }

    /// Takes the oldest response and answers it; follows what it leads to.
    fn answer(&mut self) {
        let response = self.unanswered.remove(0);
        let at = response.r#type.index();
        if self.mode == Mode::Sotw && response.r#type.is_root() {
            self.has[at].clear();
        }
        for resource in &response.resources {
            self.has[at].insert(resource.name.to_string(), Arc::clone(resource));
        }
        for name in &response.removed {
            self.has[at].remove(&**name);
        }
        self.versions[at] = response.version.to_string();
        self.acknowledge(&response, None);
        if self.node.sidecar.is_some() {
            self.follow(response.r#type);
        }
        self.check();
    }

    fn acknowledge(&mut self, response: &Response, error: Option<String>) {
        let nonce = response.nonce.clone();
        let result = match self.mode {
            Mode::Sotw => {
                let names = self.asked[response.r#type.index()].iter().cloned().collect();
                let version = self.versions[response.r#type.index()].clone();
                self.session.sotw(response.r#type, SotwRequest { names, version, nonce, error })
            }
            Mode::Delta => self.session.delta(response.r#type, DeltaRequest { nonce, error, ..Default::default() }),
        };
        result.expect("within bounds");
    }

    /// Listeners lead to routes, clusters to endpoints.
    fn follow(&mut self, r#type: Type) {
        let is_local = |name: &&String| name.starts_with("inbound|");
        let names: BTreeSet<String> = self.has[r#type.index()].keys().filter(|n| !is_local(n)).cloned().collect();
        let next = match r#type {
            Type::Cluster => Type::Endpoints,
            Type::Listener => Type::Route,
            Type::Secret | Type::Endpoints | Type::Route => return,
        };
        let before = std::mem::replace(&mut self.asked[next.index()], names.clone());
        self.has[next.index()].retain(|name, _| names.contains(name));
        if before == names {
            return;
        }
        if before.is_empty() && !self.session.of(next).requested {
            return self.ask(next, &names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let request = match self.mode {
            Mode::Sotw => {
                let (version, nonce) = (self.versions[next.index()].clone(), self.session.of(next).last_nonce.clone());
                let names = names.into_iter().collect();
                self.session.sotw(next, SotwRequest { names, version, nonce, error: None })
            }
            Mode::Delta => {
                let subscribe = names.difference(&before).cloned().collect();
                let unsubscribe = before.difference(&names).cloned().collect();
                self.session.delta(next, DeltaRequest { subscribe, unsubscribe, ..Default::default() })
            }
        };
        request.expect("within bounds");
    }

    /// Reads and answers until nothing comes any more.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.read();
            if self.unanswered.is_empty() {
                return;
            }
            self.answer();
        }
        panic!("the server does not stop sending: {:?}", self.log);
    }

    /// Make before break: every route it has leads to clusters that it has, with endpoints.
    fn check(&self) {
        if !self.complete {
            return;
        }
        for route in self.has[Type::Route.index()].values().filter(|r| &*r.name != "inbound") {
            for cluster in clusters_of(route) {
                assert!(self.has[Type::Cluster.index()].contains_key(&cluster), "{} without {cluster}", route.name);
                assert!(self.has[Type::Endpoints.index()].contains_key(&cluster), "no endpoints of {cluster}");
            }
        }
    }

    fn names(&self, r#type: Type) -> Vec<&str> {
        self.has[r#type.index()].keys().map(String::as_str).collect()
    }

    fn content(&self) -> Vec<(&str, &str)> {
        self.has.iter().flat_map(|has| has.iter().map(|(name, r)| (name.as_str(), &*r.version))).collect()
    }

    /// What it should have in the end.
    fn expected(&self, world: &World) -> Vec<(String, String)> {
        let mut expected: [BTreeMap<String, String>; 5] = Default::default();
        for r#type in Type::ALL {
            let named = self.asked[r#type.index()].iter().filter_map(|n| self.node.named(world, r#type, n));
            let roots = if self.node.sidecar.is_some() { self.node.roots(world, r#type) } else { Vec::new() };
            let all = roots.into_iter().chain(named);
            expected[r#type.index()] = all.map(|r| (r.name.to_string(), r.version.to_string())).collect();
        }
        expected.into_iter().flatten().collect()
    }
}

fn clusters_of(route: &Resource) -> Vec<String> {
    let configuration = wire::RouteConfiguration::decode(route.body.as_slice()).expect("a route configuration");
    let actions = configuration.virtual_hosts.into_iter().flat_map(|h| h.routes).filter_map(|r| r.action);
    let clusters = actions.flat_map(|action| match action {
        wire::route::Action::Route(to) => match to.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => vec![name],
            Some(ClusterSpecifier::WeightedClusters(w)) => w.clusters.into_iter().map(|c| c.name).collect(),
            _ => vec![],
        },
        _ => vec![],
    });
    clusters.collect()
}

fn mesh() -> Store {
    let mut store = Store::default();
    for name in ["front", "order", "stock"] {
        store.put(app(name));
        store.put(instance(name, 1, ""));
        store.put(instance(name, 2, ""));
    }
    store.index.publish();
    store
}

/// Publishes and tells the client what it is interested in.
fn publish(store: &mut Store, clients: &mut [Client]) {
    let changes = store.index.publish().apps;
    for client in clients {
        let interests = client.session.interests();
        let interested = |app: &str| interests.as_ref().is_none_or(|apps| apps.contains(app));
        let own = changes.iter().filter(|(app, _)| interested(app)).cloned().collect();
        client.session.see(store.index.world(), &own);
    }
}

fn both(store: &Store) -> [Client; 2] {
    [Mode::Sotw, Mode::Delta].map(|mode| Client::sidecar(mode, store.index.world()))
}

#[test]
fn a_sidecar_gets_its_listeners_routes_clusters_and_endpoints() {
    for client in both(&mesh()) {
        assert_eq!(client.names(Type::Listener), ["inbound", "outbound|order"]);
        assert_eq!(client.names(Type::Route), ["inbound", "outbound|order"]);
        assert_eq!(client.names(Type::Cluster), ["inbound|9000", "order"]);
        assert_eq!(client.names(Type::Endpoints), ["order"]);
    }
}

#[test]
fn an_endpoint_change_sends_only_endpoints_of_that_cluster() {
    let mut store = mesh();
    let mut clients = both(&store);
    store.put(instance("order", 3, ""));
    store.put(instance("stock", 3, ""));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.log.clear();
        client.settle();
        assert_eq!(client.log, [(Type::Endpoints, 1)]);
    }
}

#[test]
fn a_new_backend_is_made_before_the_route_leads_to_it_and_broken_after() {
    let mut store = mesh();
    let mut clients = both(&store);
    store.put(route("canary", "order", &[("stock", "", 1), ("order", "", 9)]));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.log.clear();
        client.settle();
        let types: Vec<Type> = client.log.iter().map(|(t, _)| *t).collect();
        assert_eq!(types, [Type::Cluster, Type::Endpoints, Type::Route]);
    }
    store.delete("route/canary");
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.log.clear();
        client.settle();
        let types: Vec<Type> = client.log.iter().map(|(t, _)| *t).collect();
        assert_eq!(types, [Type::Route, Type::Cluster]);
        assert_eq!(client.names(Type::Cluster), ["inbound|9000", "order"]);
    }
}

#[test]
fn a_client_that_does_not_answer_is_not_flooded_but_goes_on_after_patience() {
    let mut store = mesh();
    let mut clients = both(&store);
    for round in 0..20 {
        store.put(instance("order", 10 + round, ""));
        publish(&mut store, &mut clients);
        for client in &mut clients {
            client.read();
        }
    }
    for client in &mut clients {
        assert_eq!(client.unanswered.len(), 1, "one response in flight");
        client.now += PATIENCE;
        assert_eq!(client.read(), 1, "then the newest state");
        client.settle();
        assert_eq!(client.content(), borrowed(&client.expected(&store.index.world())));
    }
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()
}

#[test]
fn a_rejected_version_is_noted_and_not_sent_again_until_it_changes() {
    let mut store = mesh();
    let mut clients = both(&store);
    store.put(route("r", "order", &[("order", "", 1)]));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.progress.clear();
        assert_eq!(client.read(), 1);
        let response = client.unanswered.remove(0);
        client.acknowledge(&response, Some("no such cluster".to_owned()));
        assert_eq!(client.read(), 0, "not again");
        let rejected = Progress::Rejected(Arc::clone(&response.version), "no such cluster".to_owned());
        assert!(client.progress.contains(&(Type::Route, rejected)), "{:?}", client.progress);
    }
    store.put(instance("order", 7, ""));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.log.clear();
        client.settle();
        assert_eq!(client.log, [(Type::Endpoints, 1)], "the rejected routes are not repeated");
    }
    store.put(route("r", "order", &[("order", "", 2), ("order", "", 1)]));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.log.clear();
        client.settle();
        assert_eq!(client.log, [(Type::Route, 1)], "but a change is sent");
    }
}

#[test]
fn after_a_restart_a_client_that_has_everything_is_sent_nothing_needless() {
    let store = mesh();
    let again = store.restarted();
    for mut client in both(&store) {
        client.log.clear();
        client.reconnect(again.index.world());
        client.settle();
        // State of the world can't tell whether a client still has what it names; delta can.
        let repeated = [(Type::Endpoints, 1), (Type::Route, 2)];
        assert_eq!(client.log, if client.mode == Mode::Sotw { &repeated[..] } else { &[] }, "{:?}", client.mode);
        let seq = again.index.world().seq;
        assert_eq!(client.acknowledged, BTreeMap::from([("order".to_owned(), seq)]), "it counts as acknowledged");
    }
}

#[test]
fn after_a_restart_a_client_is_sent_what_changed_meanwhile() {
    let store = mesh();
    for mut client in both(&store) {
        let mut again = store.restarted();
        again.put(dead(instance("order", 1, "")));
        again.index.publish();
        client.log.clear();
        client.reconnect(again.index.world());
        client.read();
        assert_eq!(client.log, [(Type::Endpoints, 1)], "routes wait for it, if they are repeated at all");
        assert_eq!(client.acknowledged["order"], 0, "not acknowledged yet");
        client.settle();
        assert_eq!(client.acknowledged["order"], again.index.world().seq);
    }
}

#[test]
fn grpc_clients_ask_by_name() {
    let store = mesh();
    let mut grpc = Client::connect(client("grpc"), Mode::Sotw, store.index.world());
    grpc.ask(Type::Listener, &["stock"]);
    grpc.settle();
    grpc.ask(Type::Route, &["outbound|stock"]);
    grpc.settle();
    grpc.ask(Type::Cluster, &["stock"]);
    grpc.settle();
    grpc.ask(Type::Endpoints, &["stock"]);
    grpc.settle();
    assert_eq!(grpc.content(), borrowed(&grpc.expected(&store.index.world())));
    assert_eq!(grpc.names(Type::Endpoints), ["stock"]);
    assert_eq!(grpc.session.interests().expect("not all").into_iter().collect::<Vec<_>>(), ["", "stock"]);
}

#[test]
fn what_does_not_exist_is_said_not_to_exist() {
    let store = mesh();
    let mut sotw = Client::connect(client("grpc"), Mode::Sotw, store.index.world());
    sotw.ask(Type::Listener, &["nobody"]);
    assert_eq!(sotw.read(), 1);
    assert!(sotw.unanswered[0].resources.is_empty());
    let mut delta = Client::connect(client("grpc"), Mode::Delta, store.index.world());
    delta.ask(Type::Listener, &["nobody"]);
    assert_eq!(delta.read(), 1);
    assert_eq!(delta.unanswered[0].removed, ["nobody".into()]);
}

#[test]
fn a_gateway_is_given_every_apps_clusters() {
    let mut store = mesh();
    for mode in [Mode::Sotw, Mode::Delta] {
        let mut gateway = Client::connect(client("gateway"), mode, store.index.world());
        gateway.ask(Type::Cluster, &[]);
        gateway.ask(Type::Listener, &[]);
        gateway.settle();
        assert_eq!(gateway.names(Type::Cluster), ["front", "order", "stock"]);
        assert_eq!(gateway.names(Type::Listener), Vec::<&str>::new());
        assert_eq!(gateway.session.interests(), None);
        store.put(app("extra"));
        publish(&mut store, std::slice::from_mut(&mut gateway));
        gateway.settle();
        assert!(gateway.names(Type::Cluster).contains(&"extra"));
        store.delete("app/extra");
        store.index.publish();
    }
}

#[test]
fn too_many_names_end_the_stream() {
    let store = mesh();
    for mode in [Mode::Sotw, Mode::Delta] {
        let mut greedy = Client::connect(client("greedy"), mode, store.index.world());
        let names: Vec<String> = (0..1001).map(|n| format!("app-{n}")).collect();
        let result = match mode {
            Mode::Sotw => greedy.session.sotw(Type::Endpoints, SotwRequest { names, ..Default::default() }),
            Mode::Delta => {
                greedy.session.delta(Type::Endpoints, DeltaRequest { subscribe: names, ..Default::default() })
            }
        };
        assert_eq!(result, Err(Refused::TooManyNames { asked: 1001, of: Type::Endpoints, limit: 1000 }));
    }
}

/// Something that happens to the mesh or to the client.
#[derive(Debug, Clone)]
enum Step {
    Serve(usize, u8),
    Unpublish(usize, u8),
    Delete(usize, u8),
    Split(usize, u32),
    Unsplit,
    Declare(usize, bool),
    Publish,
    Read,
    Answer,
    Wait,
    Reconnect,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4usize, 1..5u8).prop_map(|(a, n)| Step::Serve(a, n)),
        2 => (0..4usize, 1..5u8).prop_map(|(a, n)| Step::Unpublish(a, n)),
        2 => (0..4usize, 1..5u8).prop_map(|(a, n)| Step::Delete(a, n)),
        2 => (0..4usize, 0..3u32).prop_map(|(a, w)| Step::Split(a, w)),
        1 => Just(Step::Unsplit),
        1 => (0..4usize, any::<bool>()).prop_map(|(a, grpc)| Step::Declare(a, grpc)),
        5 => Just(Step::Publish),
        8 => Just(Step::Read),
        8 => Just(Step::Answer),
        1 => Just(Step::Wait),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..120)
}

const APPS: [&str; 4] = ["order", "stock", "order-v2", "front"];

fn take(step: &Step, store: &mut Store, clients: &mut [Client]) {
    let group = |n: u8| if n.is_multiple_of(2) { "gray" } else { "" };
    match step {
        Step::Serve(a, n) => store.put(instance(APPS[*a], *n, group(*n))),
        Step::Unpublish(a, n) => {
            store.put(in_phase(instance(APPS[*a], *n, group(*n)), InstancePhase::Unpublishing, 1));
        }
        Step::Delete(a, n) => store.delete(&format!("instance/{}-{n}", APPS[*a])),
        Step::Split(a, weight) => {
            store.put(route("split", "order", &[("order", "", 1), (APPS[*a], "gray", *weight)]));
        }
        Step::Unsplit => store.delete("route/split"),
        Step::Declare(a, grpc) => {
            let mut app = app(APPS[*a]);
            app.spec.protocol = if *grpc { weir_model::app::Protocol::Grpc } else { Default::default() };
            store.put(app);
        }
        Step::Publish => publish(store, clients),
        Step::Read => clients.iter_mut().for_each(|c| _ = c.read()),
        Step::Answer => clients.iter_mut().filter(|c| !c.unanswered.is_empty()).for_each(Client::answer),
        Step::Wait => clients.iter_mut().for_each(|c| c.now += Duration::from_secs(1)),
        Step::Reconnect => clients.iter_mut().for_each(|c| c.reconnect(store.index.world())),
        Step::Restart => {
            *store = store.restarted();
            clients.iter_mut().for_each(|c| c.reconnect(store.index.world()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..Default::default() })]

    /// Whatever happens: in the end both variants have exactly what the world says, and on the way there no route ever
    /// led to a cluster that was missing.
    #[test]
    fn both_variants_end_where_the_world_is_and_never_break_a_route(steps in steps()) {
        let mut store = mesh();
        let mut clients = both(&store);
        for step in &steps {
            take(step, &mut store, &mut clients);
        }
        publish(&mut store, &mut clients);
        for client in &mut clients {
            client.settle();
            let expected = client.expected(&store.index.world());
            prop_assert_eq!(client.content(), borrowed(&expected));
        }
    }
}
