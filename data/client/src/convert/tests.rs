mod passing;
mod tls;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster as ClusterProto};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::health_check::{GrpcHealthCheck, HealthChecker};
use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, HealthCheck as HealthCheckProto, Http2ProtocolOptions, Locality, Metadata,
    TransportSocket,
};
use envoy_types::pb::envoy::config::listener::v3::Listener as ListenerProto;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    CookieMatcher, DirectResponseAction, HeaderMatcher, RedirectAction, RetryPolicy, Route as RouteProto,
    RouteAction as RouteActionProto, RouteConfiguration, WeightedCluster as WeightedClusterProto,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpCluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Duration as DurationProto, Struct, UInt32Value, Value};
use envoy_types::util::pack_any;
use proptest::prelude::*;
use prost::Name;
use weir_config::{
    Balance, Direction, Forward, GrpcProbe, ListenerProtocol, PathMatch, Probe, Redirect, RetryOn, Route, RouteAction,
    StringMatch, UpstreamProtocol,
};
use weir_proto::proxy::{METADATA, RPC_PROXY, RpcProxy, rpc_proxy};

use super::*;
use crate::fixtures::{
    action_to, assignment, cluster_at, eds_cluster, lb_endpoint, listener, listener_with, manager, route_to, router,
    routes, table_of,
};

fn read_one<M: Message + Name>(proto: M) -> std::result::Result<Resource, String> {
    resource(&pack_any(proto)).map(|(_, resource)| resource).map_err(|(name, error)| format!("{name}: {error}"))
}

fn read_cluster(proto: ClusterProto) -> ClusterResource {
    match read_one(proto).unwrap() {
        Resource::Cluster(cluster) => ClusterResource::clone(&cluster),
        other => panic!("{other:?}"),
    }
}

fn read_listener(proto: ListenerProto) -> ListenerResource {
    match read_one(proto).unwrap() {
        Resource::Listener(listener) => ListenerResource::clone(&listener),
        other => panic!("{other:?}"),
    }
}

fn read_routes(proto: RouteConfiguration) -> Vec<Route> {
    match read_one(proto).unwrap() {
        Resource::Routes(table) => table.hosts[0].routes.clone(),
        other => panic!("{other:?}"),
    }
}

fn read_route(proto: RouteProto) -> Route {
    read_routes(table_of("t", vec![proto])).remove(0)
}

