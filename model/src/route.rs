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
    /// Labels that the request carries in W3C `baggage`, whatever its protocol, and their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
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

/// Most rules of a Route.
const MAX_RULES: usize = 1000;
/// Most of anything else in one place: matches, backends, headers.
const MAX_LIST: usize = 64;
/// Most labels of a match: each is an expression in the proxy.
const MAX_LABELS: usize = 16;
/// Longest label, name and value together.
const MAX_LABEL_TEXT: usize = 256;
/// Longest path, expression or value.
const MAX_TEXT: usize = 4096;
/// Largest compiled expression in bytes.
const MAX_EXPRESSION: usize = 1 << 20;

/// All routing rules of an app reach its callers as one table, and a proxy that can't take a table keeps the one before.
/// So whatever some proxy would refuse is refused here, where the person who wrote it is told; else one bad rule would
/// hold up every later change of the app's routes.
impl Spec for RouteSpec {
    const KIND: Kind = Kind::Route;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.name("app", &self.app);
        v.require(self.rules.len() <= MAX_RULES, "rules", "at most 1000 rules; split the Route");
        v.require(self.hostnames.len() <= MAX_LIST, "hostnames", "at most 64");
        v.each("hostnames", &self.hostnames, |v, hostname| check_hostname(v, hostname));
        v.each("rules", &self.rules, |v, rule| rule.validate(v));
    }
}

impl Rule {
    fn validate(&self, v: &mut Validator) {
        self.validate_backends(v);
        v.require(self.matches.len() <= MAX_LIST, "matches", "at most 64; use several rules");
        v.each("matches", &self.matches, |v, m| m.validate(v));
        v.require(self.retry.as_ref().is_none_or(|r| r.attempts <= 10), "retry.attempts", "at most 10");
        v.require(self.set_headers.len() <= MAX_LIST, "setHeaders", "at most 64");
        for (name, value) in &self.set_headers {
            check_edited_header(v, "setHeaders", name);
            v.require(is_header_value(value), "setHeaders", "values are visible characters, spaces and tabs");
        }
        v.require(self.remove_headers.len() <= MAX_LIST, "removeHeaders", "at most 64");
        self.remove_headers.iter().for_each(|name| check_edited_header(v, "removeHeaders", name));
    }

    fn validate_backends(&self, v: &mut Validator) {
        v.require(!self.backends.is_empty(), "backends", "must name at least one app");
        v.require(self.backends.len() <= MAX_LIST, "backends", "at most 64");
        let weight: u64 = self.backends.iter().map(|b| u64::from(b.weight)).sum();
        v.require(self.backends.is_empty() || weight > 0, "backends", "at least one weight must be above 0");
        v.require(weight <= u64::from(u32::MAX), "backends", "the weights must add up to less than 2^32");
        v.each("backends", &self.backends, |v, backend| {
            v.name("app", &backend.app);
            if !backend.group.is_empty() {
                v.name("group", &backend.group);
            }
        });
    }
}

impl RouteMatch {
    fn validate(&self, v: &mut Validator) {
        if let Some(path) = &self.path {
            v.within("path", |v| path.validate(v));
        }
        let is_method = |m: &String| !m.is_empty() && m.len() <= MAX_LIST && is_token(m);
        v.require(self.method.as_ref().is_none_or(is_method), "method", "must be a method, such as GET");
        v.require(self.headers.len() <= MAX_LIST, "headers", "at most 64");
        v.each("headers", &self.headers, |v, header| {
            v.require(is_token(&header.name), "name", "must be a header's name");
            header.validate(v);
        });
        v.require(self.labels.len() <= MAX_LABELS, "labels", "at most 16");
        for (name, value) in &self.labels {
            v.require(
                is_token(name),
                "labels",
                "names are those of baggage members: letters, digits, -_. and the like",
            );
            v.require(name.len() + value.len() <= MAX_LABEL_TEXT, "labels", "a name and its value: at most 256 bytes");
        }
        v.require(self.query_params.len() <= MAX_LIST, "queryParams", "at most 64");
        v.each("queryParams", &self.query_params, |v, parameter| {
            v.require(!parameter.name.is_empty(), "name", "must not be empty");
            v.require(parameter.name.len() <= MAX_TEXT, "name", "at most 4096 characters");
            parameter.validate(v);
        });
    }
}

impl PathMatch {
    fn validate(&self, v: &mut Validator) {
        v.require(self.value.len() <= MAX_TEXT, "value", "at most 4096 characters");
        if self.r#type == PathMatchType::RegularExpression {
            return check_expression(v, &self.value);
        }
        v.require(self.value.starts_with('/'), "value", "must begin with '/'");
        let plain = self.value.chars().all(|c| c.is_ascii_graphic() && c != '?' && c != '#');
        v.require(plain, "value", "must be a path as it is sent: percent-encoded, without query or fragment");
    }
}

