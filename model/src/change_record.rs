//! ChangeRecord: what one step of a change did, written once and kept as long as the change is.
//!
//! A change over hundreds of thousands of instances cannot name them all in its status. The status says where the change
//! stands; its records say who: each is a step's part of the log from which the engine reads back, after a crash, which
//! instances were let go and what they ran before. The same log is the change's history for people.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::change::ChangeStatus;
use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// Label of a record: the name of its change.
pub const CHANGE_LABEL: &str = "weir.dev/change";

/// Number, among batches, under which the way back is recorded.
pub const WAY_BACK: u32 = 0;

/// A part of a step of a change; its name is the change's uid and its number.
pub type ChangeRecord = Resource<ChangeRecordSpec>;

/// What was written down before it was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeRecordSpec {
    /// Name of the change.
    pub change: String,
    /// From 1, without gaps.
    pub number: u64,
    /// Number of the step's first record: a step that names very many instances takes several.
    pub first: u64,
    /// When.
    pub at: Timestamp,
    /// What became of instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// The rest of the step, in its last record. Records of a step that has no last one, since the control plane died,
    /// count for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Box<StepRecord>>,
}

/// What a step did besides the instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepRecord {
    /// What happened, in words; the events of the change are made from these.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// The change's status after it, with those batches only that have begun and were touched by the step.
    pub status: ChangeStatus,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Note {
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// It calls for attention.
    #[serde(default)]
    pub warning: bool,
}

/// What became of instances. `batch` is a batch's number, or [`WAY_BACK`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fact {
    /// They are in the batch, in the order in which they go, and want this version before it.
    #[serde(rename_all = "camelCase")]
    Planned {
        /// Which batch.
        batch: u32,
        /// It begins: what was recorded of a batch of this number before counts no more.
        fresh: bool,
        /// The version wanted of them before.
        previous: String,
        /// Who.
        instances: Vec<String>,
    },
    /// They are taken out of the batch before their turn, and planned again later.
    #[serde(rename_all = "camelCase")]
    Deferred {
        /// Which batch.
        batch: u32,
        /// Who.
        instances: Vec<String>,
    },
    /// They are let go; their spec is written only after this.
    #[serde(rename_all = "camelCase")]
    LetGo {
        /// Which batch.
        batch: u32,
        /// When.
        at: Timestamp,
        /// Who.
        instances: Vec<String>,
    },
    /// They were seen serving with the version wanted.
    #[serde(rename_all = "camelCase")]
    Back {
        /// Which batch.
        batch: u32,
        /// Since when.
        at: Timestamp,
        /// Who.
        instances: Vec<String>,
    },
    /// They were back and do not serve any more.
    #[serde(rename_all = "camelCase")]
    Lost {
        /// Which batch.
        batch: u32,
        /// Since when.
        at: Timestamp,
        /// Who.
        instances: Vec<String>,
    },
    /// They were lost and serve again.
    #[serde(rename_all = "camelCase")]
    Found {
        /// Which batch.
        batch: u32,
        /// Who.
        instances: Vec<String>,
    },
    /// They left the change, and why.
    #[serde(rename_all = "camelCase")]
    Left {
        /// Why, by name.
        reasons: BTreeMap<String, String>,
    },
}

impl ChangeRecordSpec {
    /// Name of record `number` of the change with this uid; names sort as numbers do.
    pub fn name(uid: &str, number: u64) -> String {
        format!("{}{number:010}", ChangeRecordSpec::prefix(uid))
    }

    /// What the names of all records of the change with this uid begin with.
    pub fn prefix(uid: &str) -> String {
        format!("{uid}.")
    }
}

impl Spec for ChangeRecordSpec {
    const KIND: Kind = Kind::ChangeRecord;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.require(self.number > 0, "number", "must be at least 1");
        v.require((1..=self.number).contains(&self.first), "first", "must be a number up to this record's own");
    }
}
