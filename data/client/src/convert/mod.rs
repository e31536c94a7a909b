//! Protobuf ends here: xDS resources in, the proxy's own plain configuration types out.
//!
//! *Forward compatible*: a field that this build does not know is skipped by the decoder; a filter marked optional, a
//! new health status or a new codec type falls back to what is safe. *Strict where it matters*: what would change who
//! gets a request, or how it is protected (an unknown required filter, an unsupported matcher, a TLS socket), is an
//! error that names the field, so that the control plane hears of it (NACK) and the last good configuration stays.
//!
//! Every resource is also checked by [`weir_config::validate`] by itself, so that a mistake is blamed on the resource
//! that has it.

mod chains;
mod cluster;
mod endpoint;
mod error;
mod listener;
mod matcher;
pub(crate) mod route;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::{Any, Duration};
use prost::Message;
use weir_config::{Cluster, Endpoint, Listener, RouteTable, Secret};

use error::ConvertError;
use error::{Result, Under};

/// Type URLs of the resources that are understood.
pub(crate) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub(crate) const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub(crate) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Type URL of EDS.
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Type URL of SDS.
pub(crate) const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const RESOURCE: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// A listener and where its routes come from; `listener.routes` already names the table or cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListenerResource {
    pub(crate) listener: Listener,
    pub(crate) routes: RouteSource,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RouteSource {
    /// A route configuration of this name is to be asked for.
    Rds(String),
    /// It came with the listener.
    Inline(Arc<RouteTable>),
    /// There are none: all is passed on as bytes, as the listener says.
    None,
}

/// A cluster (without endpoints, unless static) and where its endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusterResource {
    pub(crate) cluster: Cluster,
    pub(crate) endpoints: EndpointSource,
    pub(crate) tls_endpoints: TlsEndpoints,
}

/// Which endpoints of a cluster are spoken TLS to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsEndpoints {
    /// None.
    None,
    /// Those which say that they are ready.
    Marked,
    /// All.
    All,
}

impl TlsEndpoints {
    /// Sets for each endpoint whether it is.
    pub(crate) fn apply(self, endpoints: &mut [Endpoint]) {
        for endpoint in endpoints {
            endpoint.tls = match self {
                TlsEndpoints::None => false,
                TlsEndpoints::Marked => endpoint.tls,
                TlsEndpoints::All => true,
            };
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EndpointSource {
    /// They are in the cluster.
    Static,
    /// A load assignment of this name is to be asked for.
    Eds(String),
    /// Names to be resolved; addresses that came as such are in the cluster.
    Dns(Vec<DnsTarget>),
}

/// Endpoints of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) endpoints: Vec<Endpoint>,
    /// Others that are drained now: there will be endpoints again.
    pub(crate) returning: bool,
}

/// A host name that stands for endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DnsTarget {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Weight, priority and labels for each address; its own address is unset.
    pub(crate) like: Endpoint,
}

/// Any resource that a proxy understands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resource {
    Listener(Arc<ListenerResource>),
    Routes(Arc<RouteTable>),
    Cluster(Arc<ClusterResource>),
    Endpoints(Arc<Assignment>),
    Secret(Arc<Secret>),
}

/// Reads one resource: its name and what it says.
///
/// # Errors
/// The name as far as it could be read, and what is wrong.
pub(crate) fn resource(any: &Any) -> std::result::Result<(String, Resource), (String, ConvertError)> {
    match any.type_url.as_str() {
        LISTENER => read(any, listener::listener, |proto| &proto.name, Resource::Listener),
        ROUTES => read(any, route::table, |proto| &proto.name, Resource::Routes),
        CLUSTER => read(any, cluster::cluster, |proto| &proto.name, Resource::Cluster),
        SECRET => read(any, tls::secret, |proto| &proto.name, Resource::Secret),
        ENDPOINTS => read(any, endpoint::assignment, |proto| &proto.cluster_name, Resource::Endpoints),
        other => Err((String::new(), ConvertError::at("type_url", format!("`{other}` is not a known resource type")))),
    }
}

/// State-of-the-world servers may wrap a resource to give it a name or a time to live.
///
/// # Errors
/// If the wrapper is broken or empty.
pub(crate) fn unwrap(any: Any) -> Result<Any> {
    if any.type_url != RESOURCE {
        return Ok(any);
    }
    let wrapper: envoy_types::pb::envoy::service::discovery::v3::Resource = decode(&any)?;
    wrapper.resource.ok_or_else(|| ConvertError::at("resource", "is absent from the wrapper"))
}

fn read<M: Message + Default, T>(
    any: &Any,
    convert: fn(M) -> Result<T>,
    name: fn(&M) -> &String,
    wrap: fn(T) -> Resource,
) -> std::result::Result<(String, Resource), (String, ConvertError)> {
    let proto: M = decode(any).map_err(|error| (String::new(), error))?;
    let name = name(&proto).clone();
    if name.is_empty() {
        return Err((name, ConvertError::at("name", "is empty")));
    }
    match convert(proto) {
        Ok(resource) => Ok((name, wrap(resource))),
        Err(error) => Err((name, error)),
    }
}

fn decode<M: Message + Default>(any: &Any) -> Result<M> {
    M::decode(any.value.as_slice()).map_err(|error| {
        let kind = any.type_url.rsplit('.').next().unwrap_or_default();
        ConvertError::at("value", format!("is not a {kind}: {error}"))
    })
}

/// Milliseconds, rounded up so that a tiny duration is not taken for "off"; negative is an error.
fn millis(duration: &Duration) -> Result<u64> {
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u64::try_from(duration.nanos).ok();
    match seconds.zip(nanos) {
        Some((seconds, nanos)) => Ok(seconds.saturating_mul(1000).saturating_add(nanos.div_ceil(1_000_000))),
        None => Err(ConvertError::here("is negative")),
    }
}

fn optional_millis(duration: Option<&Duration>, field: &str) -> Result<Option<u64>> {
    duration.map(millis).transpose().under(field)
}

/// The problems of one resource, as far as it can be judged alone.
fn validated(config: &weir_config::ProxyConfig) -> Result<()> {
    weir_config::validate(config).map_err(|problems| {
        let words = problems.iter().take(10).map(ToString::to_string).collect::<Vec<_>>();
        ConvertError::here(words.join("; "))
    })
}

/// Secrets of these names, still awaited: enough to judge by itself what refers to them.
fn awaited<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Secret> {
    names.map(|name| Secret { name: name.to_owned(), ..Default::default() }).collect()
}

fn socket(ip: &str, port: u32) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip.parse().ok()?, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests;
