//! What must never happen, whatever is killed: watched from outside, in its own words.

use std::collections::{BTreeMap, BTreeSet};

use weir_model::change::{BatchPhase, ChangePhase};
use weir_model::instance::{Instance, InstancePhase, InstanceSpec};
use weir_model::{Change, ChangeSpec, Kind};
use weir_store::{ListQuery, MemoryStore, Store, typed};

use super::now;
use crate::execute::record::Log;

#[derive(Debug, Default)]
pub struct Law {
    /// Versions that each instance's spec has gone through.
    pub histories: BTreeMap<String, Vec<String>>,
    phase: ChangePhase,
    /// As it was when last looked at.
    pub change: Option<Change>,
    /// The store's version when last looked at.
    seen: u64,
    /// Batches, by number, that have been seen to begin.
    begun: BTreeMap<u32, BTreeSet<String>>,
    log: Option<Log>,
}

impl Law {
    /// Looks at the world after something may have happened.
    pub fn watch(&mut self, store: &MemoryStore, name: &str) {
        let version =
            now(store.list(&ListQuery { limit: 1, ..ListQuery::all(Kind::Change) })).unwrap().resource_version;
        if std::mem::replace(&mut self.seen, version) == version {
            return;
        }
        let instances = now(typed::list::<InstanceSpec>(store)).unwrap().0;
        let stored = now(typed::get::<ChangeSpec>(store, name)).unwrap().unwrap();
        let log = self.log.get_or_insert_with(|| Log::of(&stored));
        now(log.read_on(store, |_| {})).unwrap();
        let change = Change { status: log.status(&stored.status), ..stored };
        self.transitions(&change);
        self.nothing_unrecorded(&change, &instances);
        self.no_batch_before_its_time(&change);
        availability(&change, &instances);
        zones(&change, &instances);
        self.change = Some(change);
    }

    fn transitions(&mut self, change: &Change) {
        let next = change.status.phase;
        assert!(self.phase.may_become(next), "{:?} became {next:?}", self.phase);
        self.phase = next;
    }

    /// A spec changes once there and at most once back, and only after the change's record says so.
    fn nothing_unrecorded(&mut self, change: &Change, instances: &[Instance]) {
        for instance in instances {
            let (name, version) = (instance.name(), &instance.spec.proxy_version);
            let history = self.histories.entry(name.to_owned()).or_default();
            if history.last() == Some(version) {
                continue;
            }
            history.push(version.clone());
            let fresh = history.len() == 1;
            let there = *history == [change.status.previous.get(name).cloned().unwrap_or_default(), version.clone()]
                && version == change.spec.target()
                && change.status.batches.iter().any(|b| b.started.contains_key(name));
            let returns = change.status.rollback.as_ref().is_some_and(|r| r.batch.started.contains_key(name));
            let taken_back = change.status.left.get(name).is_some_and(|why| why == "a person took it back");
            let back = history.len() == 3 && history[0] == history[2] && (returns || taken_back);
            assert!(fresh || there || back, "{name} went through {history:?}: {:#?}", change.status);
        }
    }

    /// A batch begins when those before it have passed, with the instances it then says.
    fn no_batch_before_its_time(&mut self, change: &Change) {
        let batches = &change.status.batches;
        for (index, batch) in batches.iter().enumerate().filter(|(_, b)| !b.started.is_empty()) {
            assert!(
                batches[..index].iter().all(|b| matches!(b.phase, BatchPhase::Passed | BatchPhase::Skipped)),
                "{:#?}",
                change.status
            );
            let members: BTreeSet<String> = batch.instances.iter().cloned().collect();
            assert!(batch.started.keys().all(|n| members.contains(n)), "{:#?}", change.status);
            let begun = self.begun.entry(batch.number).or_insert_with(|| members.clone());
            assert!(members.is_subset(begun), "batch {} grew", batch.number);
        }
        let all: Vec<&String> = batches.iter().flat_map(|b| b.started.keys()).collect();
        let distinct: BTreeSet<&String> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len(), "an instance was let go twice: {:#?}", change.status);
    }
}

fn is_out(instance: &Instance) -> bool {
    is_changing(instance) || instance.status.phase != InstancePhase::Serving
}

/// Those that failed on the way back do not hold the others up.
fn passed_over(change: &Change, instance: &Instance) -> bool {
    change.status.rollback.is_some() && instance.status.phase == InstancePhase::Failed
}

fn is_changing(instance: &Instance) -> bool {
    instance.status.proxy_version != instance.spec.proxy_version
}

/// No app loses more of its instances in a unit than the budget, though one it may.
pub fn availability(change: &Change, instances: &[Instance]) {
    let mut places: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
    for instance in instances {
        let place = places.entry((&instance.spec.app, &instance.spec.unit)).or_default();
        place.0 += 1.0;
        place.1 += if is_out(instance) && !passed_over(change, instance) { 1.0 } else { 0.0 };
    }
    for (place, (all, out)) in places {
        let allowed = (all * change.spec.budget.max_unavailable_percent / 100.0).max(1.0);
        assert!(out <= allowed, "{out} of {all} are out in {place:?}");
    }
}

/// No two zones of an app change together.
pub fn zones(change: &Change, instances: &[Instance]) {
    let mut out: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for instance in instances.iter().filter(|i| is_changing(i) && !passed_over(change, i)) {
        out.entry(&instance.spec.app).or_default().insert((&instance.spec.unit, &instance.spec.zone));
    }
    for (app, zones) in out {
        assert!(zones.len() <= 1, "{app} is out in {zones:?}");
    }
}
