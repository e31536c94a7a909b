//! What can be set, and the defaults.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;
use weir_identity::Authority;
use weir_model::token::Joiner;

/// Decides about a bearer token (`None`: none was sent): who joins with it, or why not. `UNAUTHENTICATED` refuses
/// it; any other code says that it can't be told now.
pub type Authenticate = Arc<dyn Fn(Option<String>) -> BoxFuture<'static, Result<Joiner, Status>> + Send + Sync>;

/// Accepts everybody; for tests and for a control plane that listens on loopback under an explicit flag.
pub fn anyone() -> Authenticate {
    Arc::new(|_| Box::pin(async { Ok(Joiner::of_any_app("proxy/anonymous")) }))
}

/// Times and bounds of the xDS server.
#[derive(Debug, Clone)]
pub struct Options {
    /// An instance that leaves is waited for by its callers' acknowledgements for at most this (30 s).
    pub unpublish_timeout: Duration,
    /// A caller whose stream broke, or that was there before this process started, is given this to come back before
    /// an instance counts as unpublished without it (15 s).
    pub reconnect_grace: Duration,
    /// After a start, nothing counts as unpublished for this long: callers that are no instances of the mesh (plain
    /// Envoys, gRPC clients) are known only once they are back (2 s).
    pub settle: Duration,
    /// The next resource type is sent after this even if the one before it was not acknowledged (5 s).
    pub ack_patience: Duration,
    /// Changes of the store are gathered for this before they are published (5 ms).
    pub coalesce: Duration,
    /// Largest request taken from a client (4 MiB).
    pub max_message_bytes: usize,
    /// How often the token of an open stream is looked at again: one that was revoked or has run out ends it (1 min).
    pub authenticate_every: Duration,
    /// Issues the certificates of proxies that can do TLS; without it nobody is given any.
    pub authority: Option<Arc<Authority>>,
    /// Once every caller has said that it speaks TLS, plaintext is still taken for this: connections begun before (2 s).
    pub strict_delay: Duration,
    /// Most streams at a time (20,000); further ones are refused.
    pub max_streams: usize,
    /// Most resource names one stream may ask for, per type (10,000).
    pub max_names: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            unpublish_timeout: Duration::from_secs(30),
            reconnect_grace: Duration::from_secs(15),
            settle: Duration::from_secs(2),
            ack_patience: Duration::from_secs(5),
            coalesce: Duration::from_millis(5),
            authenticate_every: Duration::from_secs(60),
            max_message_bytes: 4 << 20,
            authority: None,
            strict_delay: Duration::from_secs(2),
            max_streams: 20_000,
            max_names: 10_000,
        }
    }
}
