//! Clusters: an app as its callers see it, and the local application as its own proxy sees it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds::RetryBudget};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf as wkt;
use weir_model::AppSpec;
use weir_model::app::{Balance, Protocol};
use weir_proto::proxy::METADATA;

use super::{ads, duration, socket_address, tls, uint};
use crate::names;
use crate::resource::{Resource, pack};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Key under which Envoy looks for a cluster's HTTP options.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Requests in flight per cluster; Envoy's own default of 1,024 is met by a busy sidecar.
const MAX_REQUESTS: u32 = 10_240;
/// Share of requests in flight that may be retries, and how many always may.
const RETRY_BUDGET: RetryBudget = RetryBudget {
    budget_percent: Some(Percent { value: 20.0 }),
    budget_interval: None,
    min_retry_concurrency: Some(wkt::UInt32Value { value: 3 }),
};

/// The cluster `APP` or `APP|GROUP`, its endpoints by EDS from the same stream. `identities`: for proxies that can do
/// TLS, what the identities of the app's instances begin with.
pub fn of_app(app: &str, group: &str, spec: &AppSpec, identities: Option<&str>) -> Arc<Resource> {
    let name = names::cluster(app, group);
    let message = cluster::Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: name.clone() }),
        lb_policy: balance(spec.balance) as i32,
        transport_socket_matches: identities.map(|of| tls::matches(app, of, spec.protocol)).unwrap_or_default(),
        circuit_breakers: Some(limits()),
        ..common(spec.protocol)
    };
    Resource::new(name, &message)
}

/// The cluster `inbound|PORT`: the application behind the proxy.
pub fn local(app_address: IpAddr, app_port: u16, protocol: Protocol) -> Arc<Resource> {
    let name = names::inbound_cluster(app_port);
    let message = cluster::Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(one_endpoint(&name, SocketAddr::new(app_address, app_port))),
        circuit_breakers: Some(limits()),
        ..common(protocol)
    };
    Resource::new(name, &message)
}

/// The cluster `passthrough`: wherever a connection was going before it was turned round.
pub fn passthrough() -> Arc<Resource> {
    let message = cluster::Cluster {
        name: names::PASSTHROUGH.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        circuit_breakers: Some(limits()),
        ..common(Protocol::Tcp)
    };
    Resource::new(names::PASSTHROUGH, &message)
}

fn common(protocol: Protocol) -> cluster::Cluster {
    cluster::Cluster {
        connect_timeout: duration(CONNECT_TIMEOUT),
        typed_extension_protocol_options: http_options(protocol),
        metadata: metadata(protocol),
        ..Default::default()
    }
}

/// HTTP/2 must be asked for; without options it is HTTP/1.1.
fn http_options(protocol: Protocol) -> HashMap<String, wkt::Any> {
    if !matches!(protocol, Protocol::Http2 | Protocol::Grpc) {
        return HashMap::new();
    }
    let http2 = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Default::default())) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(http2)),
        ..Default::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), pack(&options))])
}

/// Protocols that Envoy has no options for; other proxies pass over metadata that they do not know.
fn metadata(protocol: Protocol) -> Option<Metadata> {
    let name = match protocol {
        Protocol::Bolt => "bolt",
        Protocol::Dubbo => "dubbo",
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc | Protocol::Tcp => return None,
    };
    let name = wkt::Value { kind: Some(wkt::value::Kind::StringValue(name.to_owned())) };
    let fields = wkt::Struct { fields: HashMap::from([("protocol".to_owned(), name)]) };
    let filter_metadata = HashMap::from([(METADATA.to_owned(), fields)]);
    Some(Metadata { filter_metadata, ..Default::default() })
}

fn balance(balance: Balance) -> LbPolicy {
    match balance {
        Balance::RoundRobin => LbPolicy::RoundRobin,
        Balance::LeastRequest => LbPolicy::LeastRequest,
        Balance::RingHash => LbPolicy::RingHash,
    }
}

fn limits() -> cluster::CircuitBreakers {
    let thresholds =
        Thresholds { max_requests: uint(MAX_REQUESTS), retry_budget: Some(RETRY_BUDGET), ..Default::default() };
    cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

fn one_endpoint(cluster: &str, address: SocketAddr) -> endpoint::ClusterLoadAssignment {
    let host = endpoint::Endpoint { address: socket_address(address.ip(), address.port()), ..Default::default() };
    let lb_endpoint = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
        ..Default::default()
    };
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: vec![lb_endpoint], ..Default::default() };
    endpoint::ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![locality],
        ..Default::default()
    }
}
