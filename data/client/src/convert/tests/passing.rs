//! What goes on as bytes, and connections that were going elsewhere.

use envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, ListenerFilter};
use weir_config::ServerNames;

use super::*;

fn bytes_to(cluster: &str) -> TcpProxy {
    TcpProxy { cluster_specifier: Some(TcpCluster::Cluster(cluster.into())), ..Default::default() }
}

/// A listener with one more chain in front.
fn with_chain(mut proto: ListenerProto, matches: FilterChainMatch, cluster: &str) -> ListenerProto {
    let chain = listener_with("x", 80, pack_any(bytes_to(cluster))).filter_chains.remove(0);
    proto.filter_chains.insert(0, FilterChain { filter_chain_match: Some(matches), ..chain });
    proto
}

fn named(names: &[&str]) -> FilterChainMatch {
    let server_names = names.iter().map(|&name| name.into()).collect();
    FilterChainMatch { server_names, transport_protocol: "tls".into(), ..Default::default() }
}

#[test]
fn tls_for_named_servers_goes_to_their_clusters() {
    let proto = with_chain(listener("l", 80, "r"), named(&["a.b", "*.c"]), "one");
    let read = read_listener(proto).listener;
    let expected = ServerNames { names: vec!["a.b".into(), "*.c".into()], cluster: "one".into() };
    assert_eq!((read.protocol, &read.server_names[..]), (ListenerProtocol::Auto, &[expected][..]));
    let mut alone = with_chain(listener("l", 80, "r"), named(&["a.b"]), "one");
    alone.filter_chains.truncate(1);
    let read = read_listener(alone);
    assert_eq!((read.listener.protocol, read.listener.routes.as_str()), (ListenerProtocol::Tcp, ""));
    assert_eq!((read.listener.passes_to().collect::<Vec<_>>(), read.routes), (vec!["one"], RouteSource::None));
}

#[test]
fn names_are_for_bytes_alone() {
    let mut proto = with_chain(listener("l", 80, "r"), named(&["a.b"]), "one");
    proto.filter_chains[0].filters = proto.filter_chains[1].filters.clone();
    assert!(refused(proto).contains("filter_chains[0].filters[0]: must be a tcp_proxy"));
    let more = FilterChainMatch { destination_port: some(1), ..named(&["a.b"]) };
    assert!(refused(with_chain(listener("l", 80, "r"), more, "one")).contains("filter_chain_match"));
    assert!(refused(with_chain(listener("l", 80, "r"), named(&["a*"]), "one")).contains("`a*`"));
}

#[test]
fn what_is_no_http_goes_to_the_other_chain() {
    let mut proto = with_chain(listener("l", 80, "r"), FilterChainMatch::default(), "rest");
    let http = ["http/1.1", "h2c"].map(String::from).into();
    let matches = FilterChainMatch { application_protocols: http, ..Default::default() };
    proto.filter_chains[1].filter_chain_match = Some(matches);
    proto.listener_filters_timeout = Some(DurationProto { seconds: 1, nanos: 0 });
    let read = read_listener(proto.clone());
    assert_eq!((read.listener.protocol, read.listener.tcp_cluster.as_deref()), (ListenerProtocol::Auto, Some("rest")));
    assert_eq!((read.routes, read.listener.limits.detect_timeout_ms), (RouteSource::Rds("r".into()), 1_000));
    // The same as the default chain.
    proto.default_filter_chain = Some(proto.filter_chains.remove(0));
    assert_eq!(read_listener(proto.clone()).listener.tcp_cluster.as_deref(), Some("rest"));
    // Which of two chains is for what would be a guess.
    proto.filter_chains[0].filter_chain_match = None;
    assert!(refused(proto).contains("several chains"));
}

#[test]
fn intercepted_connections_are_taken_and_go_where_they_were_going() {
    let flag = ListenerProto {
        use_original_dst: Some(BoolValue { value: true }),
        bind_to_port: Some(BoolValue { value: false }),
        ..listener("l", 80, "r")
    };
    assert!(refused(flag.clone()).contains("bindToPort"));
    let bound = read_listener(ListenerProto { bind_to_port: None, ..flag.clone() }).listener;
    assert_eq!((bound.original_destination, bound.bind_to_port), (true, true));
    let unbound = read_listener(ListenerProto { use_original_dst: None, ..flag }).listener;
    assert_eq!((unbound.original_destination, unbound.bind_to_port), (false, false));
    let filter = ListenerFilter { name: "envoy.filters.listener.original_dst".into(), ..Default::default() };
    let by_filter = ListenerProto { listener_filters: vec![filter], ..listener("l", 80, "r") };
    assert!(read_listener(by_filter).listener.original_destination);
    let kind = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
    let proto = ClusterProto { name: "passthrough".into(), cluster_discovery_type: kind, ..Default::default() };
    match resource(&pack_any(proto)).unwrap().1 {
        Resource::Cluster(read) => assert!(read.cluster.original_destination && read.cluster.endpoints.is_empty()),
        other => panic!("{other:?}"),
    }
}
