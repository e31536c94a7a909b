//! Check: what is asked before an instance, a batch or a change goes on, and after a batch has changed.
//!
//! Those that come with Weir are listed in [`CATALOGUE`]; a resource of kind Check adds one of somebody's own. All have a
//! code, a severity and an answer in words, and most can be skipped for one change ([`Skip`]).

mod catalogue;

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

pub use catalogue::{CATALOGUE, Listed, listed};

/// Longest CEL expression or PromQL query, in bytes.
pub const MAX_EXPRESSION: usize = 2_048;
/// Longest interval, timeout or age, in seconds.
pub const MAX_SECONDS: u64 = 3_600;
/// Most skips of a change, and most answers that its status keeps.
pub const MAX_ANSWERS: usize = 64;
/// Longest reason of a skip, in characters.
const MAX_REASON: usize = 500;

/// A check of somebody's own.
pub type Check = Resource<CheckSpec>;

/// What is asked, when, and what follows from the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckSpec {
    /// What it makes sure of, for those who wait.
    pub meaning: String,
    /// When it is asked; `Instance` only with `cel`.
    #[serde(default = "before_batches")]
    pub at: Vec<At>,
    /// Only changes of these apps (that have one of them in scope); empty: every change.
    #[serde(default)]
    pub apps: Vec<String>,
    /// What an answer other than yes does.
    #[serde(default)]
    pub severity: Severity,
    /// How it is asked.
    pub ask: Ask,
    /// What a no means.
    #[serde(default)]
    pub otherwise: Otherwise,
    /// What holds where it can't be asked, or the answer can't be read.
    #[serde(default)]
    pub on_error: OnError,
    /// A PromQL query or an HTTP plugin is asked again after so long (seconds).
    #[serde(default = "ten")]
    pub interval_seconds: u64,
    /// Without an answer for so long (seconds), it could not be asked.
    #[serde(default = "five")]
    pub timeout_seconds: u64,
}

fn before_batches() -> Vec<At> {
    vec![At::Batch]
}

fn ten() -> u64 {
    10
}

fn five() -> u64 {
    5
}

/// How a check is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Ask {
    /// An expression in the Common Expression Language over the facts; true is a yes.
    Cel(String),
    /// A query to a Prometheus server.
    Promql(Promql),
    /// A plugin: facts go there as JSON, and its answer comes back.
    Http(Http),
}

/// An instant query, and what its samples must be. Every sample must hold; none at all is as if it could not be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Promql {
    /// Base URL of the server, e.g. `http://prometheus:9090`.
    pub server: String,
    /// The query; `$change`, `$version` and `$action` are replaced, escaped as in a quoted string.
    pub query: String,
    /// How a sample compares with `value` if all is well.
    pub op: Op,
    /// What samples are compared with.
    pub value: f64,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Op {
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or equal.
    #[serde(rename = "<=")]
    AtMost,
    /// Greater.
    #[serde(rename = ">")]
    Greater,
    /// Greater or equal.
    #[serde(rename = ">=")]
    AtLeast,
    /// Equal.
    #[serde(rename = "==")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
}

impl Op {
    /// True if `sample` compares so with `value`; what is no number never does.
    pub fn holds(self, sample: f64, value: f64) -> bool {
        match self {
            Op::Less => sample < value,
            Op::AtMost => sample <= value,
            Op::Greater => sample > value,
            Op::AtLeast => sample >= value,
            Op::Equal => sample == value,
            Op::NotEqual => !sample.is_nan() && sample != value,
        }
    }

    /// As it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Op::Less => "<",
            Op::AtMost => "<=",
            Op::Greater => ">",
            Op::AtLeast => ">=",
            Op::Equal => "==",
            Op::NotEqual => "!=",
        }
    }
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http {
    /// Where it is: `http://...`.
    pub url: String,
    /// Further headers, e.g. for authorisation.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// When a check is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum At {
    /// Before the first batch.
    Change,
    /// Before each batch.
    Batch,
    /// Before each instance is let go.
    Instance,
    /// After a batch has changed and baked, before it passes.
    After,
}

/// What an answer other than yes does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Holds what it is asked for.
    #[default]
    Required,
    /// Is told, and holds nothing.
    Advisory,
}

/// What a no means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Otherwise {
    /// Not yet: it is waited for.
    Wait,
    /// No: before a batch the change blocks until the answer is yes; after one the batch has failed.
    #[default]
    Fail,
}

/// What holds where a check can't be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnError {
    /// Nothing goes on until it can be asked (fail closed). It fails no batch: an answer that is not there is no harm.
    #[default]
    Closed,
    /// As if it had said yes (fail open).
    Open,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Said {
    /// All is well.
    Pass,
    /// Not yet.
    Wait,
    /// No.
    Fail,
}

/// What a check said of a change, as its status keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckAnswer {
    /// Which check.
    pub code: String,
    /// For what it was asked.
    pub at: At,
    /// What another answer than yes does.
    pub severity: Severity,
    /// The answer.
    pub said: Said,
    /// In words.
    pub message: String,
    /// Since when the answer has been this one.
    pub since: Timestamp,
    /// A person skips it for this change: it holds nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

impl CheckAnswer {
    /// It stands in the way.
    pub fn holds(&self) -> bool {
        self.said != Said::Pass && self.severity == Severity::Required && !self.skipped
    }
}

/// A person lets a change go on without an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skip {
    /// Why.
    pub reason: String,
    /// Who; set by the API to the one who writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
}

