//! Change: an unattended change, from intent to verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{MAX_ANSWERS, Skip, listed, validate_skips};
use crate::error::{FieldError, Invalid};
use crate::instance::InstanceSpec;
use crate::kind::Kind;
use crate::object::{Resource, Spec};
use crate::validate::Validator;

mod action;
mod level;
pub mod publication;
mod scope;
mod status;
mod verdict;

pub use action::Action;
pub use level::{EffectiveLevel, Level, ManualStep, Way};
pub use status::{BlockReason, ChangeStatus, PlanVersion, Progress, Rollback};
pub use verdict::{Again, Blame, Earlier, Evidence, Harmed, Outcome, Point, Trimmed, Verdict};

/// Longest bake, patience or timeout: thirty days, in seconds.
pub const MAX_SECONDS: u64 = 30 * 24 * 3600;

/// Most rungs of a ladder.
pub const MAX_RUNGS: usize = 50;

/// An unattended change.
pub type Change = Resource<ChangeSpec>;

/// What is to change, where, and how carefully.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeSpec {
    /// What becomes of the instances in scope.
    pub action: Action,
    /// Which instances; empty: all that Weir manages.
    #[serde(default)]
    pub scope: Scope,
    /// Batches grow along this; default: one box, 1 %, 5 %, 20 %, 50 %, 100 %, baked 20 to 60 minutes each.
    #[serde(default = "default_ladder")]
    pub ladder: Vec<Rung>,
    /// Bounds that no plan may break.
    #[serde(default)]
    pub budget: Budget,
    /// How harm is judged.
    #[serde(default)]
    pub judge: JudgeSpec,
    /// How much happens without a person.
    #[serde(default)]
    pub level: Level,
    /// What a person wants of it now.
    #[serde(default)]
    pub command: Command,
    /// Raise by one to try a blocked or failed batch again.
    #[serde(default)]
    pub retries: u32,
    /// At level L2: batches up to this number may begin.
    #[serde(default)]
    pub approved_batch: u32,
    /// Batches that are passed over: instances of theirs that have not changed are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_batches: Vec<u32>,
    /// What a person wants of single instances, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ManualStep>,
    /// An instance that has not come back after this long (seconds) fails its batch.
    #[serde(default = "default_instance_timeout")]
    pub instance_timeout_seconds: u64,
    /// Checks, by code, without which it may go on, and why. Written by `weir change skip-check`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skip_checks: BTreeMap<String, Skip>,
    /// Checks, by code, that only advise otherwise and that this change must pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require_checks: Vec<String>,
}

impl ChangeSpec {
    /// A proxy upgrade of everything that Weir manages, with the default care.
    pub fn proxy_upgrade(version: impl Into<String>) -> ChangeSpec {
        ChangeSpec {
            action: Action::ProxyUpgrade { version: version.into() },
            scope: Scope::default(),
            ladder: default_ladder(),
            budget: Budget::default(),
            judge: JudgeSpec::default(),
            level: Level::default(),
            command: Command::default(),
            retries: 0,
            approved_batch: 0,
            skipped_batches: Vec::new(),
            steps: Vec::new(),
            instance_timeout_seconds: default_instance_timeout(),
            skip_checks: BTreeMap::new(),
            require_checks: Vec::new(),
        }
    }

    /// Whether a person may make it `next`, given what is observed of the change. Once it has begun, what it does,
    /// where, in which steps and within which bounds stays: its record and its roll-back speak of that. Once it has
    /// ended nothing is edited, so that each change has one record.
    ///
    /// # Errors
    /// The fields that may not be edited any more, and what to do instead.
    pub fn may_be_edited_to(&self, next: &ChangeSpec, status: &ChangeStatus) -> Result<(), Invalid> {
        if self == next {
            return Ok(());
        }
        if status.phase.ended() {
            let message = format!("the change has ended ({:?}): make a new one with another name", status.phase);
            return Err(Invalid::one("spec", message));
        }
        if status.started_at.is_none() {
            return Ok(());
        }
        let pinned = [
            ("spec.action", self.action != next.action),
            ("spec.scope", self.scope != next.scope),
            ("spec.ladder", self.ladder != next.ladder),
            ("spec.budget", self.budget != next.budget),
        ];
        let message = "stays as it is once the change has begun: abort it or roll it back, and make a new one";
        let refused = |path: &str| FieldError { path: path.to_owned(), message: message.to_owned(), hint: None };
        let wrong: Vec<FieldError> =
            pinned.iter().filter(|(_, edited)| *edited).map(|(path, _)| refused(path)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(Invalid(wrong)) }
    }
}

