//! Closed lists of why the proxy refused something, and of what went wrong by its own fault.

use super::counter::Counter;

/// A request or connection that was not served, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The listener had as many connections as it may.
    Connections,
    /// The listener had as many requests in flight as it may.
    Requests,
    /// The cluster had as many requests in flight as it may.
    ClusterRequests,
    /// The cluster had as many requests waiting for a connection as it may.
    Pending,
    /// The request's head was too long.
    HeadBytes,
    /// The request had too many header fields.
    HeaderCount,
    /// A Bolt or Dubbo frame was too long.
    FrameBytes,
    /// The caller left more answers unread than may be held.
    Unread,
    /// The request was malformed or ambiguous.
    BadRequest,
    /// The request's head did not arrive in time.
    HeadTimeout,
    /// The upstream did not answer in time.
    RouteTimeout,
    /// No route matched.
    NoRoute,
    /// The cluster is unknown or has no endpoint.
    NoEndpoint,
    /// No endpoint could be connected to.
    Connect,
    /// The upstream broke the connection before its response.
    UpstreamReset,
    /// The upstream's response was malformed.
    UpstreamProtocol,
    /// A retry was wanted, but the budget was spent.
    RetryBudget,
    /// An upgrade or method that is not passed on.
    Unsupported,
    /// A deliberate failure of the drill.
    Drill,
    /// A connection without TLS to a listener that takes none.
    PlaintextRefused,
    /// A connection of the proxy's own that was turned round to it.
    Loop,
}

impl Refusal {
    /// All of them, in the order of their counters.
    pub const ALL: &'static [Refusal] = &[
        Refusal::Connections,
        Refusal::Requests,
        Refusal::ClusterRequests,
        Refusal::Pending,
        Refusal::HeadBytes,
        Refusal::HeaderCount,
        Refusal::FrameBytes,
        Refusal::Unread,
        Refusal::BadRequest,
        Refusal::HeadTimeout,
        Refusal::RouteTimeout,
        Refusal::NoRoute,
        Refusal::NoEndpoint,
        Refusal::Connect,
        Refusal::UpstreamReset,
        Refusal::UpstreamProtocol,
        Refusal::RetryBudget,
        Refusal::Unsupported,
        Refusal::Drill,
        Refusal::PlaintextRefused,
        Refusal::Loop,
    ];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::Requests => "requests",
            Refusal::ClusterRequests => "cluster_requests",
            Refusal::Pending => "pending",
            Refusal::HeadBytes => "head_bytes",
            Refusal::HeaderCount => "header_count",
            Refusal::FrameBytes => "frame_bytes",
            Refusal::Unread => "unread",
            Refusal::BadRequest => "bad_request",
            Refusal::HeadTimeout => "head_timeout",
            Refusal::RouteTimeout => "route_timeout",
            Refusal::NoRoute => "no_route",
            Refusal::NoEndpoint => "no_endpoint",
            Refusal::Connect => "upstream_connect",
            Refusal::UpstreamReset => "upstream_reset",
            Refusal::UpstreamProtocol => "upstream_protocol",
            Refusal::RetryBudget => "retry_budget",
            Refusal::Unsupported => "unsupported",
            Refusal::Drill => "drill",
            Refusal::PlaintextRefused => "plaintext_refused",
            Refusal::Loop => "loop",
        }
    }
}

/// Something that went wrong in or because of the proxy, apart from the application's own errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A task panicked.
    Panic,
    /// A peer broke the protocol.
    Protocol,
    /// An upstream connection was reset while a request was on it.
    UpstreamReset,
    /// A caller's connection was reset while a request was on it.
    DownstreamReset,
    /// A caller did not take its response in time.
    DownstreamTimeout,
    /// No connection to an endpoint.
    Connect,
    /// A response did not come in time.
    Timeout,
    /// A configuration was rejected.
    ConfigRejected,
    /// A listener could not accept.
    Accept,
    /// A worker was late by more than 100 ms.
    LoopDelay,
    /// A request was refused for a limit of the proxy's own.
    Limit,
    /// Access log lines or spans were dropped because their writer was behind.
    TelemetryDropped,
    /// A request had not ended when the time to drain was over, and was cut.
    Cut,
}

impl Fault {
    /// All of them, in the order of their counters.
    pub const ALL: &'static [Fault] = &[
        Fault::Panic,
        Fault::Protocol,
        Fault::UpstreamReset,
        Fault::DownstreamReset,
        Fault::DownstreamTimeout,
        Fault::Connect,
        Fault::Timeout,
        Fault::ConfigRejected,
        Fault::Accept,
        Fault::LoopDelay,
        Fault::Limit,
        Fault::TelemetryDropped,
        Fault::Cut,
    ];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Panic => "panic",
            Fault::Protocol => "protocol",
            Fault::UpstreamReset => "upstream_reset",
            Fault::DownstreamReset => "downstream_reset",
            Fault::DownstreamTimeout => "downstream_timeout",
            Fault::Connect => "connect",
            Fault::Timeout => "timeout",
            Fault::ConfigRejected => "config_rejected",
            Fault::Accept => "accept",
            Fault::LoopDelay => "loop_delay",
            Fault::Limit => "limit",
            Fault::TelemetryDropped => "telemetry_dropped",
            Fault::Cut => "cut",
        }
    }
}

/// One counter for each reason of `T`.
#[derive(Debug)]
pub(crate) struct ByReason<const N: usize>([Counter; N]);

impl<const N: usize> Default for ByReason<N> {
    fn default() -> Self {
        ByReason(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> ByReason<N> {
    #[inline]
    pub(crate) fn at(&self, index: usize) -> &Counter {
        &self.0[index]
    }
}

/// Number of [`Refusal`] reasons.
pub(crate) const REFUSALS: usize = Refusal::ALL.len();
/// Number of [`Fault`] reasons.
pub(crate) const FAULTS: usize = Fault::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_the_order_of_their_counters() {
        assert!(Refusal::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
        assert!(Fault::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
    }
}
