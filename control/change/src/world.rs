//! What planner, judge and executor know of the fleet: one [`Member`] per instance, read from the store's resources.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use weir_model::change::Scope;
use weir_model::instance::{InstancePhase, ManagedBy};
use weir_model::{App, Instance, Unit};

/// Tier of an app that nobody has described: the default of App.
const UNKNOWN_TIER: u8 = 3;

/// An instance as a change sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its app.
    pub app: String,
    /// Its unit.
    pub unit: String,
    /// Its zone within the unit.
    pub zone: String,
    /// Its technology stack.
    pub stack: String,
    /// Its group.
    pub group: String,
    /// Importance of its app, 1 (most) to 4.
    pub tier: u8,
    /// Its unit is a canary unit.
    pub canary: bool,
    /// Its share of traffic.
    pub weight: u64,
    /// The change may touch it: the scope matches, Weir runs it, and it is not on its way out.
    pub in_scope: bool,
    /// Version its spec wants.
    pub wanted: String,
    /// Version its proxy reports.
    pub running: String,
    /// How it is.
    pub state: State,
    /// Its proxy's start-up self-check passed.
    pub checked: bool,
    /// What it says of itself.
    pub message: String,
    /// Since when it is in its phase.
    pub since: Option<Timestamp>,
    /// The Workload it belongs to.
    pub workload: Option<String>,
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Callers are sent to it.
    Serving,
    /// It starts, or its proxy is being swapped.
    Moving,
    /// Something failed.
    Failed,
    /// It should serve, but its proxy is not heard of.
    Silent,
    /// It is being stopped for good.
    Leaving,
}

impl State {
    /// In words, after "it".
    pub fn words(self) -> &'static str {
        match self {
            State::Serving => "serves",
            State::Moving => "starts or swaps its proxy",
            State::Failed => "failed",
            State::Silent => "is not heard of",
            State::Leaving => "is being stopped",
        }
    }
}

impl Member {
    /// Where it is, as far as draining is concerned.
    pub fn cell(&self) -> (&str, &str, &str) {
        (&self.app, &self.unit, &self.zone)
    }

    /// What a change must prove itself on before it goes wide: stack, unit, tier.
    pub fn stratum(&self) -> (&str, &str, u8) {
        (&self.stack, &self.unit, self.tier)
    }

    /// It serves `version`, and its proxy found itself healthy.
    pub fn serves(&self, version: &str) -> bool {
        self.state == State::Serving && self.wanted == version && self.running == version && self.checked
    }
}

/// Reads the fleet, in the order of names.
pub fn members(instances: &[Instance], apps: &[App], units: &[Unit], scope: &Scope) -> Vec<Member> {
    let tiers: HashMap<&str, u8> = apps.iter().map(|app| (app.name(), app.spec.tier)).collect();
    let canaries: HashMap<&str, bool> = units.iter().map(|unit| (unit.name(), unit.spec.canary)).collect();
    let read = |instance: &Instance| {
        let tier = tiers.get(instance.spec.app.as_str()).copied().unwrap_or(UNKNOWN_TIER);
        let canary = canaries.get(instance.spec.unit.as_str()).copied().unwrap_or(false);
        member(instance, tier, canary, scope)
    };
    let sorted: BTreeMap<&str, Member> = instances.iter().map(|i| (i.name(), read(i))).collect();
    sorted.into_values().collect()
}

fn member(instance: &Instance, tier: u8, canary: bool, scope: &Scope) -> Member {
    let (spec, status) = (&instance.spec, &instance.status);
    let state = state(instance);
    let ours = spec.managed_by == ManagedBy::Weir && state != State::Leaving;
    let wanted = if spec.proxy_version.is_empty() { &status.proxy_version } else { &spec.proxy_version };
    Member {
        name: instance.name().to_owned(),
        app: spec.app.clone(),
        unit: spec.unit.clone(),
        zone: spec.zone.clone(),
        stack: spec.stack.clone(),
        group: spec.group.clone(),
        tier,
        canary,
        weight: u64::from(spec.weight),
        in_scope: ours && scope.matches(spec, &instance.metadata.labels),
        wanted: wanted.clone(),
        running: status.proxy_version.clone(),
        state,
        checked: status.self_check.as_ref().is_some_and(|check| check.passed),
        message: status.message.clone(),
        since: status.phase_since,
        workload: spec.workload.clone(),
    }
}

fn state(instance: &Instance) -> State {
    match instance.status.phase {
        _ if instance.spec.retire => State::Leaving,
        InstancePhase::Terminating => State::Leaving,
        InstancePhase::Failed => State::Failed,
        InstancePhase::Serving if instance.status.published() => State::Serving,
        InstancePhase::Serving => State::Silent,
        InstancePhase::Pending | InstancePhase::Starting => State::Moving,
        InstancePhase::Unpublishing | InstancePhase::Draining | InstancePhase::Swapping => State::Moving,
    }
}