fn default_instance_timeout() -> u64 {
    300
}

/// Which instances; every list that is not empty must hold the instance's value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scope {
    /// Apps.
    pub apps: Vec<String>,
    /// Units.
    pub units: Vec<String>,
    /// Stacks.
    pub stacks: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Labels that the instance must carry.
    pub labels: BTreeMap<String, String>,
}

impl Scope {
    /// True if the instance, with these labels, is in scope.
    pub fn matches(&self, instance: &InstanceSpec, labels: &BTreeMap<String, String>) -> bool {
        self.selects(&instance.app, &instance.unit, &instance.stack, &instance.group, labels)
    }

    /// True if an instance of this app, unit, stack and group, with these labels, is in scope.
    pub fn selects(&self, app: &str, unit: &str, stack: &str, group: &str, labels: &BTreeMap<String, String>) -> bool {
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        named(&self.apps, app)
            && named(&self.units, unit)
            && named(&self.stacks, stack)
            && named(&self.groups, group)
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// One step of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rung {
    /// Up to this share of the scope's traffic weight is changed when the rung is done (0 to 100); 0: one box.
    pub percent: f64,
    /// Watched at least this long (seconds).
    #[serde(default)]
    pub bake_seconds: u64,
    /// And over at least this many requests.
    #[serde(default)]
    pub min_requests: u64,
}

/// One box an hour, then shorter bakes as evidence grows: what AWS publishes of its own practice, in proportion to a
/// proxy upgrade that many apps repeat ("Automating safe, hands-off deployments", Amazon Builders' Library).
fn default_ladder() -> Vec<Rung> {
    let rung = |percent, minutes: u64| Rung { percent, bake_seconds: minutes * 60, min_requests: 1000 };
    vec![rung(0.0, 60), rung(1.0, 30), rung(5.0, 30), rung(20.0, 20), rung(50.0, 20), rung(100.0, 20)]
}

/// Bounds that no plan may break.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budget {
    /// Share of an app's instances in a unit that may be out at a time, in percent, rounded down, but at least one.
    pub max_unavailable_percent: f64,
    /// Share of the scope's traffic weight that may be out at a time, in percent, but at least one instance.
    pub max_in_flight_percent: f64,
    /// Share of the scope's traffic weight that may begin to change within any minute, in percent, but at least one
    /// instance. Not for roll-backs.
    pub max_exposed_percent_per_minute: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { max_unavailable_percent: 25.0, max_in_flight_percent: 33.0, max_exposed_percent_per_minute: 100.0 }
    }
}

/// How harm is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JudgeSpec {
    /// Chance of a false block over the whole change, however often one looks; above 0.
    pub alpha: f64,
    /// Relative increase that is tolerated.
    pub tolerance: f64,
    /// Without enough evidence so long (seconds) after the bake time, the change blocks.
    pub patience_seconds: u64,
}

impl Default for JudgeSpec {
    fn default() -> Self {
        JudgeSpec { alpha: 0.002, tolerance: 0.1, patience_seconds: 3600 }
    }
}

/// What a person wants of a change now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Go on.
    #[default]
    Run,
    /// Finish what is in flight, begin nothing. A roll-back goes on, and harm found meanwhile begins one.
    Pause,
    /// Stop for good where it stands.
    Abort,
    /// Undo what was done.
    RollBack,
}

/// Life of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ChangePhase {
    /// Not begun.
    #[default]
    Pending,
    /// Batches run.
    Running,
    /// A person paused it.
    Paused,
    /// A verdict or a check stopped it; a person decides.
    Blocked,
    /// What was done is being undone.
    RollingBack,
    /// All instances in scope have changed.
    Succeeded,
    /// What was done is undone.
    RolledBack,
    /// A person stopped it where it stood.
    Aborted,
}

impl ChangePhase {
    /// The legal transitions.
    pub fn may_become(self, next: ChangePhase) -> bool {
        use ChangePhase::*;
        match self {
            _ if self == next => true,
            Pending => matches!(next, Running | Paused | Blocked | Aborted | RollingBack | Succeeded),
            Running => matches!(next, Paused | Blocked | RollingBack | Succeeded | Aborted),
            Paused => matches!(next, Running | Blocked | RollingBack | Aborted),
            Blocked => matches!(next, Running | Paused | RollingBack | Aborted),
            RollingBack => matches!(next, RolledBack | Blocked | Aborted),
            // Ended: what is wanted next is a new change, so that each has one record.
            Succeeded | RolledBack | Aborted => false,
        }
    }

