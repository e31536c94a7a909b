//! How much of a change happens without a person, and what a person does by hand.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validate::Validator;

/// Most steps by hand, and most batches skipped, of one change.
const MAX_BY_HAND: usize = 1000;

/// How much happens without a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// A person names each instance.
    L0,
    /// It plans and observes; nothing is done.
    L1,
    /// A person approves each batch.
    L2,
    /// Blocks by itself; a person decides what then.
    L3,
    /// Blocks and rolls back by itself.
    #[default]
    L4,
    /// Likewise, and what it brings was picked by a train.
    L5,
}

impl Level {
    /// What happens without a person, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Level::L0 => "a person names each instance, the engine changes, watches and judges it",
            Level::L1 => "it plans, checks and observes; nothing is done",
            Level::L2 => "a person approves each batch",
            Level::L3 => "it goes on by itself and blocks on harm; a person decides then",
            Level::L4 => "it goes on, blocks, and rolls back by itself",
            Level::L5 => "a train picked what it brings; it goes on, blocks, and rolls back by itself",
        }
    }

    /// Harm is undone without asking.
    pub fn rolls_back(self) -> bool {
        self >= Level::L4
    }
}

/// Something a person wants done to one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManualStep {
    /// Which one.
    pub instance: String,
    /// What.
    #[serde(default)]
    pub way: Way,
}

/// Which way an instance goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Way {
    /// It is changed, as a batch of its own. At level L0 only: at the others the plan says who goes when.
    #[default]
    Forward,
    /// It goes back to what it had, and leaves the change. At any level.
    Back,
}

/// The level that a change runs at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EffectiveLevel {
    /// The one it asks for, or the one it is held to.
    pub level: Level,
    /// Why it is not what the change asks for; empty: it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held_by: String,
}

pub(super) fn validate_by_hand(v: &mut Validator, steps: &[ManualStep], skipped: &[u32]) {
    v.require(steps.len() <= MAX_BY_HAND, "steps", "at most 1000; what is wanted of more is a level above L0");
    v.each("steps", steps, |v, step| v.name("instance", &step.instance));
    v.require(skipped.len() <= MAX_BY_HAND, "skippedBatches", "at most 1000");
    v.require(skipped.iter().all(|number| *number > 0), "skippedBatches", "batches are numbered from 1");
}
