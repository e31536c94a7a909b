//! ClusterLoadAssignment to endpoints.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HealthStatus, Locality, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::google::protobuf::value::Kind;
use weir_config::Endpoint;

use super::error::{ConvertError, Result, Under};
use super::{Assignment, DnsTarget, socket, tls};

/// Metadata namespace whose strings become an endpoint's labels.
const LABELS: &str = "weir";
/// Most endpoints in one assignment.
const MAX_ENDPOINTS: usize = 100_000;
/// As in `weir_config::validate`.
const MAX_WEIGHT: u32 = 1_000_000;

/// Where one endpoint is.
enum Place {
    Address(SocketAddr),
    Name(String, u16),
}

/// Endpoints of an EDS answer: addresses only.
pub(super) fn assignment(proto: ClusterLoadAssignment) -> Result<Arc<Assignment>> {
    let (endpoints, names) = places(&proto)?;
    match names.first() {
        Some(name) => {
            Err(ConvertError::at("endpoints", format!("`{}` is a name: EDS endpoints are IP addresses", name.host)))
        }
        None => Ok(Arc::new(Assignment { endpoints, returning: is_returning(&proto) })),
    }
}

/// Endpoints by address, and those by name.
pub(super) fn places(proto: &ClusterLoadAssignment) -> Result<(Vec<Endpoint>, Vec<DnsTarget>)> {
    let total: usize = proto.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum();
    if total > MAX_ENDPOINTS {
        return Err(ConvertError::at("endpoints", format!("{total} endpoints; at most {MAX_ENDPOINTS} are taken")));
    }
    let mut found = Found::default();
    for (index, locality) in proto.endpoints.iter().enumerate() {
        found.locality(locality).under_index("endpoints", index)?;
    }
    Ok((found.endpoints, found.names))
}

#[derive(Default)]
struct Found {
    endpoints: Vec<Endpoint>,
    names: Vec<DnsTarget>,
    seen: HashSet<SocketAddr>,
}

impl Found {
    fn locality(&mut self, locality: &LocalityLbEndpoints) -> Result<()> {
        for (index, endpoint) in locality.lb_endpoints.iter().enumerate() {
            if is_usable(endpoint.health_status) {
                self.endpoint(locality, endpoint).under_index("lb_endpoints", index)?;
            }
        }
        Ok(())
    }

    fn endpoint(&mut self, locality: &LocalityLbEndpoints, proto: &LbEndpoint) -> Result<()> {
        let like = Endpoint {
            address: unset(),
            weight: proto.load_balancing_weight.map_or(1, |weight| weight.value.min(MAX_WEIGHT)),
            priority: locality.priority,
            labels: labels(locality.locality.as_ref(), proto.metadata.as_ref()),
            tls: tls::endpoint_is_ready(proto.metadata.as_ref()),
        };
        match place(proto)? {
            // The same address twice is one endpoint: the first stands.
            Place::Address(address) if !self.seen.insert(address) => {}
            Place::Address(address) => self.endpoints.push(Endpoint { address, ..like }),
            Place::Name(host, port) => self.names.push(DnsTarget { host, port, like }),
        }
        Ok(())
    }
}

/// An address that is not one yet.
fn unset() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

/// One that is drained has been taken out in order, and is told of still: it comes back.
fn is_returning(proto: &ClusterLoadAssignment) -> bool {
    let mut all = proto.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    all.any(|endpoint| endpoint.health_status == HealthStatus::Draining as i32)
}

/// A status that is new to this build counts as usable: not to send would be the riskier guess.
fn is_usable(status: i32) -> bool {
    let status = HealthStatus::try_from(status).unwrap_or(HealthStatus::Unknown);
    !matches!(status, HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout)
}

fn place(proto: &LbEndpoint) -> Result<Place> {
    match &proto.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => match &endpoint.address {
            Some(address) => address_place(address).under("endpoint.address"),
            None => Err(ConvertError::at("endpoint.address", "is absent")),
        },
        Some(HostIdentifier::EndpointName(_)) => Err(ConvertError::unsupported("endpoint_name")),
        None => Err(ConvertError::at("endpoint", "is absent")),
    }
}

fn address_place(address: &Address) -> Result<Place> {
    let Some(AddressKind::SocketAddress(proto)) = &address.address else {
        return Err(ConvertError::here("is not a socket address, the only kind supported"));
    };
    let Some(PortSpecifier::PortValue(port)) = proto.port_specifier else {
        return Err(ConvertError::at("socket_address", "has no port_value"));
    };
    if let Some(address) = socket(&proto.address, port) {
        return Ok(Place::Address(address));
    }
    match u16::try_from(port) {
        Ok(port) if !proto.address.is_empty() => Ok(Place::Name(proto.address.clone(), port)),
        _ => Err(ConvertError::at("socket_address", format!("`{}:{port}` is not an address", proto.address))),
    }
}

/// An address that must be an IP address and a port.
pub(super) fn address(proto: &Address) -> Result<SocketAddr> {
    match address_place(proto)? {
        Place::Address(address) => Ok(address),
        Place::Name(name, _) => Err(ConvertError::at("socket_address", format!("`{name}` is not an IP address"))),
    }
}

fn labels(locality: Option<&Locality>, metadata: Option<&Metadata>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Some(locality) = locality {
        let parts = [("unit", &locality.region), ("zone", &locality.zone)];
        labels.extend(
            parts.into_iter().filter(|(_, part)| !part.is_empty()).map(|(key, part)| (key.to_owned(), part.clone())),
        );
    }
    let own = metadata.and_then(|metadata| metadata.filter_metadata.get(LABELS));
    for (key, value) in own.into_iter().flat_map(|own| &own.fields) {
        if let Some(Kind::StringValue(text)) = &value.kind {
            labels.insert(key.clone(), text.clone());
        }
    }
    labels
}
