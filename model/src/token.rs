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

impl Spec for TokenSpec {
    const KIND: Kind = Kind::Token;
    type Status = NoStatus;

    fn validate(&self, v: &mut Validator) {
        v.require(!self.actor.is_empty(), "actor", "must not be empty");
        let hex = self.sha256.len() == 64 && self.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        v.require(hex, "sha256", "must be 64 hexadecimal digits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_a_hash_and_an_actor() {
        let token = |actor: &str, sha256: &str| {
            let spec =
                TokenSpec { actor: actor.into(), sha256: sha256.into(), role: TokenRole::Viewer, expires_at: None };
            Token::new("t", spec).to_object().validate().map_err(|e| e.0[0].path.clone())
        };
        assert_eq!(token("user/a", &"0aF".repeat(22)[..64]), Ok(()));
        assert_eq!(token("", &"0".repeat(64)), Err("spec.actor".into()));
        assert_eq!(token("user/a", "weir_not-a-hash"), Err("spec.sha256".into()));
    }
}
