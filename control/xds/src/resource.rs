//! One xDS resource, encoded once and shared by all streams, and the types of them.

use std::fmt;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// A type of resource, in the order in which a change of several types must be sent: a secret before what names it, a
/// cluster before its endpoints, both before the listener and the route that lead to them (make before break).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// SDS.
    Secret,
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl Type {
    /// All, in sending order.
    pub const ALL: [Type; 5] = [Type::Secret, Type::Cluster, Type::Endpoints, Type::Listener, Type::Route];

    /// The type URL on the wire.
    pub fn url(self) -> &'static str {
        match self {
            Type::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Type::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Type::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Type::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Type::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The name people use.
    pub fn short(self) -> &'static str {
        match self {
            Type::Secret => "SDS",
            Type::Cluster => "CDS",
            Type::Endpoints => "EDS",
            Type::Listener => "LDS",
            Type::Route => "RDS",
        }
    }

    /// The type of a URL; `None`: one this server doesn't serve.
    pub fn from_url(url: &str) -> Option<Type> {
        Type::ALL.into_iter().find(|t| t.url() == url)
    }

    /// True for types of which a client may ask for "all that is meant for me", and of which a state-of-the-world
    /// response always lists everything (what is missing is deleted).
    pub fn is_root(self) -> bool {
        matches!(self, Type::Cluster | Type::Listener)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// A resource as it goes on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// Hash of its bytes: equal after a restart, so a reconnecting client is sent nothing needless.
    pub version: Arc<str>,
    /// The encoded message.
    pub body: Vec<u8>,
    /// There is a private key in it: it is shown nowhere, and overwritten in the end.
    secret: bool,
}

impl Resource {
    /// Encodes a message. It must encode the same way every time: no map with more than one entry in it, since the
    /// generated types hold maps in random order (see [`crate::wire`] for where that matters).
    pub fn new(name: impl Into<Arc<str>>, message: &impl Message) -> Arc<Resource> {
        let body = message.encode_to_vec();
        Arc::new(Resource { name: name.into(), version: hash([body.as_slice()]), body, secret: false })
    }

    /// An encoded message with a private key in it, under a version that is not told from the key.
    pub fn secret(name: impl Into<Arc<str>>, version: Arc<str>, body: Vec<u8>) -> Arc<Resource> {
        Arc::new(Resource { name: name.into(), version, body, secret: true })
    }

    /// Packed for a response.
    pub fn any(&self, r#type: Type) -> Any {
        Any { type_url: r#type.url().to_owned(), value: self.body.clone() }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Resource");
        shown.field("name", &self.name).field("version", &self.version);
        if self.secret { shown.finish_non_exhaustive() } else { shown.field("body", &self.body).finish() }
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        if self.secret {
            self.body.zeroize();
        }
    }
}

/// 64 bits of SHA-256 in hex: enough to tell versions of one resource apart.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Arc<str> {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    let digest = sha.finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Packs a message as `Any` with its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
