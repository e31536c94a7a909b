//! Connections by who is at their other end: who speaks TLS to whom.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use super::counter::Counter;
use super::worker::WorkerStats;

/// Peers told apart per worker; further ones are counted together as `other`.
const MAX_LINKS: usize = 256;

/// Connections of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkKey {
    /// The peer called.
    pub(crate) inbound: bool,
    /// Cluster called; empty: the peer called.
    pub(crate) cluster: Arc<str>,
    /// The peer's identity; empty: it has shown none.
    pub(crate) identity: Arc<str>,
}

/// What is counted of them.
#[derive(Debug, Default)]
pub(crate) struct LinkCounts {
    /// Encrypted connections open now.
    pub(crate) tls: Counter,
    /// Others open now.
    pub(crate) plain: Counter,
    /// Handshakes done.
    pub(crate) handshakes: Counter,
    /// Connections refused: plaintext where it is not taken, or a handshake that failed.
    pub(crate) refused: Counter,
}

/// All of one worker. The lock is taken when a connection opens, and by who reads.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<LinkKey, Arc<LinkCounts>>>);

impl Links {
    /// The counters with this key, made on first use.
    pub(crate) fn at(&self, key: LinkKey) -> Arc<LinkCounts> {
        self.entry(key).1
    }

    /// Also the identity, shared by all connections that have it; one that is beyond the bound is kept as it is.
    fn entry(&self, key: LinkKey) -> (Arc<str>, Arc<LinkCounts>) {
        let mut links = self.lock();
        if let Some((known, counts)) = links.get_key_value(&key) {
            return (known.identity.clone(), counts.clone());
        }
        let identity = key.identity.clone();
        let bounded = match links.len() >= MAX_LINKS {
            true => LinkKey { identity: "other".into(), cluster: "".into(), ..key },
            false => key,
        };
        (identity, links.entry(bounded).or_default().clone())
    }

    pub(crate) fn all(&self) -> Vec<(LinkKey, Arc<LinkCounts>)> {
        self.lock().iter().map(|(key, counts)| (key.clone(), counts.clone())).collect()
    }

    /// A panic while the lock was held leaves a whole map all the same.
    fn lock(&self) -> MutexGuard<'_, HashMap<LinkKey, Arc<LinkCounts>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The counters of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkTotal {
    pub(crate) tls: u64,
    pub(crate) plain: u64,
    pub(crate) handshakes: u64,
    pub(crate) refused: u64,
}

/// Sums over workers.
pub(crate) fn link_totals(workers: &[Arc<WorkerStats>]) -> BTreeMap<LinkKey, LinkTotal> {
    let mut totals: BTreeMap<LinkKey, LinkTotal> = BTreeMap::new();
    for (key, counts) in workers.iter().flat_map(|worker| worker.links.all()) {
        let total = totals.entry(key).or_default();
        total.tls += counts.tls.get();
        total.plain += counts.plain.get();
        total.handshakes += counts.handshakes.get();
        total.refused += counts.refused.get();
    }
    totals
}

/// Counts a connection as open for as long as it lives.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) identity: Arc<str>,
    counts: Arc<LinkCounts>,
    is_tls: bool,
    /// The peer has shown a certificate.
    is_certified: bool,
}

impl Link {
    pub(crate) fn open(links: &Links, key: LinkKey, is_tls: bool) -> Self {
        let (identity, counts) = links.entry(key);
        if is_tls {
            counts.handshakes.inc();
        }
        let link = Link { identity, counts, is_tls, is_certified: false };
        link.gauge().inc();
        link
    }

    /// The same of a peer that has shown a certificate, or has not.
    pub(crate) fn certified(mut self, is_certified: bool) -> Self {
        self.is_certified = is_certified;
        self
    }

    /// Whether the peer has shown a certificate.
    pub(crate) fn has_certificate(link: Option<&Link>) -> bool {
        link.is_some_and(|link| link.is_certified)
    }

    fn gauge(&self) -> &Counter {
        if self.is_tls { &self.counts.tls } else { &self.counts.plain }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.gauge().dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_beyond_the_bound_are_counted_together() {
        let links = Links::default();
        let key = |n: usize| LinkKey { inbound: true, identity: format!("p{n}").into(), ..Default::default() };
        let open: Vec<_> = (0..MAX_LINKS + 10).map(|n| Link::open(&links, key(n), true)).collect();
        let other = links.at(LinkKey { inbound: true, identity: "other".into(), ..Default::default() });
        assert_eq!((links.all().len(), other.tls.get(), other.handshakes.get()), (MAX_LINKS + 1, 10, 10));
        drop(open);
        assert_eq!(other.tls.get(), 0);
    }
}
