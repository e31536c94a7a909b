//! The types themselves. See each field for unit and default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
use crate::tls::{ClusterTls, ListenerTls, Secret};
/// Dubbo's own default for a payload.
const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Everything a proxy needs to serve: its listeners, the route tables they name, the clusters those name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Sockets to accept on.
    pub listeners: Vec<Listener>,
    /// Route tables, referred to by [`Listener::routes`].
    pub route_tables: Vec<RouteTable>,
    /// Groups of endpoints, referred to by [`WeightedCluster::cluster`].
    pub clusters: Vec<Cluster>,
    /// Certificates and roots of trust, referred to by listeners and clusters.
    pub secrets: Vec<Secret>,
}

/// One accepting socket and how what arrives on it is treated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Unique among listeners; a label of its metrics.
    pub name: String,
    /// Address to listen on.
    pub bind: SocketAddr,
    /// Whether this carries traffic to the local application or from it.
    #[serde(default)]
    pub direction: Direction,
    /// What is spoken on it. `Auto` tells by the first bytes.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// Name of the route table, or (for [`ListenerProtocol::Tcp`]) of the cluster for connections that
    /// [`Listener::server_names`] has no other for; empty: those are refused.
    #[serde(default)]
    pub routes: String,
    /// Whether it has a socket of its own (default). One without is reached only through
    /// [`Listener::original_destination`] of another, for connections that were going to where it is bound.
    #[serde(default = "yes")]
    pub bind_to_port: bool,
    /// Takes connections that were going elsewhere and that the kernel has turned round to this listener. Each is served
    /// by the listener that is bound where it was going, or whose clusters have an endpoint there, and by this one
    /// otherwise.
    #[serde(default)]
    pub original_destination: bool,
    /// Connections that begin with TLS and ask for one of these names go on as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<ServerNames>,
    /// For [`ListenerProtocol::Auto`]: the cluster for connections on which none of the known protocols is spoken, or
    /// on which the server is to speak first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_cluster: Option<String>,
    /// Bounds on what a peer may make the proxy hold.
    #[serde(default)]
    pub limits: Limits,
    /// Write one JSON line per request to the access log.
    #[serde(default)]
    pub access_log: bool,
    /// Create a W3C trace context where a request has none, and pass it on (default true).
    #[serde(default = "yes")]
    pub trace: bool,
    /// TLS; absent: what comes is taken as plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// How long its requests get to finish when the proxy is told to go (milliseconds); `None`: 30,000. A proxy with
    /// several listeners takes the longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
}

impl Listener {
    /// Names of the clusters that get bytes as they are.
    pub fn passes_to(&self) -> impl Iterator<Item = &str> {
        let is_tcp = self.protocol == ListenerProtocol::Tcp && !self.routes.is_empty();
        let rest = is_tcp.then_some(self.routes.as_str()).or(self.tcp_cluster.as_deref());
        self.server_names.iter().map(|names| names.cluster.as_str()).chain(rest)
    }
}

/// Names of TLS servers, and where connections that ask for them go (Server Name Indication, RFC 6066 section 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerNames {
    /// `a.example`, `*.example` or `*` for every name; exact wins over wildcard, longer over shorter.
    pub names: Vec<String>,
    /// Name of the cluster that gets the bytes, still encrypted for the server.
    pub cluster: String,
}

/// Which side of the application a listener stands on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From other proxies to the local application.
    Inbound,
    /// From the local application to other services.
    #[default]
    Outbound,
}

/// Protocol of a listener's downstream connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListenerProtocol {
    /// HTTP/1.1, cleartext HTTP/2 with prior knowledge, Bolt or Dubbo, told apart by the first bytes.
    #[default]
    Auto,
    /// HTTP/1.0 and 1.1 only.
    Http1,
    /// HTTP/2 with prior knowledge only.
    Http2,
    /// SOFABolt, versions 1 and 2.
    Bolt,
    /// Dubbo 2 over TCP.
    Dubbo,
    /// Bytes, passed to one cluster.
    Tcp,
}

/// Bounds per listener. A refusal is answered in the caller's protocol and counted under its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request head in bytes (default 64 KiB): HTTP 431.
    pub max_head_bytes: usize,
    /// Most header fields in a head (default 100): HTTP 431.
    pub max_headers: usize,
    /// Open downstream connections per worker (default 10,000): accepted and closed at once.
    pub max_connections: usize,
    /// Concurrent streams per HTTP/2 connection (default 128).
    pub max_streams: u32,
    /// Largest content of a Bolt frame, or body of a Dubbo frame, in bytes (default 8 MiB, as in Dubbo): the caller is told,
    /// and the connection is closed once what is in flight has been answered.
    pub max_frame_bytes: usize,
    /// Requests in flight per worker (default 10,000): HTTP 503, or "server busy".
    pub max_requests: usize,
    /// Largest buffered chunk of a body per direction in bytes (default 64 KiB).
    pub buffer_bytes: usize,
    /// Where TCP is what is left (see [`Listener::tcp_cluster`]), what is spoken must be told within this (milliseconds,
    /// default 2,000): a server that speaks first is waited for by its caller.
    pub detect_timeout_ms: u64,
    /// A started request head must be complete within this (milliseconds, default 10,000): HTTP 408.
    pub head_timeout_ms: u64,
    /// A kept-alive connection without a request, or a TCP connection on which nothing moves, is closed after this
    /// (milliseconds, default 300,000).
    pub idle_timeout_ms: u64,
    /// A request under way is broken off when neither side says anything for this long (milliseconds); `None`:
    /// [`Limits::idle_timeout_ms`], but never for gRPC calls and upgraded connections (WebSocket), which may well be
    /// silent; 0: never for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout_ms: Option<u64>,
}