fn forward(proto: RouteActionProto) -> Forward {
    match read_route(RouteProto { action: Some(Action::Route(proto)), ..route_to("c") }).action {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

/// The words with which a thing is refused.
fn refused<M: Message + Name>(proto: M) -> String {
    read_one(proto).expect_err("is refused")
}

fn seconds(seconds: i64) -> Option<DurationProto> {
    Some(DurationProto { seconds, nanos: 0 })
}

fn some(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[test]
fn a_listener_names_its_routes_and_its_side() {
    let inbound = read_listener(listener("inbound", 80, "inbound"));
    assert_eq!(inbound.routes, RouteSource::Rds("inbound".into()));
    assert_eq!((inbound.listener.direction, inbound.listener.bind.port()), (Direction::Inbound, 80));
    let outbound = read_listener(listener("outbound|stock", 81, "r"));
    assert_eq!((outbound.listener.direction, outbound.listener.routes.as_str()), (Direction::Outbound, "r"));
}

#[test]
fn a_tcp_listener_names_its_cluster() {
    let tcp = TcpProxy { cluster_specifier: Some(TcpCluster::Cluster("db".into())), ..Default::default() };
    let read = read_listener(listener_with("l", 80, pack_any(tcp)));
    assert_eq!((read.listener.protocol, read.routes), (ListenerProtocol::Tcp, RouteSource::None));
}

#[test]
fn an_rpc_listener_names_its_protocol_and_routes() {
    let rpc = |protocol| RpcProxy { protocol, route_config_name: "r".into(), ..Default::default() };
    let filter = |protocol| Any { type_url: RPC_PROXY.into(), value: rpc(protocol).encode_to_vec() };
    let read = read_listener(listener_with("l", 80, filter(rpc_proxy::Protocol::Dubbo as i32)));
    assert_eq!((read.listener.protocol, read.routes), (ListenerProtocol::Dubbo, RouteSource::Rds("r".into())));
    assert!(refused(listener_with("l", 80, filter(9))).contains("protocol"));
}

#[test]
fn a_cluster_says_how_its_endpoints_are_asked() {
    let read = |checks: Vec<HealthCheckProto>| {
        let protocol = Some(Http2ProtocolOptions::default());
        #[allow(deprecated)] // older control planes still use the field
        let proto = ClusterProto { health_checks: checks, http2_protocol_options: protocol, ..eds_cluster("c") };
        read_one(proto)
    };
    let grpc = HealthChecker::GrpcHealthCheck(GrpcHealthCheck { service_name: "a.B".into(), ..Default::default() });
    let check = HealthCheckProto {
        health_checker: Some(grpc),
        interval: Some(DurationProto { seconds: 2, nanos: 0 }),
        unhealthy_threshold: some(5),
        ..Default::default()
    };
    let Ok(Resource::Cluster(cluster)) = read(vec![check.clone()]) else { panic!("not read") };
    let found = cluster.cluster.health_check.clone().unwrap();
    assert_eq!(found.probe, Probe::Grpc(GrpcProbe { service: "a.B".into(), host: None }));
    assert_eq!((found.interval_ms, found.unhealthy_threshold, found.healthy_threshold), (2_000, 5, 1));
    assert!(read(vec![check.clone(), check]).unwrap_err().contains("health_checks[1]"));
    assert!(read(vec![HealthCheckProto::default()]).unwrap_err().contains("health_checks[0].health_checker"));
}

#[test]
fn a_cluster_may_speak_bolt() {
    let name = Value { kind: Some(Kind::StringValue("bolt".into())) };
    let own = Struct { fields: [("protocol".to_owned(), name)].into() };
    let metadata = Metadata { filter_metadata: [(METADATA.to_owned(), own)].into(), ..Default::default() };
    let cluster = read_cluster(ClusterProto { metadata: Some(metadata), ..eds_cluster("c") }).cluster;
    assert_eq!(cluster.protocol, UpstreamProtocol::Bolt);
}

#[test]
fn routes_within_a_listener_get_a_name_of_their_own() {
    let mut manager = manager("");
    manager.route_specifier = Some(
        envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier::RouteConfig(routes("r", "c")),
    );
    let read = read_listener(listener_with("l", 80, pack_any(manager)));
    assert_eq!(read.listener.routes, "listener|l");
}

fn with_filter(filter: HttpFilter) -> ListenerProto {
    let manager = HttpConnectionManager { http_filters: vec![filter, router()], ..manager("r") };
    listener_with("l", 80, pack_any(manager))
}

fn unknown_filter() -> HttpFilter {
    let config = Any { type_url: "type.googleapis.com/weir.next.Filter".into(), value: vec![1, 2, 3] };
    HttpFilter { name: "next".into(), config_type: Some(ConfigType::TypedConfig(config)), ..Default::default() }
}

#[test]
fn an_unknown_filter_is_refused_unless_it_is_optional() {
    let words = refused(with_filter(unknown_filter()));
    assert!(words.contains("l: filter_chains[0].filters[0].http_filters[0]: `next` is required"), "{words}");
    read_listener(with_filter(HttpFilter { is_optional: true, ..unknown_filter() }));
    read_listener(with_filter(HttpFilter { disabled: true, ..unknown_filter() }));
}

#[test]
fn encryption_is_never_skipped_silently() {
    let socket = TransportSocket { name: "envoy.transport_sockets.tls".into(), ..Default::default() };
    let words = refused(ClusterProto { transport_socket: Some(socket.clone()), ..eds_cluster("c") });
    assert!(words.starts_with("c: transport_socket"), "{words}");
    let mut listener = listener("l", 80, "r");
    listener.filter_chains[0].transport_socket = Some(socket);
    assert!(refused(listener).contains("filter_chains[0].transport_socket"));
}

#[test]
fn a_listener_needs_an_address_that_is_one() {
    assert!(refused(ListenerProto { address: None, ..listener("l", 80, "r") }).contains("address: is absent"));
    let named = ListenerProto { address: Some(crate::fixtures::address("here", 80)), ..listener("l", 80, "r") };
    assert!(refused(named).contains("`here` is not an IP address"));
    let unnamed = resource(&pack_any(listener("", 80, "r"))).unwrap_err();
    assert_eq!(unnamed.1.to_string(), "name: is empty");
}

#[test]
fn what_is_not_protobuf_is_refused() {
    let garbage = Any { type_url: CLUSTER.into(), value: vec![0xff; 8] };
    assert!(resource(&garbage).unwrap_err().1.message.contains("is not a Cluster"));
    let stranger = Any { type_url: "type.googleapis.com/weir.next.Thing".into(), value: Vec::new() };
    assert!(resource(&stranger).unwrap_err().1.message.contains("not a known resource type"));
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let mut any = pack_any(eds_cluster("c"));
    // Field 15000, length-delimited, three bytes.
    prost::encoding::encode_key(15_000, prost::encoding::WireType::LengthDelimited, &mut any.value);
    any.value.extend([3, 1, 2, 3]);
    assert_eq!(resource(&any).unwrap().0, "c");
}

#[test]
fn enumerations_of_a_later_version_fall_back() {
    assert_eq!(read_cluster(ClusterProto { lb_policy: 99, ..eds_cluster("c") }).cluster.balance, Balance::RoundRobin);
    let manager = HttpConnectionManager { codec_type: 99, ..manager("r") };
    assert_eq!(read_listener(listener_with("l", 80, pack_any(manager))).listener.protocol, ListenerProtocol::Auto);
    let mut assignment = assignment("c", &[("10.0.0.1", 80)]);
    assignment.endpoints[0].lb_endpoints[0].health_status = 99;
    assert_eq!(
        read_one(assignment).unwrap(),
        Resource::Endpoints(Arc::new(Assignment { endpoints: vec![endpoint("10.0.0.1:80")], returning: false }))
    );
    assert!(
        refused(ClusterProto {
            cluster_discovery_type: Some(
                envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType::Type(99)
            ),
            ..eds_cluster("c")
        })
        .contains("99 is a discovery type")
    );
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint { address: address.parse().unwrap(), weight: 1, priority: 0, labels: Default::default(), tls: false }
}

#[test]
fn endpoints_carry_weight_priority_and_labels() {
    let mut proto = assignment("c", &[("10.0.0.1", 80), ("10.0.0.1", 80), ("10.0.0.2", 80)]);
    let locality = &mut proto.endpoints[0];
    locality.priority = 1;
    locality.locality = Some(Locality { region: "east".into(), zone: "a".into(), sub_zone: String::new() });
    locality.lb_endpoints[0].load_balancing_weight = some(7);
    let version = Value { kind: Some(Kind::StringValue("2".into())) };
    let labels = Struct { fields: [("version".to_owned(), version)].into() };
    let metadata = Metadata { filter_metadata: [("weir".to_owned(), labels)].into(), ..Default::default() };
    locality.lb_endpoints[0].metadata = Some(metadata);
    locality.lb_endpoints[2].health_status = 2; // UNHEALTHY
    let Resource::Endpoints(endpoints) = read_one(proto).unwrap() else { panic!() };
    let labels = [("unit", "east"), ("version", "2"), ("zone", "a")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(endpoints.endpoints, [Endpoint { weight: 7, priority: 1, labels, ..endpoint("10.0.0.1:80") }]);
}

#[test]
fn an_endpoint_that_drains_is_not_used_and_comes_back() {
    let mut proto = assignment("c", &[("10.0.0.1", 80)]);
    proto.endpoints[0].lb_endpoints[0].health_status =
        envoy_types::pb::envoy::config::core::v3::HealthStatus::Draining as i32;
    let away = Assignment { endpoints: Vec::new(), returning: true };
    assert_eq!(read_one(proto).unwrap(), Resource::Endpoints(Arc::new(away)));
}

#[test]
fn a_listener_says_how_long_its_requests_get_to_finish() {
    let mut proto = listener("l", 8080, "r");
    let number = Value { kind: Some(Kind::NumberValue(70_000.0)) };
    let own = Struct { fields: [("drainMs".to_owned(), number)].into() };
    proto.metadata = Some(Metadata { filter_metadata: [("weir.dev".to_owned(), own)].into(), ..Default::default() });
    let Resource::Listener(read) = read_one(proto).unwrap() else { panic!() };
    assert_eq!(read.listener.drain_ms, Some(70_000));
}

#[test]
fn endpoints_by_name_need_a_dns_cluster() {
    assert!(refused(assignment("c", &[("db.local", 80)])).contains("`db.local` is a name"));
    assert!(refused(cluster_at("c", DiscoveryType::Static, "db.local", 80)).contains("`db.local` is a name"));
    let dns = read_cluster(cluster_at("c", DiscoveryType::StrictDns, "db.local", 80));
    let EndpointSource::Dns(targets) = dns.endpoints else { panic!() };
    assert_eq!((targets[0].host.as_str(), targets[0].port), ("db.local", 80));
    let fixed = read_cluster(cluster_at("c", DiscoveryType::Static, "10.0.0.1", 80));
    assert_eq!((fixed.endpoints, fixed.cluster.endpoints), (EndpointSource::Static, vec![endpoint("10.0.0.1:80")]));
    let mut broken = assignment("c", &[]);
    broken.endpoints[0].lb_endpoints = vec![lb_endpoint("10.0.0.1", 80), Default::default()];
    assert!(refused(broken).contains("endpoints[0].lb_endpoints[1].endpoint: is absent"));
}

#[test]
fn a_cluster_carries_protocol_balance_and_limits() {
    let explicit = ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    };
    let thresholds = Thresholds { max_connections: some(3), max_requests: some(0), ..Default::default() };
    let proto = ClusterProto {
        lb_policy: LbPolicy::LeastRequest as i32,
        connect_timeout: Some(DurationProto { seconds: 0, nanos: 1 }),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            pack_any(options),
        )]
        .into(),
        ..eds_cluster("c")
    };
    let cluster = read_cluster(proto).cluster;
    assert_eq!((cluster.protocol, cluster.balance), (UpstreamProtocol::Http2, Balance::LeastRequest));
    assert_eq!((cluster.connect_timeout_ms, cluster.limits.max_connections, cluster.limits.max_requests), (1, 3, 1));
}

#[test]
fn matchers_are_kept_or_refused_never_dropped() {
    let mut proto = route_to("c");
    let matches = proto.r#match.as_mut().unwrap();
    matches.path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a".into()));
    let string = StringMatcher { match_pattern: Some(MatchPattern::Prefix("B+".into())), ignore_case: true };
    matches.headers = vec![
        HeaderMatcher {
            name: ":method".into(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                match_pattern: Some(MatchPattern::Exact("GET".into())),
                ignore_case: false,
            })),
            ..Default::default()
        },
        HeaderMatcher {
            name: "x".into(),
            invert_match: true,
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string)),
            ..Default::default()
        },
    ];
    matches.grpc = Some(Default::default());
    let read = read_route(proto.clone()).matches;
    assert_eq!((read.path, read.method.as_deref()), (PathMatch::Segments("/a".into()), Some("GET")));
    assert_eq!((&read.headers[0].value, read.headers[0].invert), (&StringMatch::Regex("(?i:B\\+).*".into()), true));
    assert_eq!(read.headers[1].name, "content-type");
    let cookie = CookieMatcher { name: "k".into(), ..Default::default() };
    proto.r#match.as_mut().unwrap().cookies = vec![cookie];
    let words = refused(table_of("t", vec![route_to("c"), proto]));
    assert_eq!(words, "t: virtual_hosts[0].routes[1].match.cookies: is not supported by this proxy");
}

