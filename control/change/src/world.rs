//! What planner, judge and executor know of the fleet: one [`Member`] per instance, read from the store's resources.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::change::Scope;
use weir_model::freeze::Place;
use weir_model::instance::{InstancePhase, ManagedBy};
use weir_model::{App, AppSpec, Instance, Unit};

/// A name that many share: of an app, a unit, a version.
pub type Name = Arc<str>;

/// An instance as a change sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// Its app.
    pub app: Name,
    /// The business line of its app; may be empty.
    pub line: Name,
    /// Its unit.
    pub unit: Name,
    /// Its zone within the unit.
    pub zone: Name,
    /// Its technology stack.
    pub stack: Name,
    /// Its group.
    pub group: Name,
    /// Importance of its app, 1 (most) to 4.
    pub tier: u8,
    /// Its unit is a canary unit.
    pub canary: bool,
    /// Its share of traffic.
    pub weight: u64,
    /// The change may touch it: the scope matches, Weir runs it, and it is not on its way out.
    pub in_scope: bool,
    /// Version its spec wants.
    pub wanted: Name,
    /// Version its proxy reports.
    pub running: Name,
    /// How it is.
    pub state: State,
    /// Its proxy's start-up self-check passed.
    pub checked: bool,
    /// What it says of itself.
    pub message: Name,
    /// Since when it is in its phase.
    pub since: Option<Timestamp>,
    /// The Workload it belongs to.
    pub workload: Option<Name>,
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

    /// Where it is, as protection windows see it.
    pub fn place(&self) -> Place<'_> {
        Place { app: &self.app, line: &self.line, unit: &self.unit }
    }

    /// What a change must prove itself on before it goes wide: stack, unit, tier.
    pub fn stratum(&self) -> (&str, &str, u8) {
        (&self.stack, &self.unit, self.tier)
    }

    /// It serves `version`, and its proxy found itself healthy.
    pub fn serves(&self, version: &str) -> bool {
        self.state == State::Serving && &*self.wanted == version && &*self.running == version && self.checked
    }
}

/// Reads the fleet, in the order of names.
pub fn members(instances: &[Instance], apps: &[App], units: &[Unit], scope: &Scope) -> Vec<Member> {
    let known: HashMap<&str, &AppSpec> = apps.iter().map(|app| (app.name(), &app.spec)).collect();
    // An app that nobody has described.
    let unknown = AppSpec::default();
    let canaries: HashMap<&str, bool> = units.iter().map(|unit| (unit.name(), unit.spec.canary)).collect();
    let mut names = Names::default();
    let mut read = |instance: &Instance| {
        let app = known.get(instance.spec.app.as_str()).copied().unwrap_or(&unknown);
        let canary = canaries.get(instance.spec.unit.as_str()).copied().unwrap_or(false);
        member(instance, app, canary, scope, &mut names)
    };
    let mut members: Vec<Member> = instances.iter().map(&mut read).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

/// Names that many share, each kept once.
#[derive(Debug, Default)]
struct Names(HashSet<Name>);

impl Names {
    fn shared(&mut self, name: &str) -> Name {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name = Name::from(name);
        self.0.insert(name.clone());
        name
    }
}

fn member(instance: &Instance, app: &AppSpec, canary: bool, scope: &Scope, names: &mut Names) -> Member {
    let (spec, status) = (&instance.spec, &instance.status);
    let state = state(instance);
    let ours = spec.managed_by == ManagedBy::Weir && state != State::Leaving;
    let wanted = if spec.proxy_version.is_empty() { &status.proxy_version } else { &spec.proxy_version };
    Member {
        name: instance.name().into(),
        app: names.shared(&spec.app),
        line: names.shared(&app.line),
        unit: names.shared(&spec.unit),
        zone: names.shared(&spec.zone),
        stack: names.shared(&spec.stack),
        group: names.shared(&spec.group),
        tier: app.tier,
        canary,
        weight: u64::from(spec.weight),
        in_scope: ours && scope.matches(spec, &instance.metadata.labels),
        wanted: names.shared(wanted),
        running: names.shared(&status.proxy_version),
        state,
        checked: status.self_check.as_ref().is_some_and(|check| check.passed),
        message: names.shared(&status.message),
        since: status.phase_since,
        workload: spec.workload.as_deref().map(|workload| names.shared(workload)),
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
