//! Unit: a deployment unit, a cell of the fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// A deployment unit.
pub type Unit = Resource<UnitSpec>;

/// What is known of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UnitSpec {
    /// Where it is, in words.
    pub region: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// Changes reach canary units first.
    pub canary: bool,
}

impl Spec for UnitSpec {
    const KIND: Kind = Kind::Unit;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.each("zones", &self.zones, |v, zone| v.name("", zone));
    }
}
