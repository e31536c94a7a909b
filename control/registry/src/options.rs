//! What can be set, and the defaults.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;
use weir_model::token::Joiner;

/// Decides about a bearer token (`None`: none was sent): who joins with it, or why not. `UNAUTHENTICATED` refuses
/// it; any other code says that it can't be told now.
pub type Authenticate = Arc<dyn Fn(Option<String>) -> BoxFuture<'static, Result<Joiner, Status>> + Send + Sync>;

/// Accepts everybody; for tests and for a control plane that listens on loopback under an explicit flag.
pub fn anyone() -> Authenticate {
    Arc::new(|_| Box::pin(async { Ok(Joiner::of_any_app("proxy/anonymous")) }))
}

/// Times and bounds of the registry.
#[derive(Debug, Clone)]
pub struct Options {
    /// A proxy that has not reported for so long is taken for dead (10 s).
    pub lease: Duration,
    /// Likewise after its stream has ended, which is either a restart of the proxy or a broken network (3 s).
    pub stream_grace: Duration,
    /// After a start, instances from the store stand this long without registering again (30 s).
    pub restart_grace: Duration,
    /// An instance that joined by itself is deleted after being dead for so long (10 min).
    pub forget_after: Duration,
    /// Losses of one app within this time are judged together, see [`crate::lease`] (60 s).
    pub panic_window: Duration,
    /// Instances that are kept though their leases have lapsed are given up after this (1 h).
    pub hold_limit: Duration,
    /// A stream must begin with its Hello within this (10 s).
    pub hello_timeout: Duration,
    /// A Goodbye is answered after this at the latest, even if callers have not acknowledged (10 s).
    ///
    /// The times of a farewell are ordered. A caller that is slow to acknowledge one type is sent the next after 5 s
    /// (`ack_patience` of xDS); then the goodbye is answered, 10 s; then a proxy stops waiting for the answer, 12 s
    /// (`--goodbye-timeout-ms`), so that it hears the reason rather than nothing. A caller that is away is given 15 s to come
    /// back and one that does not answer 30 s (`reconnect_grace`, `unpublish_timeout` of xDS), but only where Weir itself
    /// holds the drain back until then, and nobody waits at a terminal; a joined program that stops goes without them,
    /// and whoever still calls it is refused a connection, which retries cover. All of it, and 30 s of
    /// finishing requests, fits the 45 s after which a supervisor kills.
    pub goodbye_patience: Duration,
    /// Time in which a change of the store reaches the xDS streams at the latest (1 s).
    pub publish_time: Duration,
    /// How often leases are looked at (500 ms).
    pub sweep_every: Duration,
    /// Largest message taken from a proxy (1 MiB).
    pub max_message_bytes: usize,
    /// How often the token of an open stream is looked at again: one that was revoked or has run out ends it (1 min).
    pub authenticate_every: Duration,
    /// Most control streams at a time (20,000); further ones are refused.
    pub max_streams: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lease: Duration::from_secs(10),
            stream_grace: Duration::from_secs(3),
            restart_grace: Duration::from_secs(30),
            forget_after: Duration::from_secs(600),
            panic_window: Duration::from_secs(60),
            hold_limit: Duration::from_secs(3600),
            hello_timeout: Duration::from_secs(10),
            goodbye_patience: Duration::from_secs(10),
            publish_time: Duration::from_secs(1),
            sweep_every: Duration::from_millis(500),
            authenticate_every: Duration::from_secs(60),
            max_message_bytes: 1 << 20,
            max_streams: 20_000,
        }
    }
}
