//! Listener with its one HTTP connection manager, RPC proxy or TCP proxy.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::Listener as Proto;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter::ConfigType as HttpConfigType,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::protobuf::value::Kind;
use weir_config::{Direction, Limits, Listener, ListenerProtocol, ListenerTls, ProxyConfig, RouteTable};
use weir_proto::proxy::{METADATA, RPC_PROXY, RpcProxy, rpc_proxy};

use super::chains::{TCP_PROXY, chains, tcp_cluster};
use super::cluster::aggregated;
use super::endpoint::address;
use super::error::{ConvertError, Result, Under, refuse};
use super::{ListenerResource, RouteSource, awaited, decode, optional_millis, route, validated};

const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
/// Listener filters whose work the proxy does by itself: it sniffs the protocol and reads the server's name.
const KNOWN: [&str; 3] =
    ["envoy.filters.listener.http_inspector", "envoy.filters.listener.tls_inspector", ORIGINAL_DST];
/// As in `weir_config::validate`.
const MAX_DRAIN_MS: u64 = 86_400_000;

pub(super) fn listener(proto: Proto) -> Result<Arc<ListenerResource>> {
    refuse(!proto.additional_addresses.is_empty(), "additional_addresses")?;
    refuse(proto.fcds_config.is_some(), "fcds_config")?;
    listener_filters(&proto)?;
    let chains = chains(&proto)?;
    let mut resource = match chains.filter {
        Some((filter, field)) => serve(&proto, filter).under(field)?,
        None => passing_by_name(&proto)?,
    };
    let listener = &mut resource.listener;
    (listener.tls, listener.server_names) = (chains.tls, chains.server_names);
    listener.tcp_cluster = chains.tcp_cluster;
    listener.original_destination = takes_intercepted(&proto);
    listener.bind_to_port = proto.bind_to_port.is_none_or(|bind| bind.value);
    listener.access_log |= !proto.access_log.is_empty();
    let detection = optional_millis(proto.listener_filters_timeout.as_ref(), "listener_filters_timeout")?;
    listener.limits.detect_timeout_ms = bounded(detection, listener.limits.detect_timeout_ms, 600_000);
    validated(&alone(&resource))?;
    Ok(Arc::new(resource))
}

fn listener_filters(proto: &Proto) -> Result<()> {
    let unknown = proto.listener_filters.iter().find(|filter| !KNOWN.contains(&filter.name.as_str()));
    unknown.map_or(Ok(()), |filter| Err(ConvertError::unsupported(format!("listener_filters `{}`", filter.name))))
}

/// Envoy's filter asks the kernel where a connection was going, and its flag passes it to the listener for that. Another
/// listener is bound there for nothing else, so here they are one.
fn takes_intercepted(proto: &Proto) -> bool {
    let filter = proto.listener_filters.iter().any(|filter| filter.name == ORIGINAL_DST);
    filter || proto.use_original_dst.is_some_and(|used| used.value)
}

/// Nothing is served but TLS for servers that are named.
fn passing_by_name(proto: &Proto) -> Result<ListenerResource> {
    let listener = Listener { protocol: ListenerProtocol::Tcp, ..base(proto)? };
    Ok(ListenerResource { listener, routes: RouteSource::None })
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
        RouteSource::Rds(name) => name.clone(),
        RouteSource::None => String::new(),
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
        bind_to_port: true,
        original_destination: false,
        server_names: Vec::new(),
        tcp_cluster: None,
        limits: Limits::default(),
        access_log: false,
        trace: true,
        tls: None,
        drain_ms: drain_ms(proto),
    })
}

/// Weir's own metadata tells how long requests may take to finish: xDS has no field for that.
fn drain_ms(proto: &Proto) -> Option<u64> {
    let own = proto.metadata.as_ref()?.filter_metadata.get(METADATA)?;
    match own.fields.get("drainMs")?.kind.as_ref()? {
        Kind::NumberValue(millis) if *millis >= 0.0 => Some((*millis as u64).min(MAX_DRAIN_MS)),
        _ => None,
    }
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
    let silence = optional_millis(manager.stream_idle_timeout.as_ref(), "stream_idle_timeout")?;
    limits.stream_idle_timeout_ms = silence.map(|millis| millis.min(86_400_000));
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
    let mut listener = base(proto)?;
    listener.protocol = ListenerProtocol::Tcp;
    listener.routes = tcp_cluster(tcp)?;
    listener.access_log = !tcp.access_log.is_empty();
    let idle = optional_millis(tcp.idle_timeout.as_ref(), "idle_timeout")?;
    listener.limits.idle_timeout_ms = bounded(idle, listener.limits.idle_timeout_ms, 86_400_000);
    Ok(ListenerResource { listener, routes: RouteSource::None })
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
    let has_table = resource.routes != RouteSource::None;
    let table = has_table.then(|| RouteTable { name: listener.routes.clone(), hosts: Vec::new() });
    let names: BTreeSet<&str> = resource.listener.passes_to().collect();
    let clusters = names.into_iter().map(route::empty_cluster).collect();
    let secrets = awaited(listener.tls.iter().flat_map(ListenerTls::secrets));
    ProxyConfig { listeners: vec![listener], route_tables: table.into_iter().collect(), clusters, secrets }
}
