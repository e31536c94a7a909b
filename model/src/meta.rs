//! Metadata, conditions and authors.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every resource has besides its spec and status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Unique among its kind: lower-case letters, digits, `-` and `.`, at most 253 characters.
    pub name: String,
    /// Labels, for selection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Set by the store: tells this object from a later one of the same name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Set by the store: grows with every write in the whole store; an update must name the one it has read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resource_version: u64,
    /// Set by the store: grows when the spec changes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Set by the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

impl Metadata {
    /// Metadata with only a name.
    pub fn named(name: impl Into<String>) -> Metadata {
        Metadata { name: name.into(), ..Metadata::default() }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// One aspect of a resource's state, as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Which aspect, e.g. `Unpublished`.
    pub r#type: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: Timestamp,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known.
    Unknown,
}

/// Sets a condition; the transition time moves only when the status changes. True if anything changed.
pub fn set_condition(conditions: &mut Vec<Condition>, new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|c| c.r#type == new.r#type) else {
        conditions.push(new);
        return true;
    };
    let since = if old.status == new.status { old.last_transition_time } else { new.last_transition_time };
    let new = Condition { last_transition_time: since, ..new };
    let changed = *old != new;
    *old = new;
    changed
}

/// True if the condition is there and holds.
pub fn holds(conditions: &[Condition], r#type: &str) -> bool {
    conditions.iter().any(|c| c.r#type == r#type && c.status == ConditionStatus::True)
}

/// Who writes, and why. Every write has one; it ends in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Author {
    /// A user (`user/alice`) or a controller (`controller/change`).
    pub actor: String,
    /// In words.
    pub reason: String,
}

impl Author {
    /// An author from its parts.
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Author {
        Author { actor: actor.into(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: ConditionStatus, reason: &str, second: i64) -> Condition {
        let last_transition_time = Timestamp::from_second(second).unwrap();
        Condition {
            r#type: "Alive".into(),
            status,
            reason: reason.into(),
            message: String::new(),
            last_transition_time,
        }
    }

    #[test]
    fn a_transition_time_moves_with_the_status_only() {
        let mut conditions = Vec::new();
        assert!(set_condition(&mut conditions, condition(ConditionStatus::True, "A", 1)));
        assert!(!set_condition(&mut conditions, condition(ConditionStatus::True, "A", 2)), "nothing changed");
        assert!(set_condition(&mut conditions, condition(ConditionStatus::True, "B", 3)));
        assert_eq!(conditions[0].last_transition_time.as_second(), 1);
        assert!(set_condition(&mut conditions, condition(ConditionStatus::False, "B", 4)));
        assert_eq!((conditions.len(), conditions[0].last_transition_time.as_second()), (1, 4));
        assert!(!holds(&conditions, "Alive") && !holds(&conditions, "Other"));
    }
}
