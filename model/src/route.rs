//! Route: how requests to an app are routed. The shape is that of the Kubernetes Gateway API's HTTPRoute.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// Routing rules of an app.
pub type Route = Resource<RouteSpec>;

/// Rules for requests that callers send to `app`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// The app called.
    pub app: String,
    /// Only for these hosts (`orders.example.com`, `*.example.com`); empty: any.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The first rule that matches decides; none: the app itself.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Any of these; empty: every request.
    pub matches: Vec<RouteMatch>,
    /// Where to, by weight.
    pub backends: Vec<Backend>,
    /// Longest time for the whole request (milliseconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetry>,
    /// Request headers to set.
    pub set_headers: BTreeMap<String, String>,
    /// Request headers to remove.
    pub remove_headers: Vec<String>,
}

/// All of its parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteMatch {
    /// Path without the query; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Exact, e.g. `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers.
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    pub query_params: Vec<ValueMatch>,
}

/// How the path is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How.
    pub r#type: PathMatchType,
    /// With what.
    pub value: String,
}

/// Ways to compare a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole segments: `/a` matches `/a/b`, not `/ab`.
    PathPrefix,
    /// The whole path matches the expression.
    RegularExpression,
}

/// A named value and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// How.
    #[serde(default)]
    pub r#type: ValueMatchType,
    /// Name of the header or parameter.
    pub name: String,
    /// With what.
    #[serde(default)]
    pub value: String,
}

/// Ways to compare a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// Equal.
    #[default]
    Exact,
    /// The whole value matches the expression.
    RegularExpression,
    /// It is there, whatever its value.
    Present,
}

/// An app, or the part of its instances that carry some labels, and its share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// The app.
    pub app: String,
    /// Only its instances of this group; empty: all.
    #[serde(default)]
    pub group: String,
    /// Share relative to the rule's other backends.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// When and how often to try again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteRetry {
    /// Further attempts after the first.
    pub attempts: u32,
    /// Also when the connection broke before an answer; idempotent methods only.
    pub on_reset: bool,
    /// Also on 502, 503 and 504; idempotent methods only.
    pub on_gateway_error: bool,
    /// Time for each attempt (milliseconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout_ms: Option<u64>,
}

impl Default for RouteRetry {
    fn default() -> Self {
        RouteRetry { attempts: 1, on_reset: true, on_gateway_error: false, per_try_timeout_ms: None }
    }
}

impl Spec for RouteSpec {
    const KIND: Kind = Kind::Route;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.name("app", &self.app);
        v.require(self.rules.len() <= 1000, "rules", "at most 1000 rules; split the Route");
        v.each("rules", &self.rules, |v, rule| rule.validate(v));
    }
}

impl Rule {
    fn validate(&self, v: &mut Validator) {
        v.require(!self.backends.is_empty(), "backends", "must name at least one app");
        let weight: u64 = self.backends.iter().map(|b| u64::from(b.weight)).sum();
        v.require(self.backends.is_empty() || weight > 0, "backends", "at least one weight must be above 0");
        v.each("backends", &self.backends, |v, backend| v.name("app", &backend.app));
        v.each("matches", &self.matches, |v, m| m.validate(v));
        v.require(self.retry.as_ref().is_none_or(|r| r.attempts <= 10), "retry.attempts", "at most 10");
    }
}

impl RouteMatch {
    fn validate(&self, v: &mut Validator) {
        if let Some(path) = &self.path {
            let rooted = path.r#type == PathMatchType::RegularExpression || path.value.starts_with('/');
            v.require(rooted, "path.value", "must begin with '/'");
        }
        v.each("headers", &self.headers, |v, h| v.require(!h.name.is_empty(), "name", "must not be empty"));
        v.each("queryParams", &self.query_params, |v, q| v.require(!q.name.is_empty(), "name", "must not be empty"));
    }
}
