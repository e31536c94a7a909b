//! State of the world: each response holds all resources of its type (all that were asked for, at least).

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::engine::{Update, Versioned};
use super::kind::Kind;
use super::session::{Client, Variant, rejection};
use super::world::World;

/// What this stream has asked for and been answered.
pub(crate) struct Sotw {
    node: Option<Node>,
    types: BTreeMap<Kind, Type>,
}

#[derive(Default)]
struct Type {
    /// Of the last response that was accepted as a whole; outlives the stream.
    version: String,
    nonce: String,
    names: BTreeSet<String>,
    /// A request of this type was sent on this stream.
    is_open: bool,
}

impl Sotw {
    fn request(&mut self, kind: Kind, error: Option<String>) -> DiscoveryRequest {
        let state = self.types.entry(kind).or_default();
        DiscoveryRequest {
            version_info: state.version.clone(),
            node: self.node.take(),
            resource_names: state.names.iter().cloned().collect(),
            type_url: kind.type_url().to_owned(),
            response_nonce: state.nonce.clone(),
            error_detail: error.map(rejection),
            ..Default::default()
        }
    }
}

impl Variant for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn new() -> Self {
        Sotw { node: None, types: BTreeMap::new() }
    }

    fn begin(&mut self, node: Node) {
        self.node = Some(node);
        for state in self.types.values_mut() {
            *state = Type { version: std::mem::take(&mut state.version), ..Default::default() };
        }
    }

    async fn open(
        client: &mut Client,
        requests: ReceiverStream<Self::Request>,
    ) -> Result<Streaming<Self::Response>, Status> {
        Ok(client.stream_aggregated_resources(requests).await?.into_inner())
    }

    fn subscribe(&mut self, world: &World) -> Vec<Self::Request> {
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let wanted = world.wanted(kind);
            let state = self.types.entry(kind).or_default();
            let is_due = if state.is_open { state.names != wanted } else { kind.is_wildcard() || !wanted.is_empty() };
            if is_due {
                state.is_open = true;
                state.names = wanted;
                requests.push(self.request(kind, None));
            }
        }
        requests
    }

    fn update(&mut self, response: Self::Response) -> Option<(Update, String)> {
        let kind = Kind::from_url(&response.type_url)?;
        let version = response.version_info;
        self.types.entry(kind).or_default().nonce = response.nonce;
        let versioned = |resource| Versioned { name: String::new(), version: version.clone(), resource };
        let resources = response.resources.into_iter().map(versioned).collect();
        Some((Update { kind, resources, removed: Vec::new(), is_whole: kind.is_wildcard() }, version))
    }

    fn answer(&mut self, kind: Kind, receipt: String, error: Option<String>) -> Self::Request {
        if error.is_none() {
            self.types.entry(kind).or_default().version = receipt;
        }
        self.request(kind, error)
    }
}
