//! Encryption: who the proxy is, whom it trusts, where it takes TLS and where it speaks it.
//!
//! A [`Secret`] is named by the listeners and clusters that use it, as in SDS, so that a certificate can be rotated
//! without touching either. What is secret about it is never shown: not by `Debug`, not when serialised.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// A certificate with its key, or roots of trust. With neither, it is awaited: what needs it refuses TLS until it comes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// Unique among secrets.
    pub name: String,
    /// Who the proxy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<KeyPair>,
    /// Whom it trusts: certificates of authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Pem>,
}

/// A certificate and the key that goes with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyPair {
    /// The certificate first, then those that lead to a root.
    pub chain: Pem,
    /// PKCS#8, SEC1 or PKCS#1.
    pub key: Pem,
}

/// PEM, in a file or in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pem {
    /// Read when the configuration is put into force.
    File(PathBuf),
    /// Came over the network; never read from or written to a file.
    #[serde(skip_deserializing)]
    Inline(Material),
}

/// Bytes that are never shown, and wiped when the last holder lets go.
#[derive(Clone, PartialEq)]
pub struct Material(Arc<Zeroizing<Vec<u8>>>);

impl Material {
    /// Takes the bytes; the caller keeps no copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Material(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material(not shown)")
    }
}

impl Serialize for Material {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(not shown)")
    }
}

/// TLS on a listener. What begins with a TLS record is TLS, whatever the mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// What becomes of connections without TLS.
    #[serde(default)]
    pub mode: TlsMode,
    /// Name of the secret with the listener's certificate.
    pub certificate: String,
    /// Name of the secret with the roots that callers' certificates must lead to; absent: callers show none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// A handshake must be done within this (milliseconds, default 10,000).
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout_ms: u64,
    /// Handshakes at a time per worker (default 1,000); further connections are closed.
    #[serde(default = "max_handshakes")]
    pub max_handshakes: usize,
}

impl ListenerTls {
    /// With this certificate and otherwise as by default.
    pub fn new(certificate: String) -> Self {
        ListenerTls {
            mode: TlsMode::default(),
            certificate,
            trust: None,
            handshake_timeout_ms: handshake_timeout(),
            max_handshakes: max_handshakes(),
        }
    }

    /// The secrets it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.certificate.as_str()).chain(self.trust.as_deref())
    }
}

/// What becomes of connections without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// They are served too, told apart by their first byte.
    #[default]
    Permissive,
    /// They are closed.
    Strict,
}

/// TLS towards those endpoints of a cluster which are marked as taking it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterTls {
    /// Server name indication; empty: none.
    #[serde(default)]
    pub sni: String,
    /// Name of the secret with the certificate shown to servers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Name of the secret with the roots that servers' certificates must lead to.
    pub trust: String,
    /// Whom the server must be: one of its URI names must match one of these. Empty: anybody the roots vouch for.
    #[serde(default)]
    pub identities: Vec<IdentityMatch>,
}

impl ClusterTls {
    /// The secrets it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.trust.as_str()).chain(self.certificate.as_deref())
    }
}

/// How an identity (the URI of a certificate's subject alternative name) is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentityMatch {
    /// Equal.
    Exact(String),
    /// Begins with, e.g. `spiffe://weir/app/stock/`.
    Prefix(String),
}

impl IdentityMatch {
    /// Whether the identity is one of those meant.
    pub fn matches(&self, identity: &str) -> bool {
        match self {
            IdentityMatch::Exact(exact) => identity == exact,
            IdentityMatch::Prefix(prefix) => identity.starts_with(prefix.as_str()),
        }
    }
}

fn handshake_timeout() -> u64 {
    10_000
}

fn max_handshakes() -> usize {
    1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        let pem = Pem::Inline(Material::new(b"hush".to_vec()));
        let pair = KeyPair { chain: pem.clone(), key: pem.clone() };
        let secret = Secret { name: "me".into(), certificate: Some(pair), trust: Some(pem) };
        let shown = format!("{secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(shown.contains("not shown") && !shown.contains("hush") && !shown.contains("104"), "{shown}");
    }

    #[test]
    fn an_identity_is_compared_whole_or_by_prefix() {
        let prefix = IdentityMatch::Prefix("spiffe://weir/app/stock/".into());
        assert!(prefix.matches("spiffe://weir/app/stock/unit/a"));
        assert!(!prefix.matches("spiffe://weir/app/stocks/unit/a"));
        assert!(!IdentityMatch::Exact("a".into()).matches("ab"));
    }
}
