//! Beside the streams: follows the store for addresses and deletions, and sweeps leases.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use weir_model::instance::{ALIVE, LEASE_EXPIRED};
use weir_model::{ConditionStatus, Instance, InstanceSpec, Kind};
use weir_store::{Error, WatchEvent, WatchQuery, WatchStream, typed};

use crate::Inner;
use crate::lease::Decision;

/// Pause after the store failed.
const PAUSE: Duration = Duration::from_millis(500);

pub struct Sweeper {
    inner: Arc<Inner>,
    addresses: HashMap<String, SocketAddr>,
    started: Instant,
    /// What the leases have decided and the store could not take yet, the newest of each instance.
    undone: BTreeMap<String, Decision>,
}

impl Sweeper {
    pub fn new(inner: Arc<Inner>) -> Sweeper {
        Sweeper { inner, addresses: HashMap::new(), started: Instant::now(), undone: BTreeMap::new() }
    }

    /// Runs until `shutdown` becomes true.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|down| *down) => return,
                result = self.follow() => if let Err(error) = result {
                    tracing::warn!(%error, "the registry can't follow the store; leases wait");
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let mut events = self.load().await?;
        let mut ticks = interval(self.inner.options.sweep_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.apply(event?),
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.sweep().await,
            }
        }
    }

    async fn load(&mut self) -> Result<WatchStream, Error> {
        let (instances, at) = typed::list::<InstanceSpec>(&*self.inner.store).await?;
        let gone: Vec<String> =
            self.addresses.keys().filter(|name| !instances.iter().any(|i| i.name() == **name)).cloned().collect();
        gone.iter().for_each(|name| self.deleted(name));
        for instance in &instances {
            self.stand(instance);
            self.put(instance);
        }
        self.inner.store.watch(&WatchQuery::kind(Kind::Instance, at)).await
    }

    /// Gives an instance that had been registered before this process the time to come back.
    fn stand(&self, instance: &Instance) {
        let alive = instance.status.conditions.iter().find(|c| c.r#type == ALIVE).map(|c| c.status);
        let (app, name) = (&instance.spec.app, instance.name());
        let until = self.started + self.inner.options.restart_grace;
        match alive {
            Some(ConditionStatus::False) => self.inner.leases().bury(app, name, Instant::now()),
            Some(_) => self.inner.leases().stand(app, name, until),
            None => {}
        }
    }

    fn apply(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if let Ok(instance) = Instance::try_from(object) {
                    self.put(&instance);
                }
            }
            WatchEvent::Deleted(object) => self.deleted(&object.metadata.name),
            WatchEvent::Bookmark(_) => {}
        }
    }

    fn put(&mut self, instance: &Instance) {
        let address = SocketAddr::new(instance.spec.address, instance.spec.port);
        let before = self.addresses.insert(instance.name().to_owned(), address);
        if let Some(before) = before.filter(|before| *before != address) {
            self.inner.addresses.remove(before, instance.name());
        }
        if before != Some(address) {
            self.inner.addresses.put(address, instance.name());
        }
    }

    /// Somebody has deleted the record. A proxy that still reports will register anew.
    fn deleted(&mut self, name: &str) {
        if let Some(address) = self.addresses.remove(name) {
            self.inner.addresses.remove(address, name);
        }
        self.inner.leases().remove(name, None);
        self.inner.observed.telemetry.forget(name);
    }

    /// Carries out what the leases decide. They decide once, so what fails is kept until it is done or no longer true;
    /// it holds nothing else up.
    async fn sweep(&mut self) {
        let decisions = self.inner.leases().sweep(Instant::now(), &self.inner.options);
        self.undone.extend(decisions.into_iter().map(|d| (d.instance().to_owned(), d)));
        let mut failed = None;
        for (instance, decision) in std::mem::take(&mut self.undone) {
            if !self.inner.leases().is_overdue(&instance) {
                continue; // It is back.
            }
            if let Err(error) = self.carry_out(decision.clone()).await {
                self.undone.insert(instance, decision);
                failed = Some(error);
            }
        }
        if let Some(error) = failed {
            tracing::warn!(%error, undone = self.undone.len(), "lapsed leases could not be written; they are tried again");
        }
    }

    async fn carry_out(&self, decision: Decision) -> Result<(), Error> {
        let now = (self.inner.clock)();
        let records = &self.inner.records;
        match decision {
            Decision::Expire { instance, why } => {
                let still = || self.inner.leases().is_overdue(&instance);
                records.expire(&instance, ConditionStatus::False, LEASE_EXPIRED, why, now, still).await
            }
            Decision::Hold { instance, overdue, total } => {
                let still = || self.inner.leases().is_overdue(&instance);
                let message = format!(
                    "its proxy is not heard of, but neither are others: {overdue} of {total} instances of the app would \
                     be lost at once, so none is taken out; see whether the control plane can be reached from them"
                );
                records.expire(&instance, ConditionStatus::Unknown, "SelfPreservation", &message, now, still).await
            }
            Decision::Forget { instance } => {
                let still = || self.inner.leases().is_overdue(&instance);
                records.forget(&instance, "not heard of for long", still).await.map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests;