#[test]
fn a_matcher_of_a_later_version_does_not_match_everything() {
    let mut proto = route_to("c");
    proto.r#match.as_mut().unwrap().path_specifier = None;
    assert!(refused(table_of("t", vec![proto])).contains("match.path_specifier: is absent or of a kind"));
    let mut proto = route_to("c");
    proto.r#match.as_mut().unwrap().headers = vec![HeaderMatcher { name: "x".into(), ..Default::default() }];
    assert!(refused(table_of("t", vec![proto])).contains("match.headers[0].header_match_specifier: is absent"));
}

#[test]
fn case_does_not_matter_where_the_route_says_so() {
    let mut proto = route_to("c");
    let matches = proto.r#match.as_mut().unwrap();
    matches.path_specifier = Some(PathSpecifier::Path("/a.b".into()));
    matches.case_sensitive = Some(BoolValue { value: false });
    assert_eq!(read_route(proto).matches.path, PathMatch::Regex("(?i:/a\\.b)".into()));
}

#[test]
fn a_broken_pattern_is_blamed_on_its_table() {
    let mut proto = route_to("c");
    let regex = RegexMatcher { regex: "(".into(), ..Default::default() };
    proto.r#match.as_mut().unwrap().path_specifier = Some(PathSpecifier::SafeRegex(regex));
    let words = refused(table_of("t", vec![proto]));
    assert!(words.starts_with("t: routeTables[0].hosts[0].routes[0].matches.path"), "{words}");
}

