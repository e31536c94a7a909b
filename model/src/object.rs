//! The envelope of every resource: untyped ([`Object`]) and typed ([`Resource`]).

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Invalid;
use crate::kind::Kind;
use crate::meta::Metadata;
use crate::parse;
use crate::validate::Validator;

/// The one API version.
pub const API_VERSION: &str = "weir.dev/v1";

/// A resource whose spec and status are still JSON; what the store keeps and the API speaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Which kind.
    pub kind: Kind,
    /// Name, labels, versions.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default)]
    pub spec: Value,
    /// What is observed; written by controllers only.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

impl Object {
    /// Kind and name.
    pub fn key(&self) -> Key {
        Key::new(self.kind, &self.metadata.name)
    }

    /// Checks the envelope, the spec and the status against the kind's type and rules.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.canonical().map(drop)
    }

    /// Checks like [`Object::validate`], and returns the canonical form: what was left out is filled in with its
    /// default, so that two objects that mean the same are equal. Kinds without a status keep none.
    pub fn canonical(&self) -> Result<Object, Invalid> {
        match self.kind {
            Kind::App => canonical::<crate::AppSpec>(self),
            Kind::Unit => canonical::<crate::UnitSpec>(self),
            Kind::Instance => canonical::<crate::InstanceSpec>(self),
            Kind::Route => canonical::<crate::RouteSpec>(self),
            Kind::Workload => canonical::<crate::WorkloadSpec>(self),
            Kind::Freeze => canonical::<crate::FreezeSpec>(self),
            Kind::Change => canonical::<crate::ChangeSpec>(self),
            Kind::ChangePolicy => canonical::<crate::ChangePolicySpec>(self),
            Kind::ChangeRecord => canonical::<crate::ChangeRecordSpec>(self),
            Kind::Release => canonical::<crate::ReleaseSpec>(self),
            Kind::Encryption => canonical::<crate::EncryptionSpec>(self),
            Kind::ReleaseTrain => canonical::<crate::ReleaseTrainSpec>(self),
            Kind::Check => canonical::<crate::CheckSpec>(self),
            Kind::Slo => canonical::<crate::SloSpec>(self),
            Kind::Token => canonical::<crate::TokenSpec>(self),
        }
    }
}

fn canonical<S: Spec>(object: &Object) -> Result<Object, Invalid> {
    let resource = Resource::<S>::try_from(object.clone())?;
    let mut validator = Validator::new();
    validator.name("metadata.name", &resource.metadata.name);
    validator.labels("metadata.labels", &resource.metadata.labels);
    validator.within("spec", |v| resource.spec.validate(v));
    validator.finish()?;
    let mut object = resource.to_object();
    if object.status.as_object().is_some_and(serde_json::Map::is_empty) {
        object.status = Value::Null;
    }
    Ok(object)
}

/// Kind and name: what a resource is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Which kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, name: impl Into<String>) -> Key {
        Key { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name().to_ascii_lowercase(), self.name)
    }
}

/// What a kind's spec must offer.
pub trait Spec:
    Serialize + DeserializeOwned + JsonSchema + Clone + fmt::Debug + PartialEq + Send + Sync + 'static
{
    /// The kind.
    const KIND: Kind;
    /// What is observed of it.
    type Status: Serialize
        + DeserializeOwned
        + JsonSchema
        + Clone
        + Default
        + fmt::Debug
        + PartialEq
        + Send
        + Sync
        + 'static;

    /// The rules beyond types. Paths are relative to the spec.
    fn validate(&self, v: &mut Validator);
}

/// Status of kinds that have none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoStatus {}

/// A resource of a known kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<S: Spec> {
    /// Name, labels, versions.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
    /// What is observed.
    pub status: S::Status,
}

impl<S: Spec> Resource<S> {
    /// A new resource with an empty status.
    pub fn new(name: impl Into<String>, spec: S) -> Resource<S> {
        Resource { metadata: Metadata::named(name), spec, status: S::Status::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Kind and name.
    pub fn key(&self) -> Key {
        Key::new(S::KIND, &self.metadata.name)
    }

    /// The untyped form.
    pub fn to_object(&self) -> Object {
        let json = |v: Result<Value, serde_json::Error>| v.expect("resource types serialise to JSON");
        Object {
            api_version: API_VERSION.to_owned(),
            kind: S::KIND,
            metadata: self.metadata.clone(),
            spec: json(serde_json::to_value(&self.spec)),
            status: json(serde_json::to_value(&self.status)),
        }
    }
}

impl<S: Spec> From<Resource<S>> for Object {
    fn from(resource: Resource<S>) -> Object {
        resource.to_object()
    }
}

impl<S: Spec> TryFrom<Object> for Resource<S> {
    type Error = Invalid;

    fn try_from(object: Object) -> Result<Resource<S>, Invalid> {
        if object.kind != S::KIND {
            return Err(Invalid::one("kind", format!("is {}, wanted {}", object.kind, S::KIND)));
        }
        let status =
            if object.status.is_null() { Ok(S::Status::default()) } else { parse::typed("status", object.status) };
        // Left out, a spec is all defaults, or its missing fields are told by name.
        let spec = if object.spec.is_null() { Value::Object(serde_json::Map::new()) } else { object.spec };
        Ok(Resource { metadata: object.metadata, spec: parse::typed("spec", spec)?, status: status? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{App, AppSpec, UnitSpec};

    #[test]
    fn typed_and_untyped_are_the_same() {
        let app = App::new("stock", AppSpec { tier: 1, ..AppSpec::default() });
        let object = app.to_object();
        assert_eq!(object.key().to_string(), "app/stock");
        assert_eq!(App::try_from(object.clone()).unwrap(), app);
        let other = Resource::<UnitSpec>::try_from(object).unwrap_err();
        assert_eq!(other.to_string(), "kind: is App, wanted Unit");
    }

    #[test]
    fn what_means_the_same_has_one_canonical_form() {
        let object = |spec: Value| Object { spec, ..App::new("stock", AppSpec::default()).to_object() };
        let canonical = object(json!({})).canonical().unwrap();
        assert_eq!(canonical, object(json!({"protocol": "http1", "tier": 3})).canonical().unwrap());
        assert_eq!(canonical, canonical.canonical().unwrap());
        assert_eq!(canonical.spec["timeoutMs"], 15_000);
    }

    #[test]
    fn rules_hold_for_the_envelope_and_the_spec() {
        let object = App::new("Stock", AppSpec { tier: 0, ..AppSpec::default() }).to_object();
        let paths: Vec<String> = object.validate().unwrap_err().0.into_iter().map(|e| e.path).collect();
        assert_eq!(paths, ["metadata.name", "spec.tier"]);
    }
}
