//! Change: an unattended change, from intent to verdict.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::meta::Condition;
use crate::object::{Resource, Spec};
use crate::validate::Validator;

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
    /// Batches grow along this; default: one box, 5 %, 20 %, 50 %, 100 %.
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
}

/// What becomes of the instances in scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Warm upgrade of the proxy to a Release's version.
    ProxyUpgrade {
        /// The version wanted.
        version: String,
    },
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

fn default_ladder() -> Vec<Rung> {
    let rung = |percent, bake_seconds| Rung { percent, bake_seconds, min_requests: 100 };
    vec![rung(0.0, 60), rung(5.0, 60), rung(20.0, 60), rung(50.0, 60), rung(100.0, 60)]
}

/// Bounds that no plan may break.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budget {
    /// Share of an app's instances in a unit that may be out at a time, in percent, rounded down, but at least one.
    pub max_unavailable_percent: f64,
    /// Share of the scope's traffic weight that may be out at a time, in percent, but at least one instance.
    pub max_in_flight_percent: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { max_unavailable_percent: 25.0, max_in_flight_percent: 33.0 }
    }
}

/// How harm is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JudgeSpec {
    /// Chance of a false block over the whole change, however often one looks.
    pub alpha: f64,
    /// Relative increase that is tolerated.
    pub tolerance: f64,
    /// Without enough evidence after this long (seconds), the change blocks.
    pub patience_seconds: u64,
}

impl Default for JudgeSpec {
    fn default() -> Self {
        JudgeSpec { alpha: 0.001, tolerance: 0.1, patience_seconds: 600 }
    }
}

/// How much happens without a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// A person approves each batch.
    L2,
    /// Blocks by itself; a person decides what then.
    L3,
    /// Blocks and rolls back by itself.
    #[default]
    L4,
}

/// What a person wants of a change now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Go on.
    #[default]
    Run,
    /// Finish what is in flight, begin nothing.
    Pause,
    /// Stop for good where it stands.
    Abort,
    /// Undo what was done.
    RollBack,
}

/// What is observed of a change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ChangeStatus {
    /// Where it is.
    pub phase: ChangePhase,
    /// The spec's generation this was observed of.
    pub observed_generation: u64,
    /// Why it waits, or how it ended, in a sentence.
    pub message: String,
    /// Batches so far and forecast, in order.
    pub batches: Vec<Batch>,
    /// Version of each touched instance before the change, for roll-back.
    pub previous: BTreeMap<String, String>,
    /// Aspects.
    pub conditions: Vec<Condition>,
    /// When the first batch began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Retries of the spec that were acted on.
    pub retries: u32,
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
    /// What was done is undone.
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
            Succeeded | RolledBack | Aborted => false,
        }
    }

    /// No transition leads out of it.
    pub fn ended(self) -> bool {
        matches!(self, ChangePhase::Succeeded | ChangePhase::RolledBack | ChangePhase::Aborted)
    }
}

/// Instances that change together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// From 1.
    pub number: u32,
    /// Index of its rung.
    pub rung: u32,
    /// Who is in it.
    pub instances: Vec<String>,
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
}

/// Has this batch done harm?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// The answer.
    pub outcome: Outcome,
    /// In words.
    pub reason: String,
    /// What it rests on.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What was left out, and why.
    #[serde(default)]
    pub excluded: Vec<String>,
}

/// An answer of the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// No harm, on enough evidence.
    Pass,
    /// Harm.
    Fail,
    /// Too little data yet.
    Inconclusive,
}

/// Counts of one comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// What was compared, e.g. `errors`, `proxy faults`, `errors seen by callers`.
    pub metric: String,
    /// Which instances: `app=order unit=east stack=demo`.
    pub stratum: String,
    /// Requests on changed instances.
    pub treated_requests: u64,
    /// Events on changed instances.
    pub treated_events: u64,
    /// Requests on unchanged instances, the same seconds.
    pub control_requests: u64,
    /// Events on unchanged instances.
    pub control_events: u64,
    /// Natural logarithm of the E-value; harm when it reaches ln(1/alpha).
    pub log_e: f64,
}

impl Spec for ChangeSpec {
    const KIND: Kind = Kind::Change;
    type Status = ChangeStatus;

    fn validate(&self, v: &mut Validator) {
        let Action::ProxyUpgrade { version } = &self.action;
        v.require(!version.is_empty(), "action.proxyUpgrade.version", "must name a proxy Release's version");
        v.require(!self.ladder.is_empty(), "ladder", "must have at least one rung");
        v.require(self.ladder.is_sorted_by(|a, b| a.percent < b.percent), "ladder", "percentages must rise");
        v.require(self.ladder.last().is_none_or(|r| r.percent == 100.0), "ladder", "the last rung must be 100");
        v.each("ladder", &self.ladder, |v, r| v.range("percent", r.percent, 0.0, 100.0));
        v.range("budget.maxUnavailablePercent", self.budget.max_unavailable_percent, 0.0, 100.0);
        v.range("budget.maxInFlightPercent", self.budget.max_in_flight_percent, 0.0, 100.0);
        v.range("judge.alpha", self.judge.alpha, 1e-9, 0.5);
        v.range("judge.tolerance", self.judge.tolerance, 0.0, 10.0);
    }
}
