use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use envoy_types::pb::google::protobuf::value::Kind;
use prost::Message;
use weir_model::RouteSpec;
use weir_model::app::{AppSpec, Balance, Protocol};
use weir_model::encryption::{EncryptionMode, EncryptionStatus, InterfaceMode};
use weir_model::route::{Backend, PathMatch, PathMatchType, RouteMatch, RouteRetry, Rule};

use super::*;
use crate::build::endpoints::Endpoint;
use crate::fixtures::instance;
use crate::resource::Resource;
use crate::world::Refusal;

fn read<M: Message + Default>(resource: &Resource) -> M {
    M::decode(resource.body.as_slice()).expect("what was encoded can be read")
}

#[test]
fn interfaces_refuse_plaintext_the_longest_path_first() {
    let interface = |path: &str, mode| InterfaceMode { path: path.to_owned(), mode };
    let status = EncryptionStatus {
        effective_mode: EncryptionMode::Strict,
        effective_interfaces: vec![
            interface("/pay", EncryptionMode::Permissive),
            interface("/pay/back", EncryptionMode::Strict),
        ],
        ..Default::default()
    };
    let refusal = Refusal::of(&status);
    assert!(refusal.is_partial() && !refusal.is_whole());
    let table: RouteConfiguration = read(&route::inbound(9000, Some(&refusal)));
    let shown: Vec<_> = table.virtual_hosts[0]
        .routes
        .iter()
        .map(|route| {
            let matches = route.r#match.as_ref().expect("it matches something");
            let path = match matches.path_specifier.as_ref().expect("a path") {
                PathSpecifier::PathSeparatedPrefix(path) | PathSpecifier::Prefix(path) => path.as_str(),
                other => panic!("{other:?}"),
            };
            (path, matches.tls_context.is_some(), matches!(route.action, Some(Action::DirectResponse(_))))
        })
        .collect();
    let wanted = [
        ("/pay/back", true, false),
        ("/pay/back", false, true),
        ("/pay", false, false),
        ("/", true, false),
        ("/", false, true),
    ];
    assert_eq!(shown, wanted);
    let whole = Refusal { others: true, interfaces: vec![("/pay".to_owned(), true)] };
    assert!(whole.is_whole() && !whole.is_partial() && !Refusal::default().is_partial());
}

#[test]
fn endpoints_read_back_with_the_generated_types() {
    let members = [instance("stock", 1, ""), instance("stock", 2, ""), instance("stock", 3, "")];
    let endpoints: Vec<Endpoint> = members.iter().map(|i| Endpoint::new(i, false)).collect();
    let assignment: ClusterLoadAssignment = read(&endpoints::assignment("stock", &endpoints));
    assert_eq!(assignment.cluster_name, "stock");
    let zones: Vec<(String, String, u32, usize)> = assignment
        .endpoints
        .iter()
        .map(|l| {
            let at = l.locality.clone().unwrap_or_default();
            (at.region, at.zone, l.load_balancing_weight.map_or(0, |w| w.value), l.lb_endpoints.len())
        })
        .collect();
    assert_eq!(zones, [("east".into(), "z0".into(), 100, 1), ("east".into(), "z1".into(), 200, 2)]);
    let first = &assignment.endpoints[0].lb_endpoints[0];
    let Some(HostIdentifier::Endpoint(host)) = &first.host_identifier else { panic!("no host: {first:?}") };
    assert_eq!(host.address, socket_address([127, 0, 1, 2].into(), 8000));
    assert_eq!(first.load_balancing_weight, uint(100));
    let metadata = &first.metadata.as_ref().expect("metadata").filter_metadata["weir"];
    let text = |name: &str| metadata.fields[name].kind.clone();
    assert_eq!(text("instance"), Some(Kind::StringValue("stock-2".into())));
    assert_eq!(text("version"), Some(Kind::StringValue("1".into())));
}

fn serves(protocol: Protocol) -> listener::Serves {
    listener::Serves { protocol, drain_ms: 70_000 }
}

