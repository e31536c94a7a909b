//! Listeners: traffic to the local application, calls of the local application, and gRPC's API listener.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Metadata, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as manager;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::google::protobuf as wkt;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use weir_model::app::Protocol;
use weir_proto::proxy::{METADATA, RPC_PROXY, RpcProxy, rpc_proxy};

use super::{ads, socket_address, tls};
use crate::names;
use crate::resource::{Resource, pack};

/// What callers may speak to an inbound listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Plaintext; the proxy can't do TLS.
    Plaintext,
    /// TLS and plaintext, told apart by the first bytes.
    Both,
    /// TLS alone.
    Tls,
}

/// What goes through a listener.
#[derive(Debug, Clone, Copy)]
pub struct Serves {
    /// What is spoken.
    pub protocol: Protocol,
    /// How long requests get to finish when the proxy goes, milliseconds.
    pub drain_ms: u64,
}

/// The listener `inbound`.
pub fn inbound(bind: SocketAddr, app_port: u16, serves: Serves, takes: Takes) -> Arc<Resource> {
    let to = names::inbound_cluster(app_port);
    let plain = listening(names::INBOUND, bind, TrafficDirection::Inbound, serves, &to);
    let message = if takes == Takes::Plaintext { plain } else { with_tls(plain, serves.protocol, takes) };
    Resource::new(names::INBOUND, &message)
}

/// The listener `inbound|PORT`: the same for connections that were going to the application's own port and were turned
/// round. It has no socket: the application has that.
pub fn application(address: IpAddr, app_port: u16, serves: Serves, takes: Takes) -> Arc<Resource> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (name, bind) = (names::inbound_cluster(app_port), SocketAddr::new(any, app_port));
    let mut plain = listening(names::INBOUND, bind, TrafficDirection::Inbound, serves, &name);
    plain.name.clone_from(&name);
    plain.bind_to_port = Some(wkt::BoolValue { value: false });
    let message = if takes == Takes::Plaintext { plain } else { with_tls(plain, serves.protocol, takes) };
    Resource::new(name, &message)
}

/// Connections that were turned round to the proxy: those for which another listener is go there, the others to where
/// they were going.
pub fn intercepted(name: &str, bind: SocketAddr, direction: TrafficDirection, drain_ms: u64) -> Arc<Resource> {
    let serves = Serves { protocol: Protocol::Tcp, drain_ms };
    let mut message = listening(name, bind, direction, serves, names::PASSTHROUGH);
    message.use_original_dst = Some(wkt::BoolValue { value: true });
    message.listener_filters = vec![listener::ListenerFilter {
        name: "envoy.filters.listener.original_dst".to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(pack(&OriginalDst::default()))),
        ..Default::default()
    }];
    Resource::new(name, &message)
}

/// Puts a chain for TLS with the same filters before the chain for plaintext, or in its place.
fn with_tls(mut listener: listener::Listener, protocol: Protocol, takes: Takes) -> listener::Listener {
    listener.listener_filters = vec![tls::inspector()];
    let Some(plain) = listener.filter_chains.pop() else { return listener };
    let secure = listener::FilterChain {
        filter_chain_match: tls::transport("tls"),
        transport_socket: Some(tls::downstream(protocol)),
        ..plain.clone()
    };
    listener.filter_chains.push(secure);
    if takes == Takes::Both {
        let plain = listener::FilterChain { filter_chain_match: tls::transport("raw_buffer"), ..plain };
        listener.filter_chains.push(plain);
    }
    listener
}

/// The listener `outbound|APP`.
pub fn outbound(app: &str, bind: SocketAddr, serves: Serves) -> Arc<Resource> {
    let name = names::outbound(app);
    Resource::new(name.as_str(), &listening(&name, bind, TrafficDirection::Outbound, serves, app))
}

/// The listener `APP` for gRPC's own client, which has no socket: it only says where the routes are.
pub fn api(app: &str) -> Arc<Resource> {
    let manager = connection_manager(app, &names::outbound(app));
    let message = listener::Listener {
        name: app.to_owned(),
        api_listener: Some(listener::ApiListener { api_listener: Some(pack(&manager)) }),
        ..Default::default()
    };
    Resource::new(app, &message)
}

fn listening(
    name: &str,
    bind: SocketAddr,
    direction: TrafficDirection,
    serves: Serves,
    tcp_cluster: &str,
) -> listener::Listener {
    let filter = match serves.protocol {
        Protocol::Tcp => network_filter("envoy.filters.network.tcp_proxy", pack(&tcp_proxy(name, tcp_cluster))),
        Protocol::Bolt => network_filter("weir.rpc_proxy", rpc_proxy(name, rpc_proxy::Protocol::Bolt)),
        Protocol::Dubbo => network_filter("weir.rpc_proxy", rpc_proxy(name, rpc_proxy::Protocol::Dubbo)),
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
            network_filter("envoy.filters.network.http_connection_manager", pack(&connection_manager(name, name)))
        }
    };
    listener::Listener {
        name: name.to_owned(),
        address: socket_address(bind.ip(), bind.port()),
        traffic_direction: direction as i32,
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        metadata: Some(metadata(serves.drain_ms)),
        ..Default::default()
    }
}

/// What Envoy has no field for; other proxies pass over metadata that they do not know.
fn metadata(drain_ms: u64) -> Metadata {
    let millis = wkt::Value { kind: Some(wkt::value::Kind::NumberValue(drain_ms as f64)) };
    let fields = wkt::Struct { fields: HashMap::from([("drainMs".to_owned(), millis)]) };
    Metadata { filter_metadata: HashMap::from([(METADATA.to_owned(), fields)]), ..Default::default() }
}

fn network_filter(name: &str, config: Any) -> listener::Filter {
    listener::Filter { name: name.to_owned(), config_type: Some(FilterConfig::TypedConfig(config)) }
}

/// Speaks HTTP/1.1 or HTTP/2, whichever the caller begins with; routes come by RDS; WebSocket passes.
fn connection_manager(stats: &str, routes: &str) -> hcm::HttpConnectionManager {
    let rds = hcm::Rds { config_source: ads(), route_config_name: routes.to_owned() };
    let websocket = manager::UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() };
    hcm::HttpConnectionManager {
        codec_type: manager::CodecType::Auto as i32,
        stat_prefix: stats.to_owned(),
        route_specifier: Some(manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![router()],
        upgrade_configs: vec![websocket],
        server_header_transformation: manager::ServerHeaderTransformation::PassThrough as i32,
        ..Default::default()
    }
}

fn router() -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..Default::default()
    }
}

fn tcp_proxy(stats: &str, cluster: &str) -> tcp::TcpProxy {
    tcp::TcpProxy {
        stat_prefix: stats.to_owned(),
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    }
}

/// Routes come by RDS under the listener's own name, as for HTTP.
fn rpc_proxy(name: &str, protocol: rpc_proxy::Protocol) -> Any {
    let config =
        RpcProxy { stat_prefix: name.to_owned(), protocol: protocol as i32, route_config_name: name.to_owned() };
    Any { type_url: RPC_PROXY.to_owned(), value: config.encode_to_vec() }
}
