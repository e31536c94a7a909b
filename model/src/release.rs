//! Release: a version of a component, where its artifact is, and what it must hash to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// Most commits a Release lists.
pub const MAX_COMMITS: usize = 500;

/// A version of a component.
pub type Release = Resource<ReleaseSpec>;

/// Where a version's artifact is and how it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseSpec {
    /// What it is a version of.
    pub component: Component,
    /// The version, unique within the component.
    pub version: String,
    /// Path of the executable.
    pub path: String,
    /// SHA-256 of the executable in hex; checked before each start where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Further arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Further environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Commit it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When that commit was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<Timestamp>,
    /// What went into it since the build before: commits with their subjects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<String>,
    /// The build that made it, e.g. its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// What its tests said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestResults>,
    /// It must not be brought anywhere any more, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestResults {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
}

/// What a release is a version of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Component {
    /// The sidecar proxy.
    Proxy,
    /// An application, by the name of its App.
    App(String),
}

impl ReleaseSpec {
    /// A version whose executable lies at `path`; nothing else is known of it.
    pub fn new(component: Component, version: impl Into<String>, path: impl Into<String>) -> ReleaseSpec {
        ReleaseSpec {
            component,
            version: version.into(),
            path: path.into(),
            sha256: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            commit: None,
            committed_at: None,
            commits: Vec::new(),
            build: None,
            tests: None,
            withdrawn: None,
        }
    }
}

impl Spec for ReleaseSpec {
    const KIND: Kind = Kind::Release;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.require(!self.version.is_empty(), "version", "must not be empty");
        v.range("commits", self.commits.len(), 0, MAX_COMMITS);
        v.require(self.path.starts_with('/'), "path", "must be absolute");
        let hex = |s: &String| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
        v.require(self.sha256.as_ref().is_none_or(hex), "sha256", "must be 64 hexadecimal digits");
    }
}