#[test]
fn a_forward_carries_weights_timeouts_retries_and_rewrites() {
    let weight = |name: &str, weight| ClusterWeight { name: name.into(), weight: some(weight), ..Default::default() };
    let weights = WeightedClusterProto { clusters: vec![weight("a", 9), weight("b", 1)], ..Default::default() };
    let retry = RetryPolicy {
        retry_on: "gateway-error, connect-failure,whatever-is-new".into(),
        num_retries: some(99),
        per_try_timeout: seconds(1),
        ..Default::default()
    };
    let read = forward(RouteActionProto {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(weights)),
        timeout: seconds(0),
        retry_policy: Some(retry),
        prefix_rewrite: "/new".into(),
        host_rewrite_specifier: Some(HostRewriteSpecifier::HostRewriteLiteral("h".into())),
        ..Default::default()
    });
    assert_eq!(read.clusters.iter().map(|target| target.weight).collect::<Vec<_>>(), [9, 1]);
    assert_eq!(
        (read.timeout_ms, read.prefix_rewrite.as_deref(), read.host_rewrite.as_deref()),
        (Some(0), Some("/new"), Some("h"))
    );
    let retry = read.retry.unwrap();
    assert_eq!((retry.attempts, retry.per_try_timeout_ms), (10, Some(1000)));
    assert_eq!(retry.on, [RetryOn::GatewayError, RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Reset]);
}

