//! Whether a failed attempt may be followed by another.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_config::{Retry, RetryOn};

use super::cluster::ClusterState;
use crate::stats::ClusterStats;

/// Retries that are always allowed at a time, however few requests there are.
const LEAST_BUDGET: u64 = 3;
/// Attempts on reused connections that turned out to be closed: one would do, if peers did not close many at once.
const MAX_STALE: u32 = 3;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The connection was closed before anything could be written to it, or the peer has said by GOAWAY that it did not
    /// look at the request.
    Unsent,
    /// A reused connection was closed before anything of a response came.
    Stale,
    /// The peer said that it did not process the request.
    Refused,
    /// The connection broke before a response.
    Reset,
    /// No response in time.
    Timeout,
    /// The response was malformed.
    Protocol,
    /// A response with this status.
    Status(u16),
}

impl Failure {
    fn is_covered(self, on: &[RetryOn], idempotent: bool) -> bool {
        on.iter().any(|on| match (on, self) {
            (RetryOn::ConnectFailure, Failure::Connect) | (RetryOn::RefusedStream, Failure::Refused) => true,
            (RetryOn::Reset, Failure::Stale | Failure::Reset | Failure::Timeout) => idempotent,
            (RetryOn::GatewayError, Failure::Status(502..=504) | Failure::Timeout) => idempotent,
            (RetryOn::ServerError, Failure::Status(500..=599) | Failure::Timeout) => idempotent,
            _ => false,
        })
    }
}

/// Attempts of one request so far.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// Endpoints that failed.
    pub(crate) tried: Vec<SocketAddr>,
    made: u32,
    stale: u32,
    held: Option<ActiveRetry>,
}

/// A retry that counts against the budget until the request ends.
#[derive(Debug)]
struct ActiveRetry(Arc<ClusterStats>);

impl Drop for ActiveRetry {
    fn drop(&mut self) {
        self.0.active_retries.dec();
    }
}

/// Whether there will be another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Yes.
    Yes,
    /// The failure stands.
    No,
    /// It would, but the budget is spent.
    OverBudget,
}

impl Attempts {
    /// Decides after a failure. The request must be whole still; the caller has made sure of that.
    pub(crate) fn after(
        &mut self,
        failure: Failure,
        idempotent: bool,
        retry: Option<&Retry>,
        cluster: &ClusterState,
        endpoint: Option<SocketAddr>,
    ) -> Again {
        let unharmed = failure == Failure::Unsent || (failure == Failure::Stale && idempotent);
        if unharmed && self.stale < MAX_STALE {
            self.stale += 1;
            return Again::Yes;
        }
        let Some(retry) = retry.filter(|retry| self.made < retry.attempts && failure.is_covered(&retry.on, idempotent))
        else {
            return Again::No;
        };
        if !self.take_budget(retry, &cluster.stats) {
            return Again::OverBudget;
        }
        self.made += 1;
        self.tried.extend(endpoint);
        cluster.stats.retries.inc();
        Again::Yes
    }

    fn take_budget(&mut self, retry: &Retry, stats: &Arc<ClusterStats>) -> bool {
        let share = stats.requests.get() * u64::from(retry.budget_percent) / 100;
        let free = stats.active_retries.get() < share.max(LEAST_BUDGET);
        if self.held.is_none() && free {
            stats.active_retries.inc();
            self.held = Some(ActiveRetry(stats.clone()));
        }
        self.held.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idempotent_requests_are_repeated_once_sent() {
        let all = [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Reset, RetryOn::GatewayError];
        let covered = |failure: Failure, idempotent| failure.is_covered(&all, idempotent);
        assert!(covered(Failure::Connect, false) && covered(Failure::Refused, false));
        assert!(covered(Failure::Reset, true) && !covered(Failure::Reset, false));
        assert!(covered(Failure::Status(503), true) && !covered(Failure::Status(503), false));
        assert!(!covered(Failure::Status(500), true) && !covered(Failure::Protocol, true));
    }
}
