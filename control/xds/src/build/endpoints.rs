//! Endpoint assignments: the published instances of an app, by locality (region = unit, zone).

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use weir_model::Instance;

use super::tls;
use crate::resource::Resource;
use crate::wire;

/// Namespace of Weir's endpoint metadata.
const METADATA: &str = "weir";
/// `core.HealthStatus.UNKNOWN`: endpoints are not asked by the control plane how they are.
const UNKNOWN: i32 = 0;
/// `core.HealthStatus.DRAINING`.
const DRAINING: i32 = 3;

/// One instance as an endpoint, encoded once.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    locality: wire::Locality,
    weight: u32,
    encoded: Bytes,
}

impl Endpoint {
    /// The endpoint of an instance; `tls`: to be spoken TLS to.
    pub fn new(instance: &Instance, tls: bool) -> Endpoint {
        Endpoint::told(instance, tls, UNKNOWN)
    }

    /// The endpoint of an instance that takes nothing now, and will in a moment: `DRAINING`, which tells it from one that
    /// is gone.
    pub fn returning(instance: &Instance) -> Endpoint {
        Endpoint::told(instance, false, DRAINING)
    }

    fn told(instance: &Instance, tls: bool, health_status: i32) -> Endpoint {
        let spec = &instance.spec;
        let locality = wire::Locality { region: spec.unit.clone(), zone: spec.zone.clone() };
        Endpoint { locality, weight: spec.weight, encoded: encode(instance, tls, health_status).into() }
    }
}

fn encode(instance: &Instance, tls: bool, health_status: i32) -> Vec<u8> {
    let spec = &instance.spec;
    let socket = wire::SocketAddress { address: spec.address.to_string(), port_value: u32::from(spec.port) };
    let address = wire::Address { socket_address: Some(socket) };
    let message = wire::LbEndpoint {
        endpoint: Some(wire::Endpoint { address: Some(address) }),
        health_status,
        metadata: Some(metadata(instance, tls)),
        load_balancing_weight: Some(wire::UInt32 { value: spec.weight }),
    };
    message.encode_to_vec()
}

fn metadata(instance: &Instance, tls: bool) -> wire::Metadata {
    let text = |value: &str| wire::Text { string_value: Some(value.to_owned()) };
    let mut fields = BTreeMap::from([("instance".to_owned(), text(instance.name()))]);
    if !instance.spec.app_version.is_empty() {
        fields.insert("version".to_owned(), text(&instance.spec.app_version));
    }
    // Where programs that know nothing of the proxy call it.
    if instance.spec.app_port != 0 {
        fields.insert("appPort".to_owned(), text(&instance.spec.app_port.to_string()));
    }
    let mut filter_metadata = BTreeMap::from([(METADATA.to_owned(), wire::Struct { fields })]);
    if tls {
        let fields = BTreeMap::from([(tls::READY.0.to_owned(), text(tls::READY.1))]);
        filter_metadata.insert(tls::SOCKET_MATCH.to_owned(), wire::Struct { fields });
    }
    wire::Metadata { filter_metadata }
}

/// The assignment of a cluster. A locality's weight is the sum of its endpoints': gRPC ignores a locality that has
/// none, and with the sum every endpoint gets its own share wherever it is.
pub fn assignment<'a>(cluster: &str, endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Arc<Resource> {
    let mut localities: BTreeMap<&wire::Locality, (u32, Vec<Bytes>)> = BTreeMap::new();
    for endpoint in endpoints {
        let (weight, encoded) = localities.entry(&endpoint.locality).or_default();
        *weight = weight.saturating_add(endpoint.weight);
        encoded.push(endpoint.encoded.clone());
    }
    let endpoints = localities.into_iter().map(|(locality, (weight, lb_endpoints))| wire::LocalityEndpoints {
        locality: Some(locality.clone()),
        lb_endpoints,
        load_balancing_weight: Some(wire::UInt32 { value: weight }),
    });
    let message = wire::Assignment { cluster_name: cluster.to_owned(), endpoints: endpoints.collect() };
    Resource::new(cluster, &message)
}