impl Limits {
    /// How long neither side of a request under way need say anything; `None`: forever. `is_stream`: a gRPC call, or a
    /// connection that was upgraded.
    pub fn silence(&self, is_stream: bool) -> Option<Duration> {
        let millis = match self.stream_idle_timeout_ms {
            None => (!is_stream).then_some(self.idle_timeout_ms),
            Some(0) => None,
            said => said,
        };
        millis.map(Duration::from_millis)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_head_bytes: 64 * 1024,
            max_headers: 100,
            max_connections: 10_000,
            max_streams: 128,
            max_frame_bytes: MAX_FRAME_BYTES,
            max_requests: 10_000,
            buffer_bytes: 64 * 1024,
            detect_timeout_ms: 2_000,
            head_timeout_ms: 10_000,
            idle_timeout_ms: 300_000,
            stream_idle_timeout_ms: None,
        }
    }
}

/// Virtual hosts of one or several listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTable {
    /// Unique among route tables.
    pub name: String,
    /// Tried by host; a request whose host matches none is answered 404.
    pub hosts: Vec<VirtualHost>,
}

/// Routes of some hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualHost {
    /// A label of its metrics.
    pub name: String,
    /// `example.com`, `*.example.com`, `example.*` or `*`; a port in the request's host is ignored.
    /// Exact wins over suffix, suffix over prefix, longer over shorter, `*` last (as in Envoy).
    pub domains: Vec<String>,
    /// The first that matches decides; none: 404.
    pub routes: Vec<Route>,
}

/// One rule: if the request matches, do the action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// A label of its metrics; empty: `host/index`.
    #[serde(default)]
    pub name: String,
    /// All must hold.
    #[serde(default)]
    pub matches: RouteMatch,
    /// What to do.
    pub action: RouteAction,
    /// Changes of the request's headers before it is sent on.
    #[serde(default)]
    pub request_headers: HeaderEdits,
    /// Changes of the response's headers before it is sent back.
    #[serde(default)]
    pub response_headers: HeaderEdits,
}

/// Conditions of a route; empty means any request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteMatch {
    /// Path without the query (default: prefix `/`).
    pub path: PathMatch,
    /// Exact, e.g. `GET`.
    pub method: Option<String>,
    /// All must hold.
    pub headers: Vec<ValueMatch>,
    /// All must hold, on the decoded query parameters.
    pub query: Vec<ValueMatch>,
    /// The caller has shown a certificate, or has not.
    pub certificate: Option<bool>,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// A plain string prefix, as in Envoy.
    Prefix(String),
    /// A prefix of whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Segments(String),
    /// The whole path matches the regular expression.
    Regex(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        PathMatch::Prefix("/".into())
    }
}

/// A named value (header or query parameter) and what it must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// Header names are compared without case.
    pub name: String,
    /// What to compare with.
    pub value: StringMatch,
    /// Turn the answer round.
    #[serde(default)]
    pub invert: bool,
}

/// How a value is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// Contains.
    Contains(String),
    /// The whole value matches the regular expression.
    Regex(String),
    /// Is there (true) or not (false).
    Present(bool),
}

/// What happens to a matching request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteAction {
    /// Send it to a cluster.
    Forward(Forward),
    /// Answer 301/302/307/308 with a location.
    Redirect(Redirect),
    /// Answer here.
    Respond(Respond),
}

/// Sending on, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forward {
    /// One or more; chosen by weight.
    pub clusters: Vec<WeightedCluster>,
    /// From the whole request received to the response's head (milliseconds); `None`: 15,000; 0: unbounded.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Retries; `None`: only where a reused connection was closed before it took the request.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Replace the matched prefix by this.
    #[serde(default)]
    pub prefix_rewrite: Option<String>,
    /// Replace the host by this.
    #[serde(default)]
    pub host_rewrite: Option<String>,
    /// What ring hash hashes, the first that is there; empty: a random number.
    #[serde(default)]
    pub hash_on: Vec<HashKey>,
    /// Let `Upgrade` through (WebSocket); default true.
    #[serde(default = "yes")]
    pub upgrades: bool,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedCluster {
    /// Name of a cluster.
    pub cluster: String,
    /// Share relative to the others (default 1).
    #[serde(default = "one")]
    pub weight: u32,
}

