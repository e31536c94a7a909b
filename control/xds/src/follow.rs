//! The one task that owns the [`Index`]: follows the store, publishes worlds, decides who is unpublished.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use weir_model::encryption::EncryptionSpec;
use weir_model::instance::{InstanceConfig, InstancePhase, UNPUBLISHED};
use weir_model::meta::set_condition;
use weir_model::{
    AppSpec, ChangeSpec, Condition, ConditionStatus, Instance, InstanceSpec, Key, Kind, Object, RouteSpec,
};
use weir_store::{Error, Event, EventType, WatchEvent, WatchQuery, WatchStream, typed};

use crate::Inner;
use crate::board::{Taken, Times, Verdict};
use crate::index::{Index, Leaving};
use crate::switch::Switch;

/// How often waiting instances are looked at even if nothing is acknowledged: time passes, too.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// First pause after the store failed; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Most callers named in a message.
const NAMED: usize = 10;
const SOURCE: &str = "controller/xds";

pub struct Follower {
    inner: Arc<Inner>,
    index: Index,
    started: Instant,
    /// When each instance was first seen leaving, by the leaving's own start.
    noticed: HashMap<String, (Option<Timestamp>, Instant)>,
    loaded: bool,
    switch: Switch,
    /// Something is different since encryption was looked at.
    stirred: bool,
}

impl Follower {
    pub fn new(inner: Arc<Inner>) -> Follower {
        let started = Instant::now();
        let identities = inner.options.authority.as_ref().map(|authority| authority.options().clone());
        let (index, switch) = (Index::new(identities.unwrap_or_default()), Switch::new(Arc::clone(&inner), started));
        Follower { inner, index, started, noticed: HashMap::new(), loaded: false, switch, stirred: true }
    }