    /// No transition leads out of it.
    pub fn ended(self) -> bool {
        matches!(self, ChangePhase::Succeeded | ChangePhase::RolledBack | ChangePhase::Aborted)
    }
}

/// Instances that change together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// From 1.
    pub number: u32,
    /// Index of its rung.
    pub rung: u32,
    /// How many instances are in it.
    #[serde(default)]
    pub size: u32,
    /// Of those, let go.
    #[serde(default)]
    pub let_go: u32,
    /// Of those, back with the version wanted.
    #[serde(default)]
    pub back: u32,
    /// Who is in it. Names are in memory only: the change's records have them.
    #[serde(skip)]
    pub instances: Arc<Vec<String>>,
    /// Why these, in a sentence.
    #[serde(default)]
    pub why: String,
    /// Where it is.
    #[serde(default)]
    pub phase: BatchPhase,
    /// When its first instance began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When all its instances had changed and baking began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baking_since: Option<Timestamp>,
    /// When it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Not begun: when it is expected to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_start: Option<Timestamp>,
    /// Not finished: when it is expected to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_end: Option<Timestamp>,
    /// Instances that were let go, and when. Recorded before their spec is written.
    #[serde(skip)]
    pub started: Arc<BTreeMap<String, Timestamp>>,
    /// Instances seen serving with the version wanted, and since when.
    #[serde(skip)]
    pub done: Arc<BTreeMap<String, Timestamp>>,
    /// Of those, instances that do not serve any more, and since when.
    #[serde(skip)]
    pub lost: Arc<BTreeMap<String, Timestamp>>,
    /// How it was judged, with the evidence so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Life of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchPhase {
    /// Not begun.
    #[default]
    Waiting,
    /// Its instances change.
    Changing,
    /// All have changed; they are watched.
    Baking,
    /// No harm found.
    Passed,
    /// Harm found, or a post-check failed.
    Failed,
    /// A person passed over it.
    Skipped,
}

impl Spec for ChangeSpec {
    const KIND: Kind = Kind::Change;
    type Status = ChangeStatus;

    fn validate(&self, v: &mut Validator) {
        v.within("action", |v| self.action.validate(v));
        self.validate_scope(v);
        level::validate_by_hand(v, &self.steps, &self.skipped_batches);
        v.require(!self.ladder.is_empty(), "ladder", "must have at least one rung");
        v.require(self.ladder.len() <= MAX_RUNGS, "ladder", "must have at most 50 rungs");
        v.require(self.ladder.is_sorted_by(|a, b| a.percent < b.percent), "ladder", "percentages must rise");
        v.require(self.ladder.last().is_none_or(|r| r.percent == 100.0), "ladder", "the last rung must be 100");
        v.each("ladder", &self.ladder, |v, r| v.range("percent", r.percent, 0.0, 100.0));
        v.range("budget.maxUnavailablePercent", self.budget.max_unavailable_percent, 0.0, 100.0);
        v.range("budget.maxInFlightPercent", self.budget.max_in_flight_percent, 0.0, 100.0);
        let exposed = self.budget.max_exposed_percent_per_minute;
        v.range("budget.maxExposedPercentPerMinute", exposed, 0.0, 100.0);
        v.range("judge.alpha", self.judge.alpha, 1e-9, 0.5);
        v.range("judge.tolerance", self.judge.tolerance, 0.0, 10.0);
        v.range("judge.patienceSeconds", self.judge.patience_seconds, 1, MAX_SECONDS);
        v.range("instanceTimeoutSeconds", self.instance_timeout_seconds, 1, MAX_SECONDS);
        validate_skips(v, &self.skip_checks);
        v.range("requireChecks", self.require_checks.len(), 0, MAX_ANSWERS);
        let known = |code: &String| code.starts_with("U-") || listed(code).is_some();
        v.require(
            self.require_checks.iter().all(known),
            "requireChecks",
            "must be codes: `weir change checks` lists them",
        );
        v.each("ladder", &self.ladder, |v, r| v.range("bakeSeconds", r.bake_seconds, 0, MAX_SECONDS));
    }
}

#[cfg(test)]
mod tests;