#[test]
fn a_forward_to_nowhere_known_is_refused() {
    let by_header = ClusterSpecifier::ClusterHeader("x".into());
    let action = RouteActionProto { cluster_specifier: Some(by_header), ..Default::default() };
    let words = refused(table_of("t", vec![RouteProto { action: Some(Action::Route(action)), ..route_to("c") }]));
    assert!(words.contains("routes[0].route.cluster_header: is not supported"), "{words}");
    let words = refused(table_of("t", vec![RouteProto { action: None, ..route_to("c") }]));
    assert!(words.contains("routes[0].action: is absent"), "{words}");
}

#[test]
fn answers_and_redirects_are_given() {
    let redirect =
        RedirectAction { host_redirect: "h".into(), port_redirect: 81, response_code: 3, ..Default::default() };
    let read = read_route(RouteProto { action: Some(Action::Redirect(redirect)), ..route_to("c") }).action;
    let wanted = Redirect { status: 307, scheme: None, host: Some("h:81".into()), path: None };
    assert_eq!(read, RouteAction::Redirect(wanted));
    let respond = DirectResponseAction { status: 418, ..Default::default() };
    let read = read_route(RouteProto { action: Some(Action::DirectResponse(respond)), ..route_to("c") }).action;
    assert!(matches!(read, RouteAction::Respond(respond) if respond.status == 418));
}

fn header(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    HeaderValueOption { header: Some(header), append_action: action as i32, ..Default::default() }
}

#[test]
fn headers_are_edited_from_the_route_outwards() {
    let mut proto = table_of("t", vec![route_to("c")]);
    let route = &mut proto.virtual_hosts[0].routes[0];
    route.request_headers_to_add = vec![header("a", "100%%", HeaderAppendAction::OverwriteIfExistsOrAdd)];
    proto.request_headers_to_add = vec![header("a", "2", HeaderAppendAction::OverwriteIfExistsOrAdd)];
    proto.virtual_hosts[0].request_headers_to_remove = vec!["b".into()];
    let edits = read_routes(proto.clone()).remove(0).request_headers;
    assert_eq!(edits.set, [("a".into(), "100%".into()), ("a".into(), "2".to_owned())]);
    assert_eq!(edits.remove, ["b"]);
    proto.request_headers_to_add[0] = header("a", "%DURATION%", HeaderAppendAction::AppendIfExistsOrAdd);
    assert!(refused(proto).contains("has a substitution"));
}

#[test]
fn a_switched_off_upgrade_is_off() {
    use envoy_types::pb::envoy::config::route::v3::route_action::UpgradeConfig;
    assert!(forward(action_to("c")).upgrades);
    let off = UpgradeConfig {
        upgrade_type: "websocket".into(),
        enabled: Some(BoolValue { value: false }),
        connect_config: None,
    };
    assert!(!forward(RouteActionProto { upgrade_configs: vec![off], ..action_to("c") }).upgrades);
}

/// A resource of some type, whole or with a few bytes changed.
fn mangled() -> impl Strategy<Value = Any> {
    let whole = [
        pack_any(with_filter(unknown_filter())),
        pack_any(listener("l", 80, "r")),
        pack_any(routes("r", "c")),
        pack_any(cluster_at("c", DiscoveryType::StrictDns, "db.local", 80)),
        pack_any(assignment("c", &[("10.0.0.1", 80), ("10.0.0.2", 80)])),
    ];
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (prop::sample::select(whole.to_vec()), prop::collection::vec(change, 0..4)).prop_map(|(mut any, changes)| {
        for (index, byte) in changes {
            let at = index.index(any.value.len());
            any.value[at] = byte;
        }
        any
    })
}

proptest! {
    /// Whatever comes over the wire is taken as something sound or refused in words; nothing panics.
    #[test]
    fn anything_is_taken_or_refused(any in mangled()) {
        if let Err((_, error)) = resource(&any) {
            prop_assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn noise_is_taken_or_refused(
        kind in prop::sample::select(vec![LISTENER, ROUTES, CLUSTER, ENDPOINTS]),
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = resource(&Any { type_url: kind.into(), value });
    }
}
