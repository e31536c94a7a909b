//! Cluster: how endpoints are reached, chosen and bounded, and where they come from.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster as Proto, LoadBalancingPolicy};
use envoy_types::pb::envoy::config::core::v3::health_check::HealthChecker;
use envoy_types::pb::envoy::config::core::v3::{
    ConfigSource, HealthCheck as HealthCheckProto, RoutingPriority, config_source::ConfigSourceSpecifier,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use weir_config::{
    Balance, Cluster, ClusterLimits, ClusterTls, Endpoint, GrpcProbe, HealthCheck, HttpProbe, Probe, ProxyConfig,
    UpstreamProtocol,
};
use weir_proto::proxy::METADATA;

use super::error::{ConvertError, Result, Under, refuse};
use super::{ClusterResource, DnsTarget, EndpointSource, awaited, decode, endpoint, optional_millis, tls, validated};

/// Envoy's default.
const CONNECT_TIMEOUT_MS: u64 = 5_000;
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Nested load balancing policies are followed this far.
const MAX_POLICY_DEPTH: usize = 4;

pub(super) fn cluster(proto: Proto) -> Result<Arc<ClusterResource>> {
    let (tls, tls_endpoints) = tls::cluster(&proto)?;
    refuse(
        proto.lb_subset_config.as_ref().is_some_and(|subset| !subset.subset_selectors.is_empty()),
        "lb_subset_config",
    )?;
    let options = http_options(&proto)?;
    let (mut endpoints, source) = endpoints(&proto)?;
    tls_endpoints.apply(&mut endpoints);
    let connect_timeout = optional_millis(proto.connect_timeout.as_ref(), "connect_timeout")?;
    let cluster = Cluster {
        name: proto.name.clone(),
        protocol: protocol(&proto, options.as_ref())?,
        balance: balance(&proto)?,
        endpoints,
        original_destination: is_original_destination(&proto),
        returning: false,
        connect_timeout_ms: connect_timeout.unwrap_or(CONNECT_TIMEOUT_MS).clamp(1, 600_000),
        limits: limits(&proto, options.as_ref())?,
        health_check: health_check(&proto)?,
        tls,
    };
    let secrets = awaited(cluster.tls.iter().flat_map(ClusterTls::secrets));
    validated(&ProxyConfig { clusters: vec![cluster.clone()], secrets, ..Default::default() })?;
    Ok(Arc::new(ClusterResource { cluster, endpoints: source, tls_endpoints }))
}

fn endpoints(proto: &Proto) -> Result<(Vec<Endpoint>, EndpointSource)> {
    let kind = match proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => kind,
        None => DiscoveryType::Static as i32,
        Some(ClusterDiscoveryType::ClusterType(ref custom)) => {
            return Err(ConvertError::at("cluster_type", format!("`{}` is not supported by this proxy", custom.name)));
        }
    };
    match DiscoveryType::try_from(kind) {
        Ok(DiscoveryType::Eds) => Ok((Vec::new(), eds(proto)?)),
        Ok(DiscoveryType::Static) => {
            let (endpoints, names) = assigned(proto)?;
            let name = names.first().map(|name| name.host.as_str());
            name.map_or(Ok((endpoints, EndpointSource::Static)), |name| {
                Err(ConvertError::at(
                    "load_assignment",
                    format!("`{name}` is a name: a STATIC cluster has IP addresses"),
                ))
            })
        }
        Ok(DiscoveryType::StrictDns | DiscoveryType::LogicalDns) => {
            let (endpoints, names) = assigned(proto)?;
            Ok((endpoints, EndpointSource::Dns(names)))
        }
        Ok(DiscoveryType::OriginalDst) => {
            refuse(proto.lb_config.is_some(), "original_dst_lb_config")?;
            Ok((Vec::new(), EndpointSource::Static))
        }
        Err(_) => Err(ConvertError::at("type", format!("{kind} is a discovery type that this proxy does not know"))),
    }
}

/// The first check; endpoints are well or not, and Envoy's further checks would have to agree.
fn health_check(proto: &Proto) -> Result<Option<HealthCheck>> {
    refuse(proto.health_checks.len() > 1, "health_checks[1]")?;
    proto.health_checks.first().map(|check| one_health_check(check).under("health_checks[0]")).transpose()
}

