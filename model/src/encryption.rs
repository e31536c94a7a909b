//! Encryption: whether calls of an app are TLS, switched at runtime.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::meta::Condition;
use crate::object::{Resource, Spec};
use crate::validate::Validator;

/// Whether calls of one app are TLS.
pub type Encryption = Resource<EncryptionSpec>;

/// Condition: what is wanted is what is so; else the message names who holds it up.
pub const MODE_EFFECTIVE: &str = "ModeEffective";
/// Condition: every instance of the app holds a certificate in use.
pub const INSTANCES_READY: &str = "InstancesReady";
/// Condition: every caller of the app can do TLS.
pub const CALLERS_CAPABLE: &str = "CallersCapable";

/// What is wanted of calls of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionSpec {
    /// The app called. Where several Encryptions name the same app, the one whose name sorts first holds.
    pub app: String,
    /// How far to go.
    #[serde(default)]
    pub mode: EncryptionMode,
}

/// How far encryption goes; each is one step from its neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncryptionMode {
    /// Callers speak plaintext; servers still answer those that speak TLS.
    #[default]
    Disabled,
    /// Callers that can speak TLS to the instances that can; the others speak plaintext, and are answered.
    Permissive,
    /// As permissive, and servers refuse plaintext.
    Strict,
}

impl EncryptionMode {
    /// The next step from here towards `wanted`: never over a mode in between.
    pub fn step_towards(self, wanted: EncryptionMode) -> EncryptionMode {
        use EncryptionMode::*;
        match (self, wanted) {
            _ if self == wanted => self,
            (Disabled | Strict, _) => Permissive,
            (Permissive, _) => wanted,
        }
    }

    /// As in YAML.
    pub fn name(self) -> &'static str {
        match self {
            EncryptionMode::Disabled => "disabled",
            EncryptionMode::Permissive => "permissive",
            EncryptionMode::Strict => "strict",
        }
    }
}

/// What is observed of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EncryptionStatus {
    /// The spec's generation this was observed of.
    pub observed_generation: u64,
    /// What servers and callers do now.
    pub effective_mode: EncryptionMode,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_since: Option<Timestamp>,
    /// Instances of the app.
    pub instances: Readiness,
    /// Proxies and programs that call the app.
    pub callers: Readiness,
    /// Aspects: [`MODE_EFFECTIVE`], [`INSTANCES_READY`], [`CALLERS_CAPABLE`].
    pub conditions: Vec<Condition>,
    /// What happens, in a sentence.
    pub message: String,
}

/// How many can, and who can't.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Readiness {
    /// Of how many.
    pub total: usize,
    /// So many can.
    pub ready: usize,
    /// Those that can't, by name with the reason; the first [`MAX_NAMED`] only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_ready: BTreeMap<String, String>,
}

/// Most that are named in [`Readiness::not_ready`].
pub const MAX_NAMED: usize = 20;

impl Spec for EncryptionSpec {
    const KIND: Kind = Kind::Encryption;
    type Status = EncryptionStatus;

    fn validate(&self, v: &mut Validator) {
        v.name("app", &self.app);
    }
}

#[cfg(test)]
mod tests {
    use super::EncryptionMode::*;

    #[test]
    fn no_mode_is_jumped_over() {
        let steps = |from, to| super::EncryptionMode::step_towards(from, to);
        assert_eq!(steps(Disabled, Strict), Permissive);
        assert_eq!(steps(Strict, Disabled), Permissive);
        assert_eq!(steps(Permissive, Strict), Strict);
        assert_eq!(steps(Permissive, Disabled), Disabled);
        assert!([Disabled, Permissive, Strict].into_iter().all(|mode| steps(mode, mode) == mode));
    }
}
