//! Freeze: a protection window. While it is shut, nothing in its scope changes; suppression beats permission.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// A protection window.
pub type Freeze = Resource<FreezeSpec>;

/// When and for whom nothing may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FreezeSpec {
    /// Begins here; absent: always has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Ends here, exclusive; absent: until the Freeze is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Only these apps; empty: all.
    pub apps: Vec<String>,
    /// Only these units; empty: all.
    pub units: Vec<String>,
    /// Roll-backs wait too; otherwise a change that did harm may still be undone.
    pub roll_backs_too: bool,
    /// Why, for those who wait.
    pub reason: String,
}

impl FreezeSpec {
    /// True if instances of `app` in `unit` must not change at `now`.
    pub fn forbids(&self, app: &str, unit: &str, now: Timestamp) -> bool {
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
        let begun = self.from.is_none_or(|from| from <= now);
        let over = self.until.is_some_and(|until| until <= now);
        begun && !over && named(&self.apps, app) && named(&self.units, unit)
    }
}

impl Spec for FreezeSpec {
    const KIND: Kind = Kind::Freeze;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        let ordered = !matches!((self.from, self.until), (Some(from), Some(until)) if until <= from);
        v.require(ordered, "until", "must be after from");
        v.require(!self.reason.is_empty(), "reason", "must say why, for those who wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment in 1970")
    }

    #[test]
    fn it_holds_from_its_beginning_until_before_its_end() {
        let freeze = FreezeSpec { from: Some(at(10)), until: Some(at(20)), ..FreezeSpec::default() };
        let held = [9, 10, 19, 20].map(|second| freeze.forbids("order", "east", at(second)));
        assert_eq!(held, [false, true, true, false]);
    }

    #[test]
    fn it_holds_those_it_names() {
        let freeze = FreezeSpec { apps: vec!["order".into()], units: vec!["east".into()], ..FreezeSpec::default() };
        assert!(freeze.forbids("order", "east", at(0)));
        assert!(!freeze.forbids("stock", "east", at(0)) && !freeze.forbids("order", "west", at(0)));
        assert!(FreezeSpec::default().forbids("anything", "anywhere", at(0)));
    }
}
