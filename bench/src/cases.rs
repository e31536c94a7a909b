//! What is asked of every target.

use crate::rpc::Protocol;
use crate::targets::Target;

/// Prefix of the route that matches.
pub const PREFIX: &str = "/api/";
/// Bytes of the small body: what a small JSON answer has.
pub const SMALL: usize = 128;
/// Bytes of the large body.
pub const LARGE: usize = 10 * 1024;
/// Bytes of the huge body.
pub const HUGE: usize = 1024 * 1024;
/// A unary gRPC method, and the bytes of the messages both ways.
pub const UNARY: &str = "/api/bench.Bench/Unary";
/// Bytes of a gRPC message, its prefix not counted.
pub const MESSAGE: usize = 64;
/// Routes that do not match before the one that does, where the case says nothing else.
const DECOYS: usize = 19;

/// Prefix of a route that never matches.
pub fn decoy(number: usize) -> String {
    format!("/decoy-{number:02}/")
}

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// HTTP/1.1, 64 kept-alive connections, small bodies.
    H1Small,
    /// The same with bodies of 10 KiB.
    H1Large,
    /// The same with bodies of 1 MiB on 8 connections.
    H1Huge,
    /// HTTP/2 in clear text from the client, 8 connections with 16 streams each; HTTP/1.1 to the upstream.
    H2ToH1,
    /// The same with HTTP/2 to the upstream.
    H2ToH2,
    /// Unary gRPC calls over the same.
    GrpcUnary,
    /// As `H1Small`, with TLS 1.3 from the client.
    TlsSmall,
    /// A TLS 1.3 handshake on each connection, no resumption, and nothing else.
    TlsHandshake,
    /// Calls on 64 connections, each with one in flight, bodies of 128 bytes both ways.
    Rpc(Protocol),
    /// Latency added at 4,000 requests per second on 32 connections.
    Latency,
    /// Memory of idle connections that have carried one request each.
    Idle(Idle),
    /// As `H1Small`, with so many routes.
    Routes(usize),
    /// As `H1Small`, with so many endpoints in turn.
    Endpoints(usize),
    /// As `Latency`, while 10,000 endpoints are sent anew each second.
    EdsUpdate,
}

/// What idle connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 in TLS 1.3.
    Tls,
    /// HTTP/2 in clear text.
    H2,
}

impl Case {
    /// All, in the order of the report, as written there and on the command line.
    pub const ALL: [(Case, &str); 21] = [
        (Case::H1Small, "h1-small"),
        (Case::H1Large, "h1-10k"),
        (Case::H1Huge, "h1-1m"),
        (Case::H2ToH1, "h2-h1"),
        (Case::H2ToH2, "h2-h2"),
        (Case::GrpcUnary, "grpc-unary"),
        (Case::TlsSmall, "tls-small"),
        (Case::TlsHandshake, "tls-handshake"),
        (Case::Rpc(Protocol::Bolt), "bolt-small"),
        (Case::Rpc(Protocol::Dubbo), "dubbo-small"),
        (Case::Latency, "lat-h1"),
        (Case::Idle(Idle::Plain), "idle-plain"),
        (Case::Idle(Idle::Tls), "idle-tls"),
        (Case::Idle(Idle::H2), "idle-h2"),
        (Case::Routes(20), "routes-20"),
        (Case::Routes(1_000), "routes-1000"),
        (Case::Routes(10_000), "routes-10000"),
        (Case::Endpoints(10), "endpoints-10"),
        (Case::Endpoints(1_000), "endpoints-1000"),
        (Case::Endpoints(10_000), "endpoints-10000"),
        (Case::EdsUpdate, "eds-update"),
    ];

    /// As written in reports and on the command line.
    pub fn name(self) -> &'static str {
        Case::ALL.iter().find(|(case, _)| *case == self).map_or("?", |(_, name)| name)
    }

    /// The case of that name.
    pub fn named(name: &str) -> Option<Case> {
        Case::ALL.iter().find(|(_, other)| *other == name).map(|(case, _)| *case)
    }

    /// What is requested.
    pub fn path(self) -> &'static str {
        match self {
            Case::H1Large => "/api/large",
            Case::H1Huge => "/api/huge",
            Case::GrpcUnary => UNARY,
            _ => "/api/small",
        }
    }

    /// Routes before the one that matches.
    pub fn decoys(self) -> usize {
        match self {
            Case::Routes(routes) => routes - 1,
            _ => DECOYS,
        }
    }

    /// Endpoints that take turns.
    pub fn endpoints(self) -> usize {
        match self {
            Case::Endpoints(endpoints) => endpoints,
            Case::EdsUpdate => 10_000,
            _ => 1,
        }
    }

    /// True if the upstream is to be spoken to in HTTP/2.
    pub fn is_h2_upstream(self) -> bool {
        matches!(self, Case::H2ToH2 | Case::GrpcUnary)
    }

    /// Whether the target can do it. nginx (as Debian's nginx-light has it) speaks HTTP/1.1 to upstreams only; how cost
    /// grows with routes and endpoints is asked of Weir alone, and no peer routes Bolt or Dubbo by service and method here.
    /// nginx and HAProxy (of Debian) do not speak xDS.
    pub fn is_for(self, target: Target) -> bool {
        match self {
            Case::Routes(_) | Case::Endpoints(_) | Case::Rpc(_) => target == Target::Weir,
            Case::EdsUpdate => matches!(target, Target::Envoy | Target::Weir),
            _ => target != Target::Nginx || !self.is_h2_upstream(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (case, name) in Case::ALL {
            assert_eq!(Case::named(name), Some(case));
            assert_eq!(case.name(), name);
        }
    }
}