    /// Runs until `shutdown` becomes true. If the store fails, proxies keep what they have and it is tried again.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut pause = MIN_PAUSE;
        loop {
            let result = tokio::select! {
                _ = shutdown.wait_for(|down| *down) => return,
                result = self.follow() => result,
            };
            match result {
                Ok(()) | Err(Error::Gone { .. }) => pause = MIN_PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "xDS can't follow the store; proxies keep what they have");
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
            sleep(pause).await;
        }
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let mut events = self.load().await?;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.apply(event?),
                    None => return Ok(()),
                },
                () = self.inner.board.changed() => self.stirred = true,
                () = sleep(LOOK_EVERY), if self.waits() => {}
            }
            self.gather(&mut events).await?;
            self.publish();
            self.decide().await?;
            self.note_configuration().await?;
            self.switch.look(&self.index, &mut self.stirred, Instant::now()).await?;
        }
    }

    /// There is something that time may change.
    fn waits(&self) -> bool {
        self.index.leaving().next().is_some() || self.switch.watches(&self.index)
    }

    /// Reads everything and begins to watch from there.
    async fn load(&mut self) -> Result<WatchStream, Error> {
        let store = &*self.inner.store;
        let (apps, apps_at) = typed::list::<AppSpec>(store).await?;
        let (routes, routes_at) = typed::list::<RouteSpec>(store).await?;
        let (instances, instances_at) = typed::list::<InstanceSpec>(store).await?;
        let (encryptions, encryptions_at) = typed::list::<EncryptionSpec>(store).await?;
        let (changes, changes_at) = typed::list::<ChangeSpec>(store).await?;
        let changes = changes.into_iter().map(Object::from);
        let encryptions = encryptions.into_iter().map(Object::from);
        let apps = apps.into_iter().map(Object::from);
        let routes = routes.into_iter().map(Object::from);
        let instances = instances.into_iter().map(Object::from);
        let at = apps_at.min(routes_at).min(instances_at).min(encryptions_at).min(changes_at);
        let events = store.watch(&WatchQuery::all(at)).await?;
        self.stirred = true;
        self.index.replace(apps.chain(routes).chain(instances).chain(encryptions).chain(changes));
        self.publish();
        if !std::mem::replace(&mut self.loaded, true) {
            self.inner.board.expect(self.index.callers(), self.started);
            self.inner.ready.send_replace(true);
        }
        self.decide().await?;
        Ok(events)
    }

    /// A change seldom comes alone: takes what follows within a few milliseconds.
    async fn gather(&mut self, events: &mut WatchStream) -> Result<(), Error> {
        if !self.index.is_dirty() {
            return Ok(());
        }
        let until = Instant::now() + self.inner.options.coalesce;
        while let Ok(Some(event)) = timeout_at(until, events.next()).await {
            self.apply(event?);
        }
        Ok(())
    }

    fn apply(&mut self, event: WatchEvent) {
        self.stirred = true;
        self.index.apply(event);
    }

    fn publish(&mut self) {
        let published = self.index.publish();
        self.inner.hub.publish(self.index.world(), &published);
    }

    async fn decide(&mut self) -> Result<(), Error> {
        let waiting: Vec<(String, Leaving)> = self.index.leaving().map(|(n, l)| (n.clone(), l.clone())).collect();
        self.noticed.retain(|name, _| waiting.iter().any(|(n, _)| n == name));
        for (name, leaving) in waiting {
            let times = Times { now: Instant::now(), started: self.started, noticed: self.noticed(&name, &leaving) };
            let has_left = |node: &str| self.index.has_left(node);
            let verdict = self.inner.board.decide(&leaving, times, &self.inner.options, has_left);
            if verdict != Verdict::Waiting {
                self.unpublished(&name, &leaving, verdict, times).await?;
                self.index.settle(&name, leaving.since);
            }
        }
        for name in self.index.stale() {
            self.published(&name).await?;
        }
        Ok(())
    }

    /// Says in the store which configuration each proxy has taken that was told of another one.
    async fn note_configuration(&mut self) -> Result<(), Error> {
        let overlays = self.index.overlays();
        let taken = self.inner.board.taken(overlays.awaited().map(|(name, ..)| name.as_str()));
        let news: Vec<(String, InstanceConfig)> = overlays
            .awaited()
            .filter_map(|(name, revision, since)| {
                Some((name.clone(), reached(taken.get(name.as_str())?, revision, since)?))
            })
            .collect();
        for (name, config) in news {
            let settled = config.rejected.is_empty();
            self.write_configuration(&name, config).await?;
            if settled {
                self.index.settle_configuration(&name);
            }
        }
        Ok(())
    }

    async fn write_configuration(&self, name: &str, config: InstanceConfig) -> Result<(), Error> {
        let change = |instance: &mut Instance| {
            // What a rejecting proxy still has is what it had.
            let before = instance.status.config.clone().unwrap_or_default();
            let revision = if config.rejected.is_empty() { config.revision.clone() } else { before.revision.clone() };
            let next = InstanceConfig { revision, ..config.clone() };
            let differs = next != before;
            instance.status.config = Some(next);
            differs
        };
        typed::modify_status::<InstanceSpec>(&*self.inner.store, name, change).await.map(drop)
    }

    fn noticed(&mut self, name: &str, leaving: &Leaving) -> Instant {
        let now = Instant::now();
        let entry = self.noticed.entry(name.to_owned()).or_insert((leaving.since, now));
        if entry.0 != leaving.since {
            *entry = (leaving.since, now);
        }
        entry.1
    }

    async fn unpublished(&self, name: &str, leaving: &Leaving, verdict: Verdict, times: Times) -> Result<(), Error> {
        let (r#type, reason, message) = explain(&verdict, times);
        let now = (self.inner.clock)();
        let mut written = false;
        let change = |instance: &mut Instance| {
            let status = &mut instance.status;
            written = status.phase == InstancePhase::Unpublishing && status.phase_since == leaving.since;
            if written {
                // A condition left over from an earlier round must not lend this one its age.
                status.conditions.retain(|c| c.r#type != UNPUBLISHED);
                let at = leaving.since.map_or(now, |since| since.max(now));
                set_condition(&mut status.conditions, condition(ConditionStatus::True, reason, &message, at));
            }
            written
        };
        typed::modify_status::<InstanceSpec>(&*self.inner.store, name, change).await?;
        if written {
            self.event(name, r#type, reason, message).await?;
        }
        Ok(())
    }

    async fn published(&self, name: &str) -> Result<(), Error> {
        let now = (self.inner.clock)();
        let change = |instance: &mut Instance| {
            instance.status.published()
                && set_condition(
                    &mut instance.status.conditions,
                    condition(ConditionStatus::False, "Published", "callers are given this instance", now),
                )
        };
        typed::modify_status::<InstanceSpec>(&*self.inner.store, name, change).await.map(drop)
    }

    async fn event(&self, name: &str, r#type: EventType, reason: &str, message: String) -> Result<(), Error> {
        let about = Key::new(Kind::Instance, name);
        let time = (self.inner.clock)();
        let event = Event { time, about, r#type, reason: reason.to_owned(), message, source: SOURCE.to_owned() };
        self.inner.store.append_event(event).await
    }
}

/// How far a proxy is with the `revision` it was told of from the world `since` on; `None`: on its way.
fn reached(taken: &Taken, revision: &str, since: u64) -> Option<InstanceConfig> {
    if let Some(rejected) = &taken.rejected {
        return Some(InstanceConfig { revision: String::new(), rejected: rejected.to_string() });
    }
    (taken.all() >= since).then(|| InstanceConfig { revision: revision.to_owned(), rejected: String::new() })
}

fn explain(verdict: &Verdict, times: Times) -> (EventType, &'static str, String) {
    let took = times.now.duration_since(times.noticed).as_millis();
    match verdict {
        Verdict::TimedOut(missing) => {
            let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = missing.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message =
                format!("after {took} ms these callers have not acknowledged: {named}{more}; going on without");
            (EventType::Warning, "TimedOut", message)
        }
        Verdict::Acknowledged(callers) => {
            let message = format!("acknowledged by all callers ({callers}) after {took} ms");
            (EventType::Normal, "AcknowledgedByAll", message)
        }
        Verdict::Waiting => (EventType::Normal, "Waiting", "callers have yet to acknowledge".to_owned()),
    }
}

fn condition(status: ConditionStatus, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        r#type: UNPUBLISHED.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: now,
    }
}
