//! Configuration that a change brings to proxies one by one before it is everybody's.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Invalid;
use crate::kind::Kind;
use crate::meta::Metadata;
use crate::object::{API_VERSION, Key, Object};
use crate::validate::Validator;

/// Kinds that shape what a proxy is told and that may be laid over what is stored, proxy by proxy.
pub const PUBLISHED_KINDS: [Kind; 2] = [Kind::App, Kind::Route];

/// Most resources of one change: each is looked at in every step.
pub const MAX_RESOURCES: usize = 64;

/// Most bytes of them as JSON: they are part of the change, which is stored at every step.
pub const MAX_RESOURCE_BYTES: usize = 128 << 10;

/// Longest revision.
const MAX_REVISION: usize = 63;

/// A resource as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigResource {
    /// `App` or `Route`.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its spec, whole.
    pub spec: Value,
}

/// A resource that is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigName {
    /// `App` or `Route`.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl ConfigResource {
    /// Kind and name.
    pub fn key(&self) -> Key {
        Key::new(self.kind, &self.name)
    }

    /// As the store would hold it, with an empty history.
    pub fn object(&self) -> Object {
        Object {
            api_version: API_VERSION.to_owned(),
            kind: self.kind,
            metadata: Metadata::named(&self.name),
            spec: self.spec.clone(),
            status: Value::Null,
        }
    }

    /// What it is to be, with every default filled in; two that mean the same are equal.
    ///
    /// # Errors
    /// What its kind does not allow.
    pub fn canonical(&self) -> Result<Value, Invalid> {
        Ok(self.object().canonical()?.spec)
    }
}

impl ConfigName {
    /// Kind and name.
    pub fn key(&self) -> Key {
        Key::new(self.kind, &self.name)
    }
}

/// How far a configuration is on its way into the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Publication {
    /// What the store held when the change began; anything else there now was written by somebody else.
    pub bases: Vec<Base>,
    /// Since when every proxy has it and it is written to the store; absent: not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What the store held of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Base {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its uid; empty: there was none.
    #[serde(default)]
    pub uid: String,
    /// Its generation.
    #[serde(default)]
    pub generation: u64,
}

impl Base {
    /// Kind and name.
    pub fn key(&self) -> Key {
        Key::new(self.kind, &self.name)
    }
}

/// A revision is compared and shown beside versions.
pub(super) fn validate_revision(v: &mut Validator, revision: &str) {
    v.name("revision", revision);
    v.require(revision.len() <= MAX_REVISION, "revision", "at most 63 characters");
}

/// Everything that a store or a proxy would refuse is refused here, before any proxy is told.
pub(super) fn validate_resources(v: &mut Validator, resources: &[ConfigResource], delete: &[ConfigName]) {
    let count = resources.len() + delete.len();
    v.require(count > 0, "resources", "must name at least one resource, here or under delete");
    v.require(count <= MAX_RESOURCES, "resources", "at most 64 resources; make several changes");
    let bytes: usize = resources.iter().map(|r| r.spec.to_string().len()).sum();
    v.require(bytes <= MAX_RESOURCE_BYTES, "resources", "more than 128 KiB; make several changes");
    let mut seen = BTreeSet::new();
    v.each("resources", resources, |v, resource| {
        validate_key(v, &resource.key(), &mut seen);
        if PUBLISHED_KINDS.contains(&resource.kind)
            && let Err(Invalid(errors)) = resource.object().validate()
        {
            errors.into_iter().for_each(|error| v.refuse(error));
        }
    });
    v.each("delete", delete, |v, name| validate_key(v, &name.key(), &mut seen));
}

/// Apps of which each has an Encryption of its own name.
pub(super) fn validate_apps(v: &mut Validator, apps: &[String]) {
    v.require(!apps.is_empty(), "apps", "must name at least one app");
    v.require(apps.len() <= MAX_RESOURCES, "apps", "at most 64 apps; make several changes");
    let mut seen = BTreeSet::new();
    v.each("apps", apps, |v, app| {
        v.name("", app);
        v.require(seen.insert(app.clone()), "", "is there twice");
    });
}

fn validate_key(v: &mut Validator, key: &Key, seen: &mut BTreeSet<Key>) {
    v.require(PUBLISHED_KINDS.contains(&key.kind), "kind", "must be App or Route");
    v.name("name", &key.name);
    v.require(seen.insert(key.clone()), "name", "is there twice");
}
