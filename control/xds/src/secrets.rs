//! The secrets of one stream: its own certificate, made for it and renewed in time, and the roots that verify others.
//! The key is nowhere but here and on its way, and goes with the stream.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weir_identity::{Authority, Leaf};
use weir_store::clock::Clock;

use crate::build::tls;
use crate::node::Node;
use crate::resource::Resource;

/// Pause after a certificate could not be made.
const PAUSE: Duration = Duration::from_secs(1);

/// What one stream is given.
pub struct Secrets {
    authority: Option<Arc<Authority>>,
    changes: Option<watch::Receiver<u64>>,
    clock: Clock,
    /// Version of the roots it has been given.
    roots: Option<u64>,
    renew_at: Option<Instant>,
    held: bool,
}

impl Secrets {
    /// From an authority; without one there are none.
    pub fn new(authority: Option<Arc<Authority>>, clock: Clock) -> Secrets {
        let changes = authority.as_ref().map(|authority| authority.changes());
        Secrets { authority, changes, clock, roots: None, renew_at: None, held: false }
    }

    /// Resolves when something may be due.
    pub async fn changed(&mut self) {
        let Some(changes) = &mut self.changes else { return pending().await };
        let renew = self.renew_at;
        let renewal = async {
            match renew {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            ended = changes.changed() => if ended.is_err() { pending::<()>().await },
            () = renewal => {}
        }
    }

    /// What is new for the node.
    pub fn due(&mut self, node: &Node) -> Vec<Arc<Resource>> {
        let Some(authority) = self.authority.clone() else { return Vec::new() };
        let bundle = authority.bundle();
        let roots = (self.roots != Some(bundle.version)).then(|| tls::roots(&bundle));
        self.roots = Some(bundle.version);
        let renew = !self.held || self.renew_at.is_some_and(|at| Instant::now() >= at);
        let leaf = if renew { self.issue(&authority, node) } else { None };
        roots.into_iter().chain(leaf.map(|leaf| tls::workload(&leaf))).collect()
    }

    fn issue(&mut self, authority: &Authority, node: &Node) -> Option<Leaf> {
        let now = (self.clock)();
        match authority.issue(&node.app, &node.unit, now) {
            Ok(leaf) => {
                self.held |= leaf.is_some();
                self.renew_at = leaf.as_ref().map(|leaf| Instant::now() + until(leaf.renew_at, now));
                leaf
            }
            Err(error) => {
                tracing::error!(node = node.id, %error, "no certificate could be made");
                self.renew_at = Some(Instant::now() + PAUSE);
                None
            }
        }
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
