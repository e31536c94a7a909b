//! Turns what happens in the store into activations: everything there is at first and at each resync, then every
//! change. Knows nothing of what the changes mean.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};
use weir_model::{Kind, Object};
use weir_store::{Error, ListQuery, Result, SharedStore, WatchEvent, WatchQuery};

use crate::Controller;
use crate::inbox::Activator;
use crate::stats::{Stats, count};

/// Between attempts to list when the store is unavailable.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Feed {
    pub store: SharedStore,
    pub controller: Arc<dyn Controller>,
    pub inbox: Activator,
    pub stats: Arc<Stats>,
    pub resync: Duration,
}

impl Feed {
    /// Lists, watches until the next resync is due or the watch ends, and begins again.
    pub async fn run(self) {
        let kinds = self.controller.watches();
        if kinds.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let resync_at = Instant::now() + self.resync;
            let round = async { self.watch(&kinds, self.list(&kinds).await?).await };
            match timeout_at(resync_at, round).await {
                Err(_) | Ok(Err(Error::Gone { .. })) => {}
                Ok(Err(error)) => {
                    tracing::warn!(controller = self.controller.name(), %error, "cannot watch the store, trying again");
                    sleep(RETRY).await;
                }
                Ok(Ok(())) => sleep(RETRY).await,
            }
        }
    }

    /// Activates for everything there is; the resourceVersion from which to watch.
    async fn list(&self, kinds: &[Kind]) -> Result<u64> {
        let mut from = None;
        for kind in kinds {
            let first = self.list_kind(*kind).await?;
            from.get_or_insert(first);
        }
        count(&self.stats.resyncs);
        Ok(from.unwrap_or_default())
    }

    async fn list_kind(&self, kind: Kind) -> Result<u64> {
        let mut query = ListQuery::all(kind);
        let mut first = None;
        loop {
            let page = self.store.list(&query).await?;
            page.items.iter().for_each(|object| self.activate(object));
            let version = *first.get_or_insert(page.resource_version);
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(version),
            }
        }
    }

    async fn watch(&self, kinds: &[Kind], from: u64) -> Result<()> {
        let query = match kinds {
            [kind] => WatchQuery::kind(*kind, from),
            _ => WatchQuery::all(from),
        };
        let mut changes = self.store.watch(&query).await?;
        while let Some(event) = changes.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    if kinds.contains(&object.kind) {
                        self.activate(&object);
                    }
                }
                WatchEvent::Bookmark(_) => {}
            }
        }
        Ok(())
    }

    /// A panic in `concerns` costs this one activation, which the next resync makes up for, and not the feed.
    fn activate(&self, object: &Object) {
        match catch_unwind(AssertUnwindSafe(|| self.controller.concerns(object))) {
            Ok(keys) => keys.into_iter().for_each(|key| self.inbox.activate(key)),
            Err(_) => {
                count(&self.stats.panics);
                tracing::error!(controller = self.controller.name(), key = %object.key(), "concerns() panicked");
            }
        }
    }
}