#[test]
fn a_listener_tells_how_long_its_requests_get_to_finish() {
    let listener: Listener =
        read(&listener::outbound("stock", "127.0.0.1:1".parse().expect("an address"), serves(Protocol::Http1)));
    let own = &listener.metadata.expect("metadata").filter_metadata["weir.dev"];
    assert_eq!(own.fields["drainMs"].kind, Some(Kind::NumberValue(70_000.0)));
}

#[test]
fn an_instance_that_comes_back_is_told_as_draining() {
    let away = Endpoint::returning(&instance("stock", 1, ""));
    let assignment: ClusterLoadAssignment = read(&endpoints::assignment("stock", [&away]));
    assert_eq!(assignment.endpoints[0].lb_endpoints[0].health_status, 3, "core.HealthStatus.DRAINING");
}

#[test]
fn versions_are_the_same_every_time() {
    let member = Endpoint::new(&instance("stock", 1, ""), false);
    let spec = AppSpec { protocol: Protocol::Grpc, ..AppSpec::default() };
    let versions = || {
        [
            endpoints::assignment("stock", [&member]),
            cluster::of_app("stock", "gray", &spec, None),
            listener::api("stock"),
            listener::outbound("stock", "127.0.0.1:1".parse().expect("an address"), serves(Protocol::Http1)),
            route::outbound("stock", &spec, &[]),
        ]
        .map(|r| r.version.to_string())
    };
    let first = versions();
    for _ in 0..20 {
        assert_eq!(versions(), first);
    }
}

#[test]
fn clusters_say_what_is_spoken_and_how_to_choose() {
    let spec = AppSpec { protocol: Protocol::Grpc, balance: Balance::LeastRequest, ..AppSpec::default() };
    let grpc: Cluster = read(&cluster::of_app("stock", "", &spec, None));
    assert_eq!(grpc.lb_policy, 1);
    assert!(
        grpc.typed_extension_protocol_options.keys().eq(["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"])
    );
    let plain: Cluster = read(&cluster::of_app("stock", "gray", &AppSpec::default(), None));
    assert_eq!(plain.name, "stock|gray");
    assert!(plain.typed_extension_protocol_options.is_empty());
}

#[test]
fn a_listener_without_http_passes_bytes() {
    let bind = "127.0.0.1:15001".parse().expect("an address");
    let filter = |protocol| {
        let listener: Listener = read(&listener::outbound("db", bind, serves(protocol)));
        listener.filter_chains[0].filters[0].name.clone()
    };
    assert_eq!(filter(Protocol::Tcp), "envoy.filters.network.tcp_proxy");
    assert_eq!(filter(Protocol::Http2), "envoy.filters.network.http_connection_manager");
    assert_eq!(filter(Protocol::Bolt), "weir.rpc_proxy");
}

#[test]
fn what_was_turned_round_goes_to_who_serves_it_or_where_it_was_going() {
    let (bind, any) = ("0.0.0.0:15001".parse().expect("an address"), [10, 0, 0, 1].into());
    let outbound: Listener = read(&listener::intercepted("o", bind, TrafficDirection::Outbound, 70_000));
    assert_eq!(outbound.use_original_dst.map(|used| used.value), Some(true));
    assert_eq!(outbound.filter_chains[0].filters[0].name, "envoy.filters.network.tcp_proxy");
    let passthrough: Cluster = read(&cluster::passthrough());
    assert_eq!(passthrough.cluster_discovery_type, Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)));
    let application: Listener = read(&listener::application(any, 9000, serves(Protocol::Http1), listener::Takes::Both));
    assert_eq!((application.name.as_str(), application.filter_chains.len()), ("inbound|9000", 2));
    assert_eq!(application.bind_to_port.map(|bind| bind.value), Some(false));
    assert_eq!(application.address, super::socket_address([0, 0, 0, 0].into(), 9000));
}

