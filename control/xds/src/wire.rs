//! Endpoint messages, wire-compatible with Envoy's, for two reasons.
//!
//! The generated types keep maps in `HashMap`s, which encode in a random order, so equal endpoints would hash to
//! different versions; here they are `BTreeMap`s. And here an assignment is put together from endpoints that are
//! encoded already: a nested message and a `bytes` field look the same on the wire, so one instance's change does not
//! encode its ten thousand siblings anew. Field numbers are those of `envoy/config/endpoint/v3` and
//! `envoy/config/core/v3`; a test reads the result back with the generated types.

use std::collections::BTreeMap;

/// `ClusterLoadAssignment`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Assignment {
    #[prost(string, tag = "1")]
    pub cluster_name: String,
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<LocalityEndpoints>,
}

/// `LocalityLbEndpoints`; the endpoints are encoded [`Endpoint`]s.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LocalityEndpoints {
    #[prost(message, optional, tag = "1")]
    pub locality: Option<Locality>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub lb_endpoints: Vec<prost::bytes::Bytes>,
    #[prost(message, optional, tag = "3")]
    pub load_balancing_weight: Option<UInt32>,
}

/// `core.Locality`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Locality {
    #[prost(string, tag = "1")]
    pub region: String,
    #[prost(string, tag = "2")]
    pub zone: String,
}

/// `google.protobuf.UInt32Value`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct UInt32 {
    #[prost(uint32, tag = "1")]
    pub value: u32,
}

/// `LbEndpoint`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LbEndpoint {
    #[prost(message, optional, tag = "1")]
    pub endpoint: Option<Endpoint>,
    /// `core.HealthStatus`.
    #[prost(int32, tag = "2")]
    pub health_status: i32,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Metadata>,
    #[prost(message, optional, tag = "4")]
    pub load_balancing_weight: Option<UInt32>,
}

/// `Endpoint`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Endpoint {
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
}

/// `core.Address` with a socket address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// `core.SocketAddress`, TCP.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}

/// `core.Metadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    pub filter_metadata: BTreeMap<String, Struct>,
}

/// `google.protobuf.Struct` of strings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Text>,
}

/// `google.protobuf.Value` that is a string.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}
