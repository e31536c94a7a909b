//! RetryPolicy: a list of names in Envoy's words.

use envoy_types::pb::envoy::config::route::v3::{RetryPolicy, RouteAction, VirtualHost};
use weir_config::{Retry, RetryOn};

use crate::convert::error::{Result, Under, refuse};
use crate::convert::optional_millis;

/// As in `weir_config::validate`.
const MAX_ATTEMPTS: u32 = 10;

/// The route's own policy, or else its virtual host's.
pub(super) fn retry(host: &VirtualHost, route: &RouteAction) -> Result<Option<Retry>> {
    refuse(route.retry_policy_typed_config.is_some(), "retry_policy_typed_config")?;
    let policy = route.retry_policy.as_ref().or(host.retry_policy.as_ref());
    policy.map(convert).transpose().under("retry_policy")
}

fn convert(policy: &RetryPolicy) -> Result<Retry> {
    Ok(Retry {
        attempts: policy.num_retries.map_or(1, |retries| retries.value.min(MAX_ATTEMPTS)),
        on: conditions(policy),
        per_try_timeout_ms: optional_millis(policy.per_try_timeout.as_ref(), "per_try_timeout")?.filter(|ms| *ms > 0),
        ..Default::default()
    })
}

/// Names that are not known are skipped, as Envoy skips them: fewer retries, never a wrong one.
fn conditions(policy: &RetryPolicy) -> Vec<RetryOn> {
    use RetryOn::{ConnectFailure, GatewayError, RefusedStream, Reset, ServerError};
    let gateway_codes = policy.retriable_status_codes.iter().any(|code| matches!(code, 502..=504));
    let mut conditions = Vec::new();
    for name in policy.retry_on.split(',').map(str::trim) {
        conditions.extend_from_slice(match name {
            "5xx" => &[ServerError, ConnectFailure, RefusedStream, Reset],
            "gateway-error" => &[GatewayError, ConnectFailure, RefusedStream, Reset],
            "reset" => &[Reset, ConnectFailure, RefusedStream],
            "connect-failure" | "reset-before-request" => &[ConnectFailure],
            "refused-stream" => &[RefusedStream],
            "unavailable" => &[GatewayError],
            "retriable-status-codes" if gateway_codes => &[GatewayError],
            _ => &[],
        });
    }
    let mut seen = std::collections::HashSet::new();
    conditions.retain(|condition| seen.insert(*condition));
    conditions
}