impl ValueMatch {
    fn validate(&self, v: &mut Validator) {
        v.require(self.value.len() <= MAX_TEXT, "value", "at most 4096 characters");
        match self.r#type {
            ValueMatchType::RegularExpression => check_expression(v, &self.value),
            ValueMatchType::Exact => {
                v.require(is_header_value(&self.value), "value", "must not have control characters")
            }
            ValueMatchType::Present => {}
        }
    }
}

fn check_expression(v: &mut Validator, expression: &str) {
    v.require(!expression.is_empty(), "value", "must not be empty");
    if let Err(error) = regex::RegexBuilder::new(expression).size_limit(MAX_EXPRESSION).build() {
        v.error("value", format!("is no regular expression (RE2's syntax): {error}"));
    }
}

/// `example.com`, or `*.example.com`.
fn check_hostname(v: &mut Validator, hostname: &str) {
    if hostname == "*" {
        return v.error_with_hint("", "stands for any host", "leave hostnames empty for that");
    }
    v.name("", hostname.strip_prefix("*.").unwrap_or(hostname));
}

/// Proxies refuse to edit what routes a request.
fn check_edited_header(v: &mut Validator, field: &str, name: &str) {
    if !is_token(name) {
        v.error(field, format!("{name:?} is no header's name"));
    } else if name.eq_ignore_ascii_case("host") {
        v.error(field, "the host can't be changed");
    }
}

/// A token of RFC 9110, 5.6.2: what header names and methods are made of.
fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(legal)
}

fn is_header_value(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.chars().all(|c| c == '\t' || !c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(app: &str) -> Backend {
        Backend { app: app.to_owned(), group: String::new(), weight: 1 }
    }

    fn errors(change: impl FnOnce(&mut RouteSpec)) -> Vec<String> {
        let rule = Rule { matches: vec![RouteMatch::default()], backends: vec![to("stock")], ..Rule::default() };
        let mut spec = RouteSpec { app: "stock".to_owned(), hostnames: Vec::new(), rules: vec![rule] };
        change(&mut spec);
        let mut v = Validator::new();
        spec.validate(&mut v);
        v.finish().err().map(|invalid| invalid.0.into_iter().map(|e| e.path).collect()).unwrap_or_default()
    }

    fn path(r#type: PathMatchType, value: &str) -> Option<PathMatch> {
        Some(PathMatch { r#type, value: value.to_owned() })
    }

    fn header(r#type: ValueMatchType, name: &str, value: &str) -> ValueMatch {
        ValueMatch { r#type, name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn what_proxies_take_is_taken() {
        let taken = errors(|spec| {
            spec.hostnames = vec!["a.example.com".into(), "*.example.com".into()];
            let rule = &mut spec.rules[0];
            rule.set_headers.insert("x-lane".into(), "gray, \u{5830}".into());
            rule.remove_headers.push("x-debug".into());
            rule.matches[0].method = Some("GET".into());
            rule.matches[0].path = path(PathMatchType::RegularExpression, "/items/[0-9]+");
            rule.matches[0].headers.push(header(ValueMatchType::RegularExpression, "x-user", "a.*"));
            rule.matches[0].query_params.push(header(ValueMatchType::Present, "q[]", ""));
            rule.matches[0].labels.insert("lane".into(), "\u{5830} gray".into());
        });
        assert_eq!(taken, Vec::<String>::new());
    }

    #[test]
    fn what_a_proxy_would_refuse_is_refused_with_its_place() {
        type Change = fn(&mut RouteSpec);
        let refused: [(&str, Change); 13] = [
            ("rules[0].matches[0].labels", |s| drop(s.rules[0].matches[0].labels.insert("a b".into(), "1".into()))),
            ("hostnames[0]", |s| s.hostnames.push("Upper.example".into())),
            ("hostnames[0]", |s| s.hostnames.push("*".into())),
            ("hostnames[0]", |s| s.hostnames.push("a.*.example".into())),
            ("rules[0].backends", |s| s.rules[0].backends.clear()),
            ("rules[0].backends", |s| s.rules[0].backends = vec![Backend { weight: u32::MAX, ..to("a") }, to("b")]),
            ("rules[0].backends[0].group", |s| s.rules[0].backends[0].group = "a|b".into()),
            ("rules[0].matches[0].path.value", |s| {
                s.rules[0].matches[0].path = path(PathMatchType::RegularExpression, "/(a");
            }),
            ("rules[0].matches[0].path.value", |s| s.rules[0].matches[0].path = path(PathMatchType::Exact, "/a?b=c")),
            ("rules[0].matches[0].headers[0].name", |s| {
                s.rules[0].matches[0].headers.push(header(ValueMatchType::Exact, "x y", "1"));
            }),
            ("rules[0].matches[0].headers[0].value", |s| {
                s.rules[0].matches[0].headers.push(header(ValueMatchType::RegularExpression, "x", "(?=a)"));
            }),
            ("rules[0].setHeaders", |s| drop(s.rules[0].set_headers.insert("x".into(), "a\r\nb: c".into()))),
            ("rules[0].removeHeaders", |s| s.rules[0].remove_headers.push("Host".into())),
        ];
        for (place, change) in refused {
            assert_eq!(errors(change), [place]);
        }
    }
}
