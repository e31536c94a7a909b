//! Host names of clusters, resolved again and again beside everything else.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Pause between rounds (Envoy's default for DNS clusters).
const REFRESH: Duration = Duration::from_secs(5);
/// One name takes at most this long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a name resolved to; `None`: it did not.
pub(crate) type Answer = (String, Option<Vec<IpAddr>>);

/// Handle of the resolving task, which ends with it.
pub(crate) struct Resolver {
    names: watch::Sender<BTreeSet<String>>,
    answers: mpsc::Receiver<Answer>,
}

impl Resolver {
    pub(crate) fn spawn() -> Self {
        let (names, wanted) = watch::channel(BTreeSet::new());
        let (sender, answers) = mpsc::channel(64);
        tokio::spawn(work(wanted, sender));
        Resolver { names, answers }
    }

    /// Sets the names; new ones are resolved at once.
    pub(crate) fn watch(&self, names: BTreeSet<String>) {
        self.names.send_if_modified(|current| {
            let changed = *current != names;
            *current = names;
            changed
        });
    }

    /// The next answer; never, while there is no name.
    pub(crate) async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

async fn work(mut wanted: watch::Receiver<BTreeSet<String>>, answers: mpsc::Sender<Answer>) {
    loop {
        let names = wanted.borrow_and_update().clone();
        for name in &names {
            let addresses = resolve(name).await;
            if answers.send((name.clone(), addresses)).await.is_err() {
                return;
            }
        }
        let changed = wanted.changed();
        let alive = match names.is_empty() {
            true => changed.await.is_ok(),
            false => {
                tokio::time::timeout(REFRESH, changed).await.is_ok_and(|changed| changed.is_ok())
                    || !answers.is_closed()
            }
        };
        if !alive {
            return;
        }
    }
}

/// Sorted, so that an answer in another order is no change.
async fn resolve(name: &str) -> Option<Vec<IpAddr>> {
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, 0))).await.ok()?;
    let addresses: BTreeSet<IpAddr> = found.ok()?.map(|address| address.ip()).collect();
    (!addresses.is_empty()).then(|| addresses.into_iter().collect())
}
