//! What is observed of a change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::publication::Publication;
use super::{Batch, ChangePhase, EffectiveLevel};
use crate::check::CheckAnswer;
use crate::meta::Condition;

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
    /// Records of the change that this status sums up, see [`crate::ChangeRecord`].
    pub records: u64,
    /// Which plan it follows, and what the last planning changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanVersion>,
    /// Version of each touched instance before the change, for roll-back. In memory only: it is in the records.
    #[serde(skip)]
    pub previous: Arc<BTreeMap<String, String>>,
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
    /// How far it is.
    pub progress: Progress,
    /// What undoes it, once that has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Why it is blocked, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<BlockReason>,
    /// Instances that the change let go, and why: they vanished, or somebody else changed them. In memory only: they are
    /// in the records.
    #[serde(skip)]
    pub left: Arc<BTreeMap<String, String>>,
    /// How many those are.
    #[serde(skip_serializing_if = "is_none")]
    pub left_count: u32,
    /// What checks have said, those before the next batch first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckAnswer>,
    /// Checks skipped by a person of which the record tells.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub skipped: BTreeSet<String>,
    /// The level it runs at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<EffectiveLevel>,
    /// Of configuration: what the store held before, and how far it is on its way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
    /// Since when nothing but instances that do not serve is left to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A plan, summed up, and how it differs from the one before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlanVersion {
    /// From 1.
    pub version: u32,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why it was made, in a sentence.
    pub reason: String,
    /// Batches to come.
    pub batches: u32,
    /// Instances in them.
    pub instances: u32,
    /// Instances that wait for a window or for their own health.
    pub deferred: u32,
    /// When the last batch is expected to have been judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
    /// Share of the scope's traffic weight in the largest batch, in percent.
    pub largest_percent: f64,
    /// What differs from the plan before, in sentences.
    pub differences: Vec<String>,
}

/// How far a change is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Progress {
    /// Instances in scope.
    pub total: u32,
    /// Of those, on the wanted version (rolling back: on their previous one).
    pub done: u32,
    /// Of those, changing at this moment.
    pub in_flight: u32,
    /// Of those, waiting for a window or for their own health.
    pub deferred: u32,
    /// Number of the current (or last) batch.
    pub batch: u32,
    /// Batches so far and forecast.
    pub batches: u32,
}

/// How a change is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollback {
    /// Why, in a sentence.
    pub reason: String,
    /// The instances that go back, each to its version in [`ChangeStatus::previous`].
    pub batch: Batch,
}

/// Why a change is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BlockReason {
    /// There is no Release of the version wanted; goes on by itself when there is one.
    ReleaseMissing,
    /// A check said no before a batch; goes on by itself when it says yes.
    CheckFailed,
    /// No instance that Weir runs is in scope; goes on by itself when there is one.
    NothingInScope,
    /// A batch did harm or did not come up.
    BatchFailed,
    /// Too little traffic for a verdict, or a verdict that stayed in doubt.
    NoEvidence,
    /// Instances in scope do not serve, and only they are left.
    Unreachable,
    /// The checker refused what the planner proposed: a defect of Weir, nothing was done.
    PlanUnsafe,
    /// Somebody else has edited a resource that the configuration is about.
    ConfigEdited,
    /// An instance did not come back on its previous version.
    RollbackFailed,
}