fn one_health_check(proto: &HealthCheckProto) -> Result<HealthCheck> {
    let host = |host: &str| Some(host.to_owned()).filter(|host| !host.is_empty());
    let probe = match &proto.health_checker {
        Some(HealthChecker::HttpHealthCheck(http)) => {
            refuse(!http.expected_statuses.is_empty(), "http_health_check.expected_statuses")?;
            Probe::Http(HttpProbe { path: http.path.clone(), host: host(&http.host) })
        }
        Some(HealthChecker::GrpcHealthCheck(grpc)) => {
            Probe::Grpc(GrpcProbe { service: grpc.service_name.clone(), host: host(&grpc.authority) })
        }
        Some(HealthChecker::TcpHealthCheck(tcp)) => {
            refuse(tcp.send.is_some() || !tcp.receive.is_empty(), "tcp_health_check.send")?;
            Probe::Tcp
        }
        _ => return Err(ConvertError::at("health_checker", "is none of http, grpc and tcp, which this proxy knows")),
    };
    let mut check = HealthCheck::new(probe);
    let interval = optional_millis(proto.interval.as_ref(), "interval")?;
    let timeout = optional_millis(proto.timeout.as_ref(), "timeout")?;
    check.interval_ms = interval.unwrap_or(check.interval_ms).clamp(1, 3_600_000);
    check.timeout_ms = timeout.unwrap_or(check.timeout_ms).clamp(1, 600_000);
    let threshold = |value: Option<UInt32Value>, default| value.map_or(default, |value| value.value.clamp(1, 1_000));
    check.unhealthy_threshold = threshold(proto.unhealthy_threshold, check.unhealthy_threshold);
    check.healthy_threshold = threshold(proto.healthy_threshold, check.healthy_threshold);
    Ok(check)
}

fn is_original_destination(proto: &Proto) -> bool {
    proto.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32))
}

fn assigned(proto: &Proto) -> Result<(Vec<Endpoint>, Vec<DnsTarget>)> {
    match &proto.load_assignment {
        Some(assignment) => endpoint::places(assignment).under("load_assignment"),
        None => Ok((Vec::new(), Vec::new())),
    }
}

fn eds(proto: &Proto) -> Result<EndpointSource> {
    let config = proto.eds_cluster_config.as_ref();
    aggregated(config.and_then(|config| config.eds_config.as_ref())).under("eds_cluster_config.eds_config")?;
    let service = config.map(|config| config.service_name.as_str()).filter(|name| !name.is_empty());
    Ok(EndpointSource::Eds(service.unwrap_or(&proto.name).to_owned()))
}

/// Everything comes over the one aggregated stream; a source elsewhere would be silently ignored, so it is refused.
pub(super) fn aggregated(source: Option<&ConfigSource>) -> Result<()> {
    match source.and_then(|source| source.config_source_specifier.as_ref()) {
        None | Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        Some(_) => Err(ConvertError::here("must be `ads`: this proxy has one source of configuration")),
    }
}

fn http_options(proto: &Proto) -> Result<Option<HttpProtocolOptions>> {
    let any = proto.typed_extension_protocol_options.get(HTTP_OPTIONS);
    any.map(decode).transpose().under("typed_extension_protocol_options")
}

#[allow(deprecated)] // older control planes still use the field
fn protocol(proto: &Proto, options: Option<&HttpProtocolOptions>) -> Result<UpstreamProtocol> {
    let fallback =
        if proto.http2_protocol_options.is_some() { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
    match options.and_then(|options| options.upstream_protocol_options.as_ref()) {
        None => Ok(rpc(proto).unwrap_or(fallback)),
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => Ok(UpstreamProtocol::SameAsDownstream),
        // ALPN decides there; without TLS there is none, and HTTP/1 is what Envoy speaks then.
        Some(UpstreamProtocolOptions::AutoConfig(_)) => Ok(UpstreamProtocol::Http1),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            None | Some(ProtocolConfig::HttpProtocolOptions(_)) => Ok(UpstreamProtocol::Http1),
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => Ok(UpstreamProtocol::Http2),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                Err(ConvertError::unsupported("typed_extension_protocol_options.http3_protocol_options"))
            }
        },
    }
}

