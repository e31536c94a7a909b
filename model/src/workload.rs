//! Workload: how many instances of an app run in a unit, and from what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{Resource, Spec};
use crate::validate::Validator;

/// Most replicas of one workload.
pub const MAX_REPLICAS: u32 = 100_000;

/// How many instances of an app run in a unit.
pub type Workload = Resource<WorkloadSpec>;

/// What is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The app.
    pub app: String,
    /// The unit.
    pub unit: String,
    /// Zones that instances are spread over in turn; empty: one unnamed zone.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Group of its instances; empty: the default one.
    #[serde(default)]
    pub group: String,
    /// Technology stack.
    #[serde(default)]
    pub stack: String,
    /// How many.
    pub replicas: u32,
    /// Program and arguments; empty: none, only a proxy (a gateway). `{address}` and `{port}` (where it must listen),
    /// `{instance}` and `{upstream:APP}` are replaced.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment of the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Apps that its program calls.
    #[serde(default)]
    pub calls: Vec<String>,
    /// Release of the proxy for the first instances. Later ones take the version that all others have; where they
    /// differ this one, while anybody has it, or else that of most. Never one that a change under way still tries.
    pub proxy_version: String,
    /// Release of the application.
    #[serde(default)]
    pub app_version: String,
}

/// What is observed of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadStatus {
    /// The spec's generation this was observed of.
    pub observed_generation: u64,
    /// Instances there are.
    pub replicas: u32,
    /// Of those, serving.
    pub serving: u32,
    /// What happens or went wrong, in a sentence.
    pub message: String,
}

impl Spec for WorkloadSpec {
    const KIND: Kind = Kind::Workload;
    type Status = WorkloadStatus;

    fn validate(&self, v: &mut Validator) {
        v.name("app", &self.app);
        v.name("unit", &self.unit);
        v.range("replicas", self.replicas, 0, MAX_REPLICAS);
        v.require(!self.proxy_version.is_empty(), "proxyVersion", "must name a proxy Release");
    }
}
