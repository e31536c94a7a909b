//! The mesh's certificate authority: short-lived certificates with a SPIFFE identity, keys in memory only.
//!
//! [`Authority`] signs leaves and says which roots verify them. What makes it more than a signature is *when* it signs
//! with what: a leaf is of use only to peers that know its root. So a new signer, made because the process is new or
//! because the one before grows old, first is a root among others in the trust bundle ([`roots`]); it signs once
//! everybody is known to have that bundle ([`Authority::roots_are_known`]). Until then proxies keep what they have.
//! A root stays in the bundle until the last leaf that it may have signed has run out.
//!
//! Keys are never written anywhere: neither this crate's nor the leaves'. Only certificates are kept over a restart.
//! [`Key`] shows nothing of itself, and is overwritten when it is dropped.
//!
//! Wall-clock time is passed in; randomness comes from the system.

mod authority;
mod error;
mod leaf;
mod roots;
mod signer;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use authority::{Authority, Bundle};
pub use error::IdentityError;
pub use leaf::{Key, Leaf};
pub use signer::OwnSigner;

/// Unit of instances that have none.
pub const DEFAULT_UNIT: &str = "default";

/// What can be set.
#[derive(Debug, Clone)]
pub struct Options {
    /// First part of every identity, as SPIFFE has it (`weir`).
    pub trust_domain: String,
    /// Life of a leaf (24 h); it is replaced at half of it.
    pub leaf_ttl: Duration,
    /// Life of a signer that was made here (90 days); it is replaced at half of it.
    pub signer_ttl: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            trust_domain: "weir".to_owned(),
            leaf_ttl: Duration::from_secs(24 * 3600),
            signer_ttl: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

impl Options {
    /// Shortest life of a leaf: a proxy must have time to take the next one.
    pub const MIN_LEAF_TTL: Duration = Duration::from_secs(10);

    /// Checks them.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub fn validate(&self) -> Result<(), IdentityError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        if self.trust_domain.is_empty() || self.trust_domain.len() > 255 || !self.trust_domain.bytes().all(legal) {
            let why = "a trust domain has 1 to 255 lower-case letters, digits, `-`, `.` and `_`";
            return Err(IdentityError::Options(format!("{:?}: {why}", self.trust_domain)));
        }
        if self.leaf_ttl < Options::MIN_LEAF_TTL || self.leaf_ttl > self.signer_ttl / 4 {
            let why = format!(
                "certificates live for at least {} s, and at most a quarter of their signer's {} days",
                Options::MIN_LEAF_TTL.as_secs(),
                self.signer_ttl.as_secs() / 86_400
            );
            return Err(IdentityError::Options(why));
        }
        Ok(())
    }

    /// What identities of `app`'s instances begin with.
    pub fn app_prefix(&self, app: &str) -> String {
        format!("spiffe://{}/app/{app}/", self.trust_domain)
    }

    /// The identity of an instance of `app` in `unit`.
    pub fn identity(&self, app: &str, unit: &str) -> String {
        let unit = if unit.is_empty() { DEFAULT_UNIT } else { unit };
        format!("{}unit/{unit}", self.app_prefix(app))
    }
}
