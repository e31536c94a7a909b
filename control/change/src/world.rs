//! What planner, judge and executor know of the fleet: one [`Member`] per instance, read from the store's resources.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::change::{Action, Level};
use weir_model::freeze::Place;
use weir_model::instance::{InstancePhase, ManagedBy};
use weir_model::slo::Alert;
use weir_model::{ChangeSpec, CheckSpec, FreezeSpec, Instance, Key};

use crate::defence::own::Hearsay;

use crate::judge::blame::Suspect;

/// A name that many share: of an app, a unit, a version.
pub type Name = Arc<str>;

/// Names that are kept without a look at who needs them.
const MIN_NAMES: usize = 10_000;

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

/// Everything outside the change that its next step depends on.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The fleet, by name.
    pub members: Vec<Member>,
    /// Protection windows.
    pub freezes: Vec<FreezeSpec>,
    /// What is stored of the resources that a configuration is about, in the order in which they are written.
    pub resources: Vec<Stored>,
    /// There is a Release of what is wanted.
    pub released: bool,
    /// A change that this one has to wait for, since they share instances.
    pub rival: Option<String>,
    /// The policy that holds the change lowest.
    pub bound: Option<Bound>,
    /// Workloads whose instances are all in scope and that make new instances with another version.
    pub unsettled: Vec<String>,
    /// Why the Release of what is wanted was withdrawn, if it was.
    pub withdrawn: Option<String>,
    /// Apps in scope of which nobody is named as owner.
    pub ownerless: Vec<Name>,
    /// Tests of the Release's build that failed.
    pub tests_failed: u32,
    /// Objectives of apps.
    pub slos: Vec<SloFact>,
    /// Checks of somebody's own that concern an app in scope, by name.
    pub checks: Vec<(String, CheckSpec)>,
    /// What Prometheus servers and plugins have answered.
    pub heard: Hearsay,
    /// Other changes that have touched instances in scope within the last days.
    pub others: Vec<Suspect>,
}

impl World {
    /// The level a change of this spec runs at: what it asks for, unless a policy holds it below that.
    pub fn level(&self, spec: &ChangeSpec) -> Level {
        self.bound.as_ref().map_or(spec.level, |bound| spec.level.min(bound.max_level))
    }
}

/// How an app stands by one of its objectives.
#[derive(Debug, Clone, PartialEq)]
pub struct SloFact {
    /// Name of the Slo.
    pub name: Name,
    /// The app.
    pub app: Name,
    /// Share of the error budget that is left; `None`: too few requests to say.
    pub budget_left: Option<f64>,
    /// How fast it burns.
    pub alert: Alert,
    /// Since when.
    pub alert_since: Option<Timestamp>,
}

impl SloFact {
    /// That its error budget is spent, in words.
    pub fn spent(&self) -> Option<String> {
        let left = self.budget_left.filter(|left| *left <= 0.0)?;
        let over = (-left * 100.0).round();
        Some(format!("slo/{} has spent its error budget, and {over} % more: {} waits", self.name, self.app))
    }

    /// That it burns at paging speed, in words.
    pub fn burning(&self) -> Option<String> {
        let words = || format!("slo/{} burns its error budget at paging speed: {} waits", self.name, self.app);
        (self.alert == Alert::Page).then(words)
    }
}

impl World {
    /// Why what is wanted cannot be brought anywhere: its Release is missing or withdrawn.
    pub fn no_release(&self, action: &Action) -> String {
        match &self.withdrawn {
            Some(why) => format!("the Release of {action} is withdrawn: {why}"),
            None => format!("there is no Release of {action}"),
        }
    }

    /// Instances that the change is about.
    pub fn in_scope(&self) -> usize {
        self.members.iter().filter(|member| member.in_scope).count()
    }
}

/// What is wrong with a change that is about nobody, and what to do.
pub fn nothing_in_scope(spec: &ChangeSpec) -> String {
    let app = match &spec.action {
        Action::AppRelease { app, .. } => format!(" of app {app}"),
        Action::ProxyUpgrade { .. } | Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => String::new(),
    };
    format!(
        "nothing in scope: no instance{app} that Weir runs is in {}; correct `scope`, or it goes on by itself when \
         there is one (those that joined by `weir run` are changed by whoever runs them)",
        spec.scope
    )
}

/// A count with its noun.
pub fn many(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// How far a policy lets a change go by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The highest level.
    pub max_level: Level,
    /// Name of the ChangePolicy.
    pub policy: String,
    /// Its reason.
    pub reason: String,
}

/// A resource that a configuration is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Kind and name.
    pub key: Key,
    /// Uid and generation of what is stored; `None`: nothing.
    pub found: Option<(String, u64)>,
    /// That is what the configuration wants.
    pub as_wanted: bool,
    /// It is stored as wanted, but not yet so, and why.
    pub unsettled: Option<String>,
}

/// Names that many share, each kept once. Messages come and go, so those that nobody shares any more are dropped when
/// there are many.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Name>, usize);

impl Names {
    pub(crate) fn shared(&mut self, name: &str) -> Name {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        if self.0.len() >= self.1 {
            self.0.retain(|name| Arc::strong_count(name) > 1);
            self.1 = 2 * self.0.len().max(MIN_NAMES);
        }
        let name = Name::from(name);
        self.0.insert(name.clone());
        name
    }
}

pub(crate) fn state(instance: &Instance) -> State {
    match instance.status.phase {
        _ if instance.spec.retire => State::Leaving,
        InstancePhase::Terminating => State::Leaving,
        InstancePhase::Failed => State::Failed,
        // Somebody let it go, and its controller has not seen it yet.
        InstancePhase::Serving if is_due(instance) => State::Moving,
        InstancePhase::Serving if instance.status.published() => State::Serving,
        InstancePhase::Serving => State::Silent,
        InstancePhase::Pending | InstancePhase::Starting => State::Moving,
        InstancePhase::Unpublishing | InstancePhase::Draining | InstancePhase::Swapping => State::Moving,
    }
}

/// Its specification asks for other versions than run.
fn is_due(instance: &Instance) -> bool {
    let (spec, status) = (&instance.spec, &instance.status);
    let differs = |wanted: &str, runs: &str| !wanted.is_empty() && wanted != runs;
    spec.managed_by == ManagedBy::Weir
        && (differs(&spec.proxy_version, &status.proxy_version) || differs(&spec.app_version, &status.app_version))
}