fn rule(path: Option<(PathMatchType, &str)>, method: Option<&str>, to: &[(&str, &str, u32)]) -> Rule {
    let path = path.map(|(r#type, value)| PathMatch { r#type, value: value.to_owned() });
    let backend = |(app, group, weight): &(&str, &str, u32)| Backend {
        app: app.to_string(),
        group: group.to_string(),
        weight: *weight,
    };
    Rule {
        matches: vec![RouteMatch { path, method: method.map(str::to_owned), ..Default::default() }],
        backends: to.iter().map(backend).collect(),
        ..Default::default()
    }
}

fn built(specs: &[&RouteSpec]) -> RouteConfiguration {
    read(&route::outbound("stock", &AppSpec::default(), specs))
}

fn spec(hostnames: &[&str], rules: Vec<Rule>) -> RouteSpec {
    RouteSpec { app: "stock".into(), hostnames: hostnames.iter().map(|h| h.to_string()).collect(), rules }
}

fn path_of(route: &Route) -> PathSpecifier {
    route.r#match.as_ref().and_then(|m| m.path_specifier.clone()).expect("a path")
}

fn retries_of(route: &Route) -> String {
    let Some(Action::Route(action)) = &route.action else { panic!("no route: {route:?}") };
    action.retry_policy.as_ref().map(|r| r.retry_on.clone()).unwrap_or_default()
}

#[test]
fn hosts_come_first_then_everybodys_rules_then_the_app_itself() {
    let own = spec(&["a.example.com"], vec![rule(Some((PathMatchType::Exact, "/x")), None, &[("stock", "gray", 1)])]);
    let all = spec(&[], vec![rule(Some((PathMatchType::RegularExpression, "/y.*")), None, &[("stock-v2", "", 1)])]);
    let configuration = built(&[&own, &all]);
    let shape: Vec<(&str, usize)> =
        configuration.virtual_hosts.iter().map(|h| (h.domains[0].as_str(), h.routes.len())).collect();
    assert_eq!(shape, [("a.example.com", 3), ("*", 2)]);
    assert_eq!(path_of(&configuration.virtual_hosts[0].routes[0]), PathSpecifier::Path("/x".into()));
    assert_eq!(path_of(&configuration.virtual_hosts[1].routes[1]), PathSpecifier::Prefix("/".into()));
    let used: Vec<String> = route::clusters_used("stock", &[&own, &all]).into_iter().collect();
    assert_eq!(used, ["stock", "stock-v2", "stock|gray"]);
}

#[test]
fn a_path_prefix_matches_whole_segments() {
    let prefix = spec(&[], vec![rule(Some((PathMatchType::PathPrefix, "/a/")), None, &[("stock", "", 1)])]);
    let paths: Vec<PathSpecifier> = built(&[&prefix]).virtual_hosts[0].routes.iter().map(path_of).collect();
    let exact = PathSpecifier::Path("/a".into());
    assert_eq!(paths, [exact, PathSpecifier::Prefix("/a/".into()), PathSpecifier::Prefix("/".into())]);
}

#[test]
fn only_idempotent_methods_are_repeated_after_they_were_sent() {
    let retry = Some(RouteRetry { on_reset: true, on_gateway_error: true, ..RouteRetry::default() });
    let with = |method| spec(&[], vec![Rule { retry: retry.clone(), ..rule(None, method, &[("stock", "", 1)]) }]);
    let safe = "connect-failure,refused-stream";
    let full = "connect-failure,refused-stream,reset,gateway-error";
    let retries =
        |spec: &RouteSpec| -> Vec<String> { built(&[spec]).virtual_hosts[0].routes.iter().map(retries_of).collect() };
    assert_eq!(retries(&with(Some("GET"))), [full, safe]);
    assert_eq!(retries(&with(Some("POST"))), [safe, safe]);
    assert_eq!(retries(&with(None)), [full, safe, safe]);
}

#[test]
fn grpc_calls_are_bounded_by_their_own_deadline() {
    let timeout = |protocol| {
        let app = AppSpec { protocol, timeout_ms: 700, ..AppSpec::default() };
        let configuration: RouteConfiguration = read(&route::outbound("stock", &app, &[]));
        let Some(Action::Route(action)) = configuration.virtual_hosts[0].routes[0].action.clone() else { panic!() };
        (action.timeout, action.max_stream_duration.is_some())
    };
    assert_eq!(timeout(Protocol::Http1), (millis(700), false));
    assert_eq!(timeout(Protocol::Grpc), (millis(0), true));
}

#[test]
fn a_proxy_that_can_do_tls_takes_it_beside_plaintext_or_alone() {
    use listener::Takes;
    let bind = "127.0.0.1:8000".parse().expect("an address");
    let chains = |takes| {
        let listener: Listener = read(&listener::inbound(bind, 9000, serves(Protocol::Http1), takes));
        let chain = |c: &envoy_types::pb::envoy::config::listener::v3::FilterChain| {
            let protocol = c.filter_chain_match.as_ref().map(|m| m.transport_protocol.clone()).unwrap_or_default();
            (protocol, c.transport_socket.is_some(), c.filters.len())
        };
        (listener.listener_filters.len(), listener.filter_chains.iter().map(chain).collect::<Vec<_>>())
    };
    assert_eq!(chains(Takes::Plaintext), (0, vec![(String::new(), false, 1)]));
    let (secure, plain) = (("tls".to_owned(), true, 1), ("raw_buffer".to_owned(), false, 1));
    assert_eq!(chains(Takes::Both), (1, vec![secure.clone(), plain]));
    assert_eq!(chains(Takes::Tls), (1, vec![secure]));
}

#[test]
fn a_cluster_speaks_tls_to_endpoints_that_are_ready_and_to_nobody_else_as_the_app() {
    use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    let built: Cluster = read(&cluster::of_app("stock", "", &AppSpec::default(), Some("spiffe://weir/app/stock/")));
    let names: Vec<&str> = built.transport_socket_matches.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["tls", "plaintext"], "the first that matches is taken");
    let Some(ConfigType::TypedConfig(any)) =
        built.transport_socket_matches[0].transport_socket.clone().expect("a socket").config_type
    else {
        panic!("no configuration")
    };
    let context = UpstreamTlsContext::decode(any.value.as_slice()).expect("an upstream context");
    assert_eq!(context.sni, "stock");
    let shown = format!("{context:?}");
    for part in ["spiffe://weir/app/stock/", "weir:workload", "weir:roots", "http/1.1"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(
        cluster::of_app("stock", "", &AppSpec::default(), Some("a")).version,
        cluster::of_app("stock", "", &AppSpec::default(), Some("a")).version
    );
}

#[test]
fn an_endpoint_says_that_it_takes_tls() {
    let member = Endpoint::new(&instance("stock", 1, ""), true);
    let assignment: ClusterLoadAssignment = read(&endpoints::assignment("stock", [&member]));
    let metadata = assignment.endpoints[0].lb_endpoints[0].metadata.clone().expect("metadata").filter_metadata;
    let said = metadata["envoy.transport_socket_match"].fields["weir.tls"].kind.clone();
    assert_eq!(said, Some(Kind::StringValue("ready".into())));
    assert!(metadata.contains_key("weir"));
}

#[test]
fn a_key_is_in_the_secret_and_in_nothing_that_is_shown_of_it() {
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
    let authority = weir_identity::Authority::start(Default::default(), None, None, jiff::Timestamp::UNIX_EPOCH);
    let authority = authority.expect("it starts");
    let leaf = authority.issue("stock", "", jiff::Timestamp::UNIX_EPOCH).expect("it signs").expect("at once");
    let resource = tls::workload(&leaf);
    let message: Secret = read(&resource);
    assert!(matches!(message.r#type, Some(secret::Type::TlsCertificate(_))));
    let key = leaf.key.reveal().lines().nth(1).expect("PEM has lines");
    assert!(resource.body.windows(key.len()).any(|w| w == key.as_bytes()));
    let shown = format!("{resource:?}");
    assert!(shown.contains("weir:workload") && shown.len() < 200, "{shown}");
}
