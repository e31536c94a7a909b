//! Listener with its one HTTP connection manager, RPC proxy or TCP proxy.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener as Proto};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter::ConfigType as HttpConfigType,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use envoy_types::pb::google::protobuf::Any;
use weir_config::{Direction, Limits, Listener, ListenerProtocol, ListenerTls, ProxyConfig, RouteTable, TlsMode};
use weir_proto::proxy::{RPC_PROXY, RpcProxy, rpc_proxy};

use super::cluster::aggregated;
use super::endpoint::address;
use super::error::{ConvertError, Result, Under, refuse};
use super::{ListenerResource, RouteSource, awaited, decode, optional_millis, route, tls, validated};

const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// Listener filters whose work the proxy does by itself (it sniffs the protocol) or which have nothing to do here.
const NEEDLESS: [&str; 2] = ["envoy.filters.listener.http_inspector", "envoy.filters.listener.tls_inspector"];

pub(super) fn listener(proto: Proto) -> Result<Arc<ListenerResource>> {
    refuse(proto.use_original_dst.is_some_and(|used| used.value), "use_original_dst")?;
    refuse(proto.bind_to_port.is_some_and(|bind| !bind.value), "bind_to_port: false")?;
    refuse(!proto.additional_addresses.is_empty(), "additional_addresses")?;
    refuse(proto.fcds_config.is_some(), "fcds_config")?;
    listener_filters(&proto)?;
    let (filter, field, tls) = network_filter(&proto)?;
    let mut resource = serve(&proto, filter).under(field)?;
    resource.listener.tls = tls;
    resource.listener.access_log |= !proto.access_log.is_empty();
    validated(&alone(&resource))?;
    Ok(Arc::new(resource))
}

fn listener_filters(proto: &Proto) -> Result<()> {
    let unknown = proto.listener_filters.iter().find(|filter| !NEEDLESS.contains(&filter.name.as_str()));
    unknown.map_or(Ok(()), |filter| Err(ConvertError::unsupported(format!("listener_filters `{}`", filter.name))))
}

/// The one filter that serves, where it is, and how its connections are secured. There may be two chains with it: one for
/// connections with TLS, one for others.
fn network_filter(proto: &Proto) -> Result<(&Any, String, Option<ListenerTls>)> {
    let numbered =
        proto.filter_chains.iter().enumerate().map(|(index, chain)| (chain, format!("filter_chains[{index}]")));
    let default = proto.default_filter_chain.iter().map(|chain| (chain, "default_filter_chain".to_owned()));
    let (mut secure, mut plain) = (Vec::new(), Vec::new());
    for (chain, field) in numbered.chain(default) {
        let is_tls = tls::is_tls(chain.transport_socket.as_ref()).under(&field)?;
        let filter = one_filter(chain, is_tls).under(&field)?;
        if is_tls { secure.push((chain, filter, field)) } else { plain.push((chain, filter, field)) }
    }
    let (secure, plain) = match (secure.as_slice(), plain.as_slice()) {
        ([], []) => return Err(ConvertError::at("filter_chains", "is empty")),
        ([], [(_, filter, field)]) => return Ok((filter, format!("{field}.filters[0]"), None)),
        ([secure], []) => (secure, None),
        ([secure], [plain]) if secure.1 == plain.1 => (secure, Some(plain)),
        _ => {
            let message = "has several chains; this proxy supports one, or one with TLS beside one without that has the same filter";
            return Err(ConvertError::at("filter_chains", message));
        }
    };
    let mode = if plain.is_some() { TlsMode::Permissive } else { TlsMode::Strict };
    let (chain, filter, field) = secure;
    let tls = chain.transport_socket.as_ref().map(|socket| tls::listener(socket, mode));
    let tls = tls.transpose().under(format!("{field}.transport_socket"))?;
    Ok((filter, format!("{field}.filters[0]"), tls))
}

