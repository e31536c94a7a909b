//! Model in, Envoy's messages out; pure.
//!
//! What is built satisfies real Envoy, gRPC's xDS client and `weir-proxy` alike: plain fields, no extension but the
//! HTTP connection manager with its router, the TCP proxy, the upstream HTTP protocol options and, for nodes that say they
//! can do it, TLS. Listeners of Bolt and Dubbo apps are the exception: only `weir-proxy` knows their filter.

mod baggage;
pub mod cluster;
pub mod endpoints;
pub mod listener;
pub mod route;
pub mod tls;

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as wkt;

/// "From the same stream", as ADS is told in a resource.
fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    })
}

fn socket_address(ip: std::net::IpAddr, port: u16) -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..Default::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

fn uint(value: u32) -> Option<wkt::UInt32Value> {
    Some(wkt::UInt32Value { value })
}

fn duration(value: Duration) -> Option<wkt::Duration> {
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    Some(wkt::Duration { seconds, nanos: value.subsec_nanos().cast_signed() })
}

fn millis(value: u64) -> Option<wkt::Duration> {
    duration(Duration::from_millis(value))
}

#[cfg(test)]
mod tests;
