//! App: a service, called by its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// A service.
pub type App = Resource<AppSpec>;

/// What an app is, whoever runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AppSpec {
    /// Team or person to ask.
    pub owner: String,
    /// Business line it belongs to; protection windows may name it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub line: String,
    /// Importance, 1 (most) to 4 (least); changes reach tier 4 first.
    pub tier: u8,
    /// What its instances speak.
    pub protocol: Protocol,
    /// How callers choose among its instances.
    pub balance: Balance,
    /// Header whose value ring hash hashes; empty, or absent in a request: the caller's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash_header: String,
    /// Longest time for a request where no Route says otherwise (milliseconds). Not for gRPC, where each call carries
    /// its own deadline.
    pub timeout_ms: u64,
}

impl Default for AppSpec {
    fn default() -> Self {
        AppSpec {
            owner: String::new(),
            line: String::new(),
            tier: 3,
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            hash_header: String::new(),
            timeout_ms: 15_000,
        }
    }
}

/// Application protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC, over HTTP/2.
    Grpc,
    /// SOFABolt, as SOFARPC speaks it.
    Bolt,
    /// Dubbo 2 over TCP.
    Dubbo,
    /// Bytes.
    Tcp,
}

/// Choice among instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// Two at random, the one with fewer requests in flight.
    LeastRequest,
    /// Consistent hashing by the caller's address or a header.
    RingHash,
}

impl Spec for AppSpec {
    const KIND: Kind = Kind::App;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.range("tier", self.tier, 1, 4);
        v.range("timeoutMs", self.timeout_ms, 1, 3_600_000);
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        v.require(self.hash_header.bytes().all(token), "hashHeader", "must be a header's name");
    }
}