/// Weir's own metadata tells of protocols that xDS has no options for.
fn rpc(proto: &Proto) -> Option<UpstreamProtocol> {
    let own = proto.metadata.as_ref()?.filter_metadata.get(METADATA)?;
    match own.fields.get("protocol")?.kind.as_ref()? {
        Kind::StringValue(name) if name == "bolt" => Some(UpstreamProtocol::Bolt),
        Kind::StringValue(name) if name == "dubbo" => Some(UpstreamProtocol::Dubbo),
        _ => None,
    }
}

fn balance(proto: &Proto) -> Result<Balance> {
    if let Some(policy) = &proto.load_balancing_policy {
        return chosen(policy, 0).under("load_balancing_policy");
    }
    Ok(match LbPolicy::try_from(proto.lb_policy) {
        Ok(LbPolicy::LeastRequest) => Balance::LeastRequest,
        Ok(LbPolicy::RingHash | LbPolicy::Maglev) => Balance::RingHash,
        Ok(LbPolicy::Random) => Balance::Random,
        // A policy which is new to this build: in turn is never wrong, only less clever.
        _ => Balance::RoundRobin,
    })
}

/// The first policy that is known decides, as xDS wants.
fn chosen(policy: &LoadBalancingPolicy, depth: usize) -> Result<Balance> {
    let configs =
        policy.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref()?.typed_config.as_ref());
    let known = configs.filter_map(|config| known_policy(config, depth)).next();
    known.ok_or_else(|| {
        ConvertError::here("names no policy that this proxy knows: use round_robin, least_request, ring_hash or random")
    })
}

fn known_policy(config: &Any, depth: usize) -> Option<Balance> {
    match config.type_url.rsplit('.').next()? {
        "RoundRobin" | "ClientSideWeightedRoundRobin" => Some(Balance::RoundRobin),
        "LeastRequest" => Some(Balance::LeastRequest),
        "RingHash" | "Maglev" => Some(Balance::RingHash),
        "Random" => Some(Balance::Random),
        "WrrLocality" if depth < MAX_POLICY_DEPTH => {
            let outer: WrrLocality = decode(config).ok()?;
            chosen(&outer.endpoint_picking_policy?, depth + 1).ok()
        }
        _ => None,
    }
}

fn limits(proto: &Proto, options: Option<&HttpProtocolOptions>) -> Result<ClusterLimits> {
    let mut limits = ClusterLimits::default();
    thresholds(&mut limits, proto.circuit_breakers.as_ref());
    #[allow(deprecated)] // older control planes still use the field
    let older = proto.common_http_protocol_options.as_ref();
    let common = options.and_then(|options| options.common_http_protocol_options.as_ref()).or(older);
    let idle = common.and_then(|common| common.idle_timeout.as_ref());
    if let Some(idle) = optional_millis(idle, "common_http_protocol_options.idle_timeout")?.filter(|idle| *idle > 0) {
        limits.idle_timeout_ms = idle;
    }
    Ok(limits)
}

/// Envoy's thresholds are per process, ours per worker: a sidecar has one.
fn thresholds(limits: &mut ClusterLimits, breakers: Option<&CircuitBreakers>) {
    let default = |priority| priority == RoutingPriority::Default as i32;
    let Some(thresholds) = breakers.and_then(|breakers| breakers.thresholds.iter().find(|item| default(item.priority)))
    else {
        return;
    };
    let set = |limit: &mut usize, value: Option<UInt32Value>, least: usize, most: usize| {
        if let Some(value) = value {
            *limit = (value.value as usize).clamp(least, most);
        }
    };
    set(&mut limits.max_connections, thresholds.max_connections, 1, 1_000_000);
    set(&mut limits.max_pending, thresholds.max_pending_requests, 0, 1_000_000);
    set(&mut limits.max_requests, thresholds.max_requests, 1, 10_000_000);
}