/// The code of a Check of this name: `no-incident` becomes `U-NO-INCIDENT`.
pub fn own_code(name: &str) -> String {
    format!("U-{}", name.to_ascii_uppercase())
}

/// Notes what is wrong with a change's skips.
pub(crate) fn validate_skips(v: &mut Validator, skips: &BTreeMap<String, Skip>) {
    v.range("skipChecks", skips.len(), 0, MAX_ANSWERS);
    for (code, skip) in skips {
        let field = format!("skipChecks.{code}");
        match listed(code) {
            Some(check) if !check.skippable => v.error(&field, format!("can't be skipped: {}", check.instead)),
            None if !code.starts_with("U-") => {
                v.error_with_hint(&field, "there is no such check", "`weir change checks` lists them");
            }
            _ => {}
        }
        let said = !skip.reason.trim().is_empty() && skip.reason.chars().count() <= MAX_REASON;
        v.require(said, &format!("{field}.reason"), "must say why, in at most 500 characters");
    }
}

impl Spec for CheckSpec {
    const KIND: Kind = Kind::Check;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.require(!self.meaning.trim().is_empty(), "meaning", "must say what it makes sure of");
        v.require(!self.at.is_empty(), "at", "must name when it is asked");
        v.each("apps", &self.apps, |v, app| v.name("", app));
        v.range("intervalSeconds", self.interval_seconds, 1, MAX_SECONDS);
        v.range("timeoutSeconds", self.timeout_seconds, 1, 60);
        let cel = matches!(self.ask, Ask::Cel(_));
        let each = self.at.contains(&At::Instance);
        v.require(cel || !each, "at", "Instance is for cel: nobody else is asked once per instance");
        match &self.ask {
            Ask::Cel(text) => expression(v, "ask.cel", text),
            Ask::Promql(promql) => {
                expression(v, "ask.promql.query", &promql.query);
                address(v, "ask.promql.server", &promql.server);
                v.require(promql.value.is_finite(), "ask.promql.value", "must be a number");
            }
            Ask::Http(http) => address(v, "ask.http.url", &http.url),
        }
    }
}

fn expression(v: &mut Validator, field: &str, text: &str) {
    v.require(!text.trim().is_empty(), field, "must not be empty");
    v.require(text.len() <= MAX_EXPRESSION, field, "must have at most 2048 bytes");
}

fn address(v: &mut Validator, field: &str, url: &str) {
    let plain = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    let legal = url.len() <= MAX_EXPRESSION && url.bytes().all(|b| b.is_ascii_graphic());
    v.require(plain && legal, field, "must be an http:// URL; for https put a proxy beside the control plane");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn check(ask: &str, more: &str) -> Result<Check, String> {
        let text = format!(
            "apiVersion: weir.dev/v1\nkind: Check\nmetadata: {{name: c}}\nspec:\n  meaning: m\n  ask: {ask}\n{more}"
        );
        let objects = parse::objects(&text).map_err(|e| e.to_string())?;
        objects.into_iter().next().ok_or("none")?.try_into().map_err(|e: crate::Invalid| e.to_string())
    }

    #[test]
    fn a_check_reads_as_people_write_it() {
        let read = check("{promql: {server: 'http://p:9090', query: up, op: '>=', value: 1}}", "").unwrap();
        assert_eq!((read.spec.at, read.spec.severity), (vec![At::Batch], Severity::Required));
        assert_eq!((read.spec.interval_seconds, read.spec.on_error), (10, OnError::Closed));
        let Ask::Promql(promql) = read.spec.ask else { panic!("{:?}", read.spec.ask) };
        assert!(promql.op.holds(1.0, promql.value) && !promql.op.holds(f64::NAN, promql.value));
    }

    #[test]
    fn what_can_not_be_asked_is_refused() {
        let wrong = check("{http: {url: 'https://x'}}", "").unwrap_err();
        assert!(wrong.starts_with("spec.ask.http.url: must be an http:// URL"), "{wrong}");
        let wrong = check("{http: {url: 'http://x/'}}", "  at: [Instance]\n").unwrap_err();
        assert!(wrong.starts_with("spec.at: Instance is for cel"), "{wrong}");
        assert!(check(&format!("{{cel: '{}'}}", "x".repeat(MAX_EXPRESSION + 1)), "").is_err());
        assert!(check("{cel: 'true'}", "  at: []\n").is_err());
    }

    #[test]
    fn codes_are_stable_distinct_and_say_what_else_to_do() {
        let codes: std::collections::BTreeSet<&str> = CATALOGUE.iter().map(|c| c.code).collect();
        assert_eq!(codes.len(), CATALOGUE.len());
        assert!(CATALOGUE.iter().all(|c| c.skippable == c.instead.is_empty()), "what can't be skipped says what to do");
        assert_eq!(own_code("no-incident"), "U-NO-INCIDENT");
    }

    #[test]
    fn a_skip_names_a_check_that_may_be_skipped_and_says_why() {
        let told = |code: &str, reason: &str| {
            let mut v = Validator::new();
            let skip = Skip { reason: reason.to_owned(), actor: String::new() };
            validate_skips(&mut v, &[(code.to_owned(), skip)].into());
            v.finish().err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(told("F-OWNER", "known to us"), "");
        assert_eq!(told("U-MINE", "known to us"), "");
        assert!(told("F-OWNER", " ").contains("must say why"));
        assert!(told("F-OWNERS", "x").contains("no such check"));
        assert!(told("H-VERDICT", "x").contains("can't be skipped: "));
    }
}