fn one_filter(chain: &FilterChain, is_tls: bool) -> Result<&Any> {
    let protocol = if is_tls { "tls" } else { "raw_buffer" };
    let matches = chain.filter_chain_match.clone().unwrap_or_default();
    let tells = matches.transport_protocol.is_empty() || matches.transport_protocol == protocol;
    let rest = FilterChainMatch { transport_protocol: String::new(), ..matches };
    refuse(!tells || rest != FilterChainMatch::default(), "filter_chain_match")?;
    let [filter] = chain.filters.as_slice() else {
        return Err(ConvertError::at(
            "filters",
            format!("has {} filters; this proxy supports one", chain.filters.len()),
        ));
    };
    typed(filter).under("filters[0]")
}

fn typed(filter: &Filter) -> Result<&Any> {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => Ok(any),
        Some(ConfigType::ConfigDiscovery(_)) => Err(ConvertError::unsupported("config_discovery")),
        None => Err(ConvertError::at("typed_config", "is absent")),
    }
}

fn serve(proto: &Proto, filter: &Any) -> Result<ListenerResource> {
    match filter.type_url.as_str() {
        CONNECTION_MANAGER => http(proto, &decode(filter)?),
        TCP_PROXY => tcp(proto, &decode(filter)?),
        RPC_PROXY => rpc(proto, &decode(filter)?),
        other => Err(ConvertError::at("typed_config", format!("`{other}` is not a filter of this proxy"))),
    }
}

fn http(proto: &Proto, manager: &HttpConnectionManager) -> Result<ListenerResource> {
    for (index, filter) in manager.http_filters.iter().enumerate() {
        http_filter(filter).under_index("http_filters", index)?;
    }
    let routes = routes(proto, manager)?;
    let mut listener = base(proto)?;
    listener.protocol = match CodecType::try_from(manager.codec_type) {
        Ok(CodecType::Http1) => ListenerProtocol::Http1,
        Ok(CodecType::Http2) => ListenerProtocol::Http2,
        Ok(CodecType::Http3) => return Err(ConvertError::at("codec_type", "HTTP3 is not supported by this proxy")),
        Ok(CodecType::Auto) | Err(_) => ListenerProtocol::Auto,
    };
    listener.limits = limits(proto, manager)?;
    listener.access_log = !manager.access_log.is_empty();
    listener.routes = match &routes {
        RouteSource::Inline(table) => table.name.clone(),
        RouteSource::Rds(name) | RouteSource::Cluster(name) => name.clone(),
    };
    Ok(ListenerResource { listener, routes })
}

/// A filter may be unknown if it is optional or switched off; a required one decides about requests, so it is refused.
fn http_filter(filter: &HttpFilter) -> Result<()> {
    let is_router = matches!(&filter.config_type, Some(HttpConfigType::TypedConfig(any)) if any.type_url == ROUTER);
    if is_router || filter.is_optional || filter.disabled {
        return Ok(());
    }
    let message = format!(
        "`{}` is required, and not a filter of this proxy; mark it `is_optional` to go without it",
        filter.name
    );
    Err(ConvertError::here(message))
}

fn routes(proto: &Proto, manager: &HttpConnectionManager) -> Result<RouteSource> {
    match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            aggregated(rds.config_source.as_ref()).under("rds.config_source")?;
            Ok(RouteSource::Rds(rds.route_config_name.clone()))
        }
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = route::table(config.clone()).under("route_config")?;
            // Under a name of its own, so that it cannot meet a table that comes by RDS.
            let name = format!("listener|{}", proto.name);
            Ok(RouteSource::Inline(Arc::new(RouteTable { name, hosts: table.hosts.clone() })))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(ConvertError::unsupported("scoped_routes")),
        None => Err(ConvertError::at("route_specifier", "is absent or of a kind that this proxy does not know")),
    }
}

fn base(proto: &Proto) -> Result<Listener> {
    let bind = match &proto.address {
        Some(bind) => address(bind).under("address")?,
        None if proto.api_listener.is_some() => {
            return Err(ConvertError::at("api_listener", "is for clients without a proxy; a proxy needs an address"));
        }
        None => return Err(ConvertError::at("address", "is absent")),
    };
    Ok(Listener {
        name: proto.name.clone(),
        bind,
        direction: direction(proto),
        protocol: ListenerProtocol::Auto,
        routes: String::new(),
        limits: Limits::default(),
        access_log: false,
        trace: true,
        tls: None,
    })
}

