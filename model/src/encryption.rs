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
    /// Interfaces that are to go farther, or less far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceMode>,
}

/// How far to go with one interface of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterfaceMode {
    /// The path and what is below it; of SOFABolt and Dubbo `/SERVICE` or `/SERVICE/METHOD`. The longest that matches holds.
    pub path: String,
    /// `permissive` or `strict`.
    pub mode: EncryptionMode,
}

/// Most interfaces of one app.
pub const MAX_INTERFACES: usize = 100;
/// Longest path of an interface, in bytes.
const MAX_PATH: usize = 1000;

impl EncryptionSpec {
    /// The farthest that anything of the app is to go: by what callers speak all interfaces are alike.
    pub fn farthest(&self) -> EncryptionMode {
        farthest(self.mode, &self.interfaces)
    }
}

fn farthest(mode: EncryptionMode, interfaces: &[InterfaceMode]) -> EncryptionMode {
    interfaces.iter().map(|interface| interface.mode).chain([mode]).max().unwrap_or(mode)
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
    /// Interfaces of which servers do otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effective_interfaces: Vec<InterfaceMode>,
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

impl EncryptionStatus {
    /// The farthest that anything of the app goes.
    pub fn farthest(&self) -> EncryptionMode {
        farthest(self.effective_mode, &self.effective_interfaces)
    }

    /// It is so as is wanted.
    pub fn is_as_wanted(&self, spec: &EncryptionSpec) -> bool {
        let interfaces = if spec.farthest() == EncryptionMode::Strict { &spec.interfaces[..] } else { &[] };
        self.effective_mode == spec.mode && self.effective_interfaces == interfaces
    }
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
        v.require(self.interfaces.len() <= MAX_INTERFACES, "interfaces", "must be 100 at most");
        let disabled = self.mode == EncryptionMode::Disabled && !self.interfaces.is_empty();
        v.require(!disabled, "mode", "must be permissive or strict where interfaces have modes of their own");
        for (at, interface) in self.interfaces.iter().enumerate() {
            let path = &interface.path;
            let begins = path.len() > 1 && path.starts_with('/') && !path.ends_with('/');
            let plain = path.len() <= MAX_PATH && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
            let path_at = format!("interfaces[{at}].path");
            v.require(
                begins && plain,
                &path_at,
                "must begin with / and not end with it, e.g. /pay or /com.example.Pay:1.0",
            );
            let again = self.interfaces[..at].iter().any(|other| other.path == *path);
            v.require(!again, &path_at, "is there twice");
            let mode_at = format!("interfaces[{at}].mode");
            v.require(interface.mode != EncryptionMode::Disabled, &mode_at, "must be permissive or strict");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EncryptionMode::*;
    use super::*;

    fn spec(mode: EncryptionMode, interfaces: &[(&str, EncryptionMode)]) -> EncryptionSpec {
        let interface = |(path, mode): &(&str, EncryptionMode)| InterfaceMode { path: path.to_string(), mode: *mode };
        EncryptionSpec { app: "pay".into(), mode, interfaces: interfaces.iter().map(interface).collect() }
    }

    #[test]
    fn an_interface_may_go_farther_than_its_app() {
        assert_eq!(spec(Permissive, &[("/pay", Strict)]).farthest(), Strict);
        assert_eq!(spec(Strict, &[("/health", Permissive)]).farthest(), Strict);
        assert_eq!(spec(Disabled, &[]).farthest(), Disabled);
    }

    #[test]
    fn interfaces_are_checked() {
        let wrong = |mode, interfaces: &[_]| {
            Encryption::new("pay", spec(mode, interfaces)).to_object().validate().map_err(|e| e.0[0].path.clone())
        };
        assert_eq!(wrong(Permissive, &[("/com.example.Pay:1.0", Strict), ("/health", Permissive)]), Ok(()));
        assert_eq!(wrong(Disabled, &[("/pay", Strict)]), Err("spec.mode".into()));
        assert_eq!(wrong(Strict, &[("/pay", Disabled)]), Err("spec.interfaces[0].mode".into()));
        for path in ["pay", "/", "/pay/", "/pay?x", ""] {
            assert_eq!(wrong(Strict, &[(path, Permissive)]), Err("spec.interfaces[0].path".into()), "{path}");
        }
        assert_eq!(wrong(Strict, &[("/a", Strict), ("/a", Permissive)]), Err("spec.interfaces[1].path".into()));
    }

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
