//! Delta: each response holds what has changed. The default: an endpoint change costs one small message.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::engine::{Update, Versioned};
use super::kind::Kind;
use super::session::{Client, Variant, rejection};
use super::world::World;

/// What this stream has subscribed to; no entry: no request of that type was sent yet.
pub(crate) struct Delta {
    node: Option<Node>,
    subscribed: BTreeMap<Kind, BTreeSet<String>>,
}

impl Delta {
    fn request(&mut self, kind: Kind) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { node: self.node.take(), type_url: kind.type_url().to_owned(), ..Default::default() }
    }

    /// The first of its type on this stream: tells what is held already.
    fn first(&mut self, kind: Kind, wanted: &BTreeSet<String>, held: HashMap<String, String>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            resource_names_subscribe: wanted.iter().cloned().collect(),
            initial_resource_versions: held,
            ..self.request(kind)
        }
    }
}

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn new() -> Self {
        Delta { node: None, subscribed: BTreeMap::new() }
    }

    fn begin(&mut self, node: Node) {
        self.node = Some(node);
        self.subscribed.clear();
    }

    async fn open(
        client: &mut Client,
        requests: ReceiverStream<Self::Request>,
    ) -> Result<Streaming<Self::Response>, Status> {
        Ok(client.delta_aggregated_resources(requests).await?.into_inner())
    }

    fn subscribe(&mut self, world: &World) -> Vec<Self::Request> {
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let wanted = world.wanted(kind);
            match self.subscribed.get(&kind) {
                None if kind.is_wildcard() || !wanted.is_empty() => {
                    requests.push(self.first(kind, &wanted, world.versions(kind)));
                }
                Some(names) if *names != wanted => {
                    let subscribe = wanted.difference(names).cloned().collect();
                    let unsubscribe = names.difference(&wanted).cloned().collect();
                    requests.push(DeltaDiscoveryRequest {
                        resource_names_subscribe: subscribe,
                        resource_names_unsubscribe: unsubscribe,
                        ..self.request(kind)
                    });
                }
                _ => continue,
            }
            self.subscribed.insert(kind, wanted);
        }
        requests
    }

    fn update(&mut self, response: Self::Response) -> Option<(Update, String)> {
        let kind = Kind::from_url(&response.type_url)?;
        let resources = response.resources.into_iter().filter_map(|resource| {
            // Without content it is a heartbeat of a resource with a time to live.
            let content = resource.resource?;
            Some(Versioned { name: resource.name, version: resource.version, resource: content })
        });
        let update =
            Update { kind, resources: resources.collect(), removed: response.removed_resources, is_whole: false };
        Some((update, response.nonce))
    }

    fn answer(&mut self, kind: Kind, receipt: String, error: Option<String>) -> Self::Request {
        DeltaDiscoveryRequest { response_nonce: receipt, error_detail: error.map(rejection), ..self.request(kind) }
    }
}