fn direction(proto: &Proto) -> Direction {
    let named = proto.name == "inbound" || proto.name.starts_with("inbound|");
    match TrafficDirection::try_from(proto.traffic_direction) {
        Ok(TrafficDirection::Inbound) => Direction::Inbound,
        Ok(TrafficDirection::Outbound) => Direction::Outbound,
        _ if named => Direction::Inbound,
        _ => Direction::Outbound,
    }
}

fn limits(proto: &Proto, manager: &HttpConnectionManager) -> Result<Limits> {
    let mut limits = Limits::default();
    let common = manager.common_http_protocol_options.as_ref();
    if let Some(kilobytes) = manager.max_request_headers_kb {
        limits.max_head_bytes = (kilobytes.value as usize).saturating_mul(1024).clamp(256, 1024 * 1024);
    }
    if let Some(count) = common.and_then(|common| common.max_headers_count) {
        limits.max_headers = (count.value as usize).clamp(1, 1000);
    }
    let streams = manager.http2_protocol_options.as_ref().and_then(|http2| http2.max_concurrent_streams);
    if let Some(streams) = streams {
        limits.max_streams = streams.value.clamp(1, 100_000);
    }
    if let Some(bytes) = proto.per_connection_buffer_limit_bytes {
        limits.buffer_bytes = (bytes.value as usize).clamp(4096, 16 * 1024 * 1024);
    }
    let idle = common.and_then(|common| common.idle_timeout.as_ref());
    let idle = optional_millis(idle, "common_http_protocol_options.idle_timeout")?;
    let head = optional_millis(manager.request_headers_timeout.as_ref(), "request_headers_timeout")?;
    limits.idle_timeout_ms = bounded(idle, limits.idle_timeout_ms, 86_400_000);
    limits.head_timeout_ms = bounded(head, limits.head_timeout_ms, 3_600_000);
    Ok(limits)
}

/// Nothing is unbounded here: 0, Envoy's "never", becomes the longest that is allowed.
fn bounded(millis: Option<u64>, default: u64, most: u64) -> u64 {
    match millis {
        None => default,
        Some(0) => most,
        Some(millis) => millis.min(most),
    }
}

fn tcp(proto: &Proto, tcp: &TcpProxy) -> Result<ListenerResource> {
    refuse(tcp.tunneling_config.is_some(), "tunneling_config")?;
    refuse(tcp.metadata_match.is_some(), "metadata_match")?;
    let Some(ClusterSpecifier::Cluster(cluster)) = &tcp.cluster_specifier else {
        return Err(ConvertError::at("cluster", "is absent; weighted_clusters is not supported by this proxy"));
    };
    let mut listener = base(proto)?;
    listener.protocol = ListenerProtocol::Tcp;
    listener.routes = cluster.clone();
    listener.access_log = !tcp.access_log.is_empty();
    Ok(ListenerResource { listener, routes: RouteSource::Cluster(cluster.clone()) })
}

fn rpc(proto: &Proto, rpc: &RpcProxy) -> Result<ListenerResource> {
    let mut listener = base(proto)?;
    listener.protocol = match rpc_proxy::Protocol::try_from(rpc.protocol) {
        Ok(rpc_proxy::Protocol::Bolt) => ListenerProtocol::Bolt,
        Ok(rpc_proxy::Protocol::Dubbo) => ListenerProtocol::Dubbo,
        Ok(rpc_proxy::Protocol::Unknown) | Err(_) => {
            return Err(ConvertError::at("protocol", "is absent or of a kind that this proxy does not know"));
        }
    };
    if rpc.route_config_name.is_empty() {
        return Err(ConvertError::at("route_config_name", "is empty"));
    }
    listener.routes = rpc.route_config_name.clone();
    Ok(ListenerResource { listener, routes: RouteSource::Rds(rpc.route_config_name.clone()) })
}

/// A configuration in which what the listener names exists, to judge the listener by itself.
fn alone(resource: &ListenerResource) -> ProxyConfig {
    let listener = resource.listener.clone();
    let table = RouteTable { name: listener.routes.clone(), hosts: Vec::new() };
    let clusters = vec![route::empty_cluster(&listener.routes)];
    let secrets = awaited(listener.tls.iter().flat_map(ListenerTls::secrets));
    ProxyConfig { listeners: vec![listener], route_tables: vec![table], clusters, secrets }
}
