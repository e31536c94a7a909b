//! Leadership by lease. The holder trusts only its own monotonic clock, counted from before the request that renewed
//! the lease, and stops with a margin before anybody else may start; the store's fencing catches what is left.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use weir_store::{Clock, Lease, SharedStore};

pub(crate) struct Leadership {
    pub store: SharedStore,
    pub name: String,
    pub holder: String,
    pub ttl: Duration,
    pub clock: Clock,
}

/// A term of leadership.
pub(crate) struct Term {
    pub lease: Lease,
    /// Leadership must end here unless the lease is renewed before.
    trusted_until: Instant,
}

impl Leadership {
    /// Waits until this process leads.
    pub async fn campaign(&self) -> Term {
        loop {
            let asked = Instant::now();
            match self.acquire().await {
                Ok(Some(lease)) => return Term { lease, trusted_until: self.trust(asked) },
                Ok(None) => {}
                Err(error) => tracing::warn!(lease = self.name, %error, "cannot ask for the lease, trying again"),
            }
            sleep_until(asked + self.ttl / 3).await;
        }
    }

    /// Renews the lease; returns when it is lost.
    pub async fn keep(&self, term: &mut Term) {
        loop {
            sleep_until(term.trusted_until - self.ttl * 3 / 4 + self.ttl / 3).await;
            if !self.renew(term).await {
                return;
            }
        }
    }

    /// Tries until it has an answer or the term is over; true if it goes on.
    async fn renew(&self, term: &mut Term) -> bool {
        loop {
            let asked = Instant::now();
            match timeout_at(term.trusted_until, self.acquire()).await {
                Ok(Ok(Some(lease))) if lease.fencing == term.lease.fencing => {
                    term.trusted_until = self.trust(asked);
                    return true;
                }
                Ok(Ok(_)) => return false,
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot renew the lease, trying again"),
                Err(_) => return false,
            }
            sleep_until((asked + self.ttl / 12).min(term.trusted_until)).await;
        }
    }

    /// Gives the lease up, so that a successor need not wait for its end.
    pub async fn release(&self) {
        let release = self.store.release_lease(&self.name, &self.holder);
        if let Err(error) = release.await {
            tracing::warn!(lease = self.name, %error, "cannot release the lease; it will expire");
        }
    }

    async fn acquire(&self) -> weir_store::Result<Option<Lease>> {
        self.store.acquire_lease(&self.name, &self.holder, self.ttl, (self.clock)()).await
    }

    fn trust(&self, asked: Instant) -> Instant {
        asked + self.ttl * 3 / 4
    }
}
