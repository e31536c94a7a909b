//! Token: a login, stored as a hash. The token itself is shown once, when it is made.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::object::{NoStatus, Resource, Spec};
use crate::validate::Validator;

/// A login token's record.
pub type Token = Resource<TokenSpec>;

/// Whose token it is and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSpec {
    /// Actor that its writes carry, e.g. `user/alice`.
    pub actor: String,
    /// SHA-256 of the token, in hex.
    pub sha256: String,
    /// What it may do.
    pub role: TokenRole,
    /// Of a Proxy token: apps that may join with it, by name, or by the beginning of names as in `orders-*`; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// Not accepted from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TokenRole {
    /// Everything.
    Admin,
    /// Read everything but tokens.
    Viewer,
    /// Join the mesh as a proxy, nothing else.
    Proxy,
    /// Register Releases, as CI does, and read them.
    Ci,
}

/// Most apps that one token names.
const MAX_APPS: usize = 100;

/// Who joins the mesh with a token, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joiner {
    /// The token's actor.
    pub actor: String,
    /// [`TokenSpec::apps`].
    pub apps: Vec<String>,
}

impl Joiner {
    /// One that may join as any app.
    pub fn of_any_app(actor: impl Into<String>) -> Joiner {
        Joiner { actor: actor.into(), apps: Vec::new() }
    }

    /// Whether it may join as an instance of `app`.
    ///
    /// # Errors
    /// In words for the one who joins: what the token is for, and what to do.
    pub fn may_be(&self, app: &str) -> Result<(), String> {
        if self.apps.is_empty() || self.apps.iter().any(|pattern| matches(pattern, app)) {
            return Ok(());
        }
        let (actor, apps) = (&self.actor, self.apps.join(", "));
        Err(format!(
            "the token of {actor} is for {apps} and not for {app:?}; make another with `weir token create NAME --role proxy --app {app}`"
        ))
    }
}

fn matches(pattern: &str, app: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => app.starts_with(begin),
        None => app == pattern,
    }
}

impl Spec for TokenSpec {
    const KIND: Kind = Kind::Token;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.require(!self.actor.is_empty(), "actor", "must not be empty");
        let hex = self.sha256.len() == 64 && self.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        v.require(hex, "sha256", "must be 64 hexadecimal digits");
        let bindable = self.apps.is_empty() || self.role == TokenRole::Proxy;
        v.require(bindable, "apps", "only a token of the role Proxy can be bound to apps");
        v.require(self.apps.len() <= MAX_APPS, "apps", "must be 100 at most");
        for (at, app) in self.apps.iter().enumerate() {
            let begin = app.strip_suffix('*').map_or(app.as_str(), |begin| begin.strip_suffix('-').unwrap_or(begin));
            v.name(&format!("apps[{at}]"), begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_a_hash_and_an_actor() {
        let token = |actor: &str, sha256: &str| {
            let spec = TokenSpec {
                actor: actor.into(),
                sha256: sha256.into(),
                role: TokenRole::Viewer,
                apps: vec![],
                expires_at: None,
            };
            Token::new("t", spec).to_object().validate().map_err(|e| e.0[0].path.clone())
        };
        assert_eq!(token("user/a", &"0aF".repeat(22)[..64]), Ok(()));
        assert_eq!(token("", &"0".repeat(64)), Err("spec.actor".into()));
        assert_eq!(token("user/a", "weir_not-a-hash"), Err("spec.sha256".into()));
    }

    #[test]
    fn only_a_proxys_token_is_bound_to_apps() {
        let token = |role, app: &str| {
            let (actor, sha256) = ("proxy/a".to_owned(), "0".repeat(64));
            let spec = TokenSpec { actor, sha256, role, apps: vec![app.to_owned()], expires_at: None };
            Token::new("t", spec).to_object().validate().map_err(|e| e.0[0].path.clone())
        };
        assert_eq!(token(TokenRole::Proxy, "orders"), Ok(()));
        assert_eq!(token(TokenRole::Proxy, "orders-*"), Ok(()));
        assert_eq!(token(TokenRole::Proxy, "*"), Err("spec.apps[0]".into()));
        assert_eq!(token(TokenRole::Proxy, "or*ders"), Err("spec.apps[0]".into()));
        assert_eq!(token(TokenRole::Viewer, "orders"), Err("spec.apps".into()));
    }

    #[test]
    fn a_bound_token_is_good_for_its_apps_alone() {
        let joiner = Joiner { actor: "proxy/a".into(), apps: vec!["orders".into(), "pay-*".into()] };
        let may = |app: &str| joiner.may_be(app).is_ok();
        assert!(may("orders") && may("pay-eu") && !may("orders-2") && !may("pay") && !may(""));
        let told = joiner.may_be("stock").unwrap_err();
        assert!(told.contains("is for orders, pay-* and not for \"stock\""), "{told}");
        assert!(Joiner::of_any_app("proxy/b").may_be("stock").is_ok());
    }
}
