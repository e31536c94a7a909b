//! Tokens: made once, kept as hashes, compared in constant time.
//!
//! A token is `weir_` and 40 hexadecimal digits (160 random bits), so that secret scanners find it and nobody guesses
//! it; a fast hash is enough for what cannot be guessed. Token resources are few and are read often, so they are cached
//! for [`CACHE`]: that is how long a token revoked on another replica may still be accepted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use weir_model::token::TokenRole;
use weir_model::{Token, TokenSpec};
use weir_store::{Result, SharedStore, typed};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 512;
/// Age at which the list of tokens is read again.
pub const CACHE: Duration = Duration::from_secs(1);
/// An unknown token has the list read again, but not more often than this: it may have been made just now.
const RELOAD_ON_MISS: Duration = Duration::from_millis(100);

/// A fresh token. Show it once; keep only its [`hash`].
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn mint() -> std::io::Result<String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(format!("weir_{}", hex(&bytes)))
}

/// SHA-256 in hexadecimal, as Token resources keep it.
pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who somebody has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What its writes carry, e.g. `user/alice`.
    pub actor: String,
    /// What it may do.
    pub role: TokenRole,
    /// Apps that it may join as, where it is bound to some.
    pub apps: Vec<String>,
}

impl Login {
    /// One that is bound to nothing.
    pub fn new(actor: impl Into<String>, role: TokenRole) -> Login {
        Login { actor: actor.into(), role, apps: Vec::new() }
    }
}

/// All tokens, cached.
pub struct Logins {
    store: SharedStore,
    cache: Mutex<Cache>,
}

struct Cache {
    tokens: Arc<Vec<TokenSpec>>,
    read: Option<Instant>,
}

impl Logins {
    /// Tokens of this store.
    pub fn new(store: SharedStore) -> Logins {
        Logins { store, cache: Mutex::new(Cache { tokens: Arc::default(), read: None }) }
    }

    /// Whose token this is; `None`: nobody's, or no longer valid.
    ///
    /// # Errors
    /// If the tokens could not be read.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Result<Option<Login>> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let hash = hash(token);
        match find(&self.tokens(CACHE).await?, &hash, now) {
            Some(login) => Ok(Some(login)),
            None => Ok(find(&self.tokens(RELOAD_ON_MISS).await?, &hash, now)),
        }
    }

    /// Reads the tokens anew at the next login: one was written.
    pub async fn forget(&self) {
        self.cache.lock().await.read = None;
    }

    /// The lock is held while reading: many logins at once read once.
    async fn tokens(&self, oldest: Duration) -> Result<Arc<Vec<TokenSpec>>> {
        let mut cache = self.cache.lock().await;
        if cache.read.is_none_or(|read| read.elapsed() >= oldest) {
            let (tokens, _): (Vec<Token>, _) = typed::list(&*self.store).await?;
            *cache =
                Cache { tokens: Arc::new(tokens.into_iter().map(|t| t.spec).collect()), read: Some(Instant::now()) };
        }
        Ok(cache.tokens.clone())
    }
}

/// Looks at every token, whichever matches, and at every byte of each.
fn find(tokens: &[TokenSpec], hash: &str, now: Timestamp) -> Option<Login> {
    let mut found = None;
    for token in tokens {
        let valid = token.expires_at.is_none_or(|end| now < end);
        if same(token.sha256.as_bytes(), hash.as_bytes()) && valid {
            found = Some(Login { actor: token.actor.clone(), role: token.role, apps: token.apps.clone() });
        }
    }
    found
}

/// Equality (of hexadecimal text, in any case) that takes as long wherever the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a.to_ascii_lowercase() ^ b.to_ascii_lowercase()));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_recognisable_and_different() {
        let (a, b) = (mint().unwrap(), mint().unwrap());
        assert!(a.starts_with("weir_") && a.len() == 45, "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn hashes_as_sha256_does() {
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn an_expired_token_is_nobodys() {
        let expires_at = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let spec =
            TokenSpec { actor: "user/a".into(), sha256: hash("t"), role: TokenRole::Viewer, apps: vec![], expires_at };
        let at = |time: &str| find(std::slice::from_ref(&spec), &hash("t"), time.parse().unwrap());
        assert!(at("2025-12-31T23:59:59Z").is_some());
        assert_eq!(at("2026-01-01T00:00:00Z"), None);
        assert_eq!(find(std::slice::from_ref(&spec), &hash("u"), Timestamp::UNIX_EPOCH), None);
    }
}
