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
    /// How long requests get to finish when a proxy that carries them is replaced or stopped (milliseconds); what has not
    /// ended by then is cut, and counted. Absent: 10 s more than the longest timeout of this app and its Routes, and at
    /// least 30 s. Set it for streams, which have no timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
}

/// Least time to drain where the App says nothing, milliseconds.
const LEAST_DRAIN_MS: u64 = 30_000;
/// A request that was given its whole timeout may still have to be answered: this much longer, milliseconds.
const DRAIN_MARGIN_MS: u64 = 10_000;
/// Longest time to drain that may be asked for: a day.
const MAX_DRAIN_MS: u64 = 86_400_000;

impl AppSpec {
    /// How long requests get to finish, milliseconds; `longest_route`: the longest timeout of the app's Routes, 0: none.
    pub fn drain_ms(&self, longest_route: u64) -> u64 {
        let own = match self.protocol {
            Protocol::Grpc | Protocol::Tcp => 0,
            Protocol::Http1 | Protocol::Http2 | Protocol::Bolt | Protocol::Dubbo => self.timeout_ms,
        };
        let derived = own.max(longest_route).saturating_add(DRAIN_MARGIN_MS).clamp(LEAST_DRAIN_MS, MAX_DRAIN_MS);
        self.drain_ms.unwrap_or(derived)
    }
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
            drain_ms: None,
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
        v.range("drainMs", self.drain_ms.unwrap_or_default(), 0, MAX_DRAIN_MS);
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        v.require(self.hash_header.bytes().all(token), "hashHeader", "must be a header's name");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_get_longer_than_their_timeout_to_finish() {
        let app = |protocol, timeout_ms| AppSpec { protocol, timeout_ms, ..AppSpec::default() };
        assert_eq!(app(Protocol::Http1, 15_000).drain_ms(0), 30_000);
        assert_eq!(app(Protocol::Http1, 60_000).drain_ms(0), 70_000);
        assert_eq!(app(Protocol::Http1, 15_000).drain_ms(120_000), 130_000, "a Route says more");
        assert_eq!(app(Protocol::Grpc, 3_600_000).drain_ms(0), 30_000, "it does not hold for gRPC");
        assert_eq!(AppSpec { drain_ms: Some(5), ..AppSpec::default() }.drain_ms(60_000), 5, "its own word stands");
    }
}