/// When and how often to try again. Never after the request's body could not be replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// Further attempts after the first (default 1).
    pub attempts: u32,
    /// On which failures.
    pub on: Vec<RetryOn>,
    /// Time for each attempt (milliseconds); `None`: the route's timeout.
    pub per_try_timeout_ms: Option<u64>,
    /// Largest share of a cluster's active requests that may be retries, in percent (default 20; at least 3 at a time).
    pub budget_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 1,
            on: vec![RetryOn::ConnectFailure, RetryOn::RefusedStream],
            per_try_timeout_ms: None,
            budget_percent: 20,
        }
    }
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RetryOn {
    /// No connection: the request was not sent.
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM or above GOAWAY's last stream: not processed.
    RefusedStream,
    /// The connection broke before a response; idempotent methods only.
    Reset,
    /// 502, 503, 504; idempotent methods only.
    GatewayError,
    /// Any 5xx; idempotent methods only.
    ServerError,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme, host, path; what is absent stays.
    #[serde(default)]
    pub scheme: Option<String>,
    /// New host.
    #[serde(default)]
    pub host: Option<String>,
    /// New path.
    #[serde(default)]
    pub path: Option<String>,
}

/// An answer given by the proxy itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Respond {
    /// HTTP status.
    pub status: u16,
    /// Body as text.
    #[serde(default)]
    pub body: String,
}

/// What to hash for ring hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKey {
    /// A header's value.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// A query parameter's value.
    Query(String),
    /// The caller's address.
    SourceIp,
}

/// Changes to headers: removed first, then set (replacing), then added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Replace or create.
    pub set: Vec<(String, String)>,
    /// Append a further field.
    pub add: Vec<(String, String)>,
    /// Remove all fields of the name.
    pub remove: Vec<String>,
}

impl HeaderEdits {
    /// True if nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Endpoints that serve the same, and how they are reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Unique among clusters; a label of its metrics.
    pub name: String,
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// How one is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// Where they are.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// It has no endpoints of its own: each connection goes to where its caller was going, as
    /// [`Listener::original_destination`] tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub original_destination: bool,
    /// Where there is no endpoint, there will be one in a moment, as when the only one is upgraded: requests wait for it,
    /// for their timeout and a minute at most, instead of being refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returning: bool,
    /// Time to connect (milliseconds, default 1,000).
    #[serde(default = "connect_timeout")]
    pub connect_timeout_ms: u64,
    /// Bounds, per worker.
    #[serde(default)]
    pub limits: ClusterLimits,
    /// How endpoints are asked whether they are well; absent: they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// How TLS is spoken with endpoints that take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClusterTls>,
}

/// Protocol towards endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 (default).
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// SOFABolt.
    Bolt,
    /// Dubbo 2 over TCP.
    Dubbo,
    /// What the caller spoke.
    SameAsDownstream,
}

/// Choice among endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// Two at random (by weight), the one with fewer requests in flight.
    LeastRequest,
    /// Consistent hashing over [`Forward::hash_on`].
    RingHash,
    /// At random, by weight.
    Random,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// Relative weight (default 1).
    #[serde(default = "one")]
    pub weight: u32,
    /// Lower priorities are used only when all higher ones (0 is the highest) have no healthy endpoint.
    #[serde(default)]
    pub priority: u32,
    /// Free labels (unit, zone, version, instance).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Connections to it are encrypted, as [`Cluster::tls`] says.
    #[serde(default)]
    pub tls: bool,
}

/// Bounds of a cluster, per worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterLimits {
    /// Connections to all its endpoints (default 1,024).
    pub max_connections: usize,
    /// Requests waiting for a connection (default 1,024): HTTP 503.
    pub max_pending: usize,
    /// Requests in flight (default 10,240): HTTP 503.
    pub max_requests: usize,
    /// Idle connections kept per endpoint (default 128).
    pub max_idle_per_endpoint: usize,
    /// An idle connection is closed after this (milliseconds, default 60,000). Bolt and Dubbo connections are kept by
    /// heartbeats instead.
    pub idle_timeout_ms: u64,
    /// A Bolt or Dubbo connection on which nothing came for this long is sent a heartbeat, and closed after three without
    /// anything in return (milliseconds); `None`: 15,000 for Bolt and 60,000 for Dubbo, as their Java clients have it.
    pub heartbeat_interval_ms: Option<u64>,
    /// Largest content of a Bolt response, or body of a Dubbo response, in bytes (default 8 MiB).
    pub max_frame_bytes: usize,
}

impl Default for ClusterLimits {
    fn default() -> Self {
        ClusterLimits {
            max_connections: 1024,
            max_pending: 1024,
            max_requests: 10_240,
            max_idle_per_endpoint: 128,
            idle_timeout_ms: 60_000,
            heartbeat_interval_ms: None,
            max_frame_bytes: MAX_FRAME_BYTES,
        }
    }
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn connect_timeout() -> u64 {
    1_000
}
