//! ChangePolicy: how much of a change may happen without a person, by what it touches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::change::Level;
use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// Longest reason.
const MAX_REASON: usize = 1024;
/// Most names in a list.
const MAX_LIST: usize = 10_000;

/// How far changes of some apps may go by themselves.
pub type ChangePolicy = Resource<ChangePolicySpec>;

/// A bound on levels. A change is held to the lowest of all policies that concern an instance in its scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangePolicySpec {
    /// The highest level at which a change may run that touches what this is about.
    pub max_level: Level,
    /// Why.
    pub reason: String,
    /// Apps of these tiers, 1 (most important) to 4; empty: of any.
    #[serde(default)]
    pub tiers: Vec<u8>,
    /// These apps; empty: any.
    #[serde(default)]
    pub apps: Vec<String>,
    /// Apps of these business lines; empty: any.
    #[serde(default)]
    pub lines: Vec<String>,
    /// In these units; empty: in any.
    #[serde(default)]
    pub units: Vec<String>,
}

impl ChangePolicySpec {
    /// It is about an instance of this app, business line, unit and tier.
    pub fn concerns(&self, app: &str, line: &str, unit: &str, tier: u8) -> bool {
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        let of_tier = self.tiers.is_empty() || self.tiers.contains(&tier);
        of_tier && named(&self.apps, app) && named(&self.lines, line) && named(&self.units, unit)
    }
}

impl Spec for ChangePolicySpec {
    const KIND: Kind = Kind::ChangePolicy;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        let told = !self.reason.trim().is_empty() && self.reason.len() <= MAX_REASON;
        v.require(told, "reason", "must say why, in at most 1024 bytes: whoever waits for it is told");
        v.require(self.tiers.iter().all(|tier| (1..=4).contains(tier)), "tiers", "must be from 1 to 4");
        for (field, list) in [("apps", &self.apps), ("lines", &self.lines), ("units", &self.units)] {
            v.require(list.len() <= MAX_LIST, field, "at most 10,000 names");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_that_is_given_must_hold() {
        let policy = ChangePolicySpec {
            max_level: Level::L2,
            reason: "payments".into(),
            tiers: vec![1],
            apps: Vec::new(),
            lines: vec!["pay".into()],
            units: Vec::new(),
        };
        assert!(policy.concerns("ledger", "pay", "east", 1));
        assert!(!policy.concerns("ledger", "pay", "east", 2));
        assert!(!policy.concerns("ledger", "shop", "east", 1));
    }
}
