//! What `weir login` remembers: a server and a token, in a file that only its user can read.
//!
//! Written only by `weir login`, at the person's explicit wish; everything else only reads it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The remembered login.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// URL of the control plane.
    pub server: Option<String>,
    /// Token for it.
    pub token: Option<String>,
    /// By whom it is known, if it is at `https`: certificates in PEM, or a fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl Context {
    /// Reads it; nothing there is fine.
    pub fn load() -> Result<Context, Failure> {
        let Some(path) = path() else { return Ok(Context::default()) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Context::default()),
            Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
        };
        if fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
            let message = format!("{} holds a token and others can read it", path.display());
            return Err(Failure::new(message).hint(format!("chmod 600 {}", path.display())));
        }
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!("{}: {error}", path.display())).hint("log in again with `weir login`")
        })
    }

    /// The token, for the server it belongs to and no other.
    pub fn token_for(&self, server: &str) -> Option<String> {
        self.token.clone().filter(|_| self.server.as_deref().is_none_or(|own| own == server))
    }

    /// The token, for another address of the server it belongs to: proxies reach the control plane at a port of its own.
    pub fn token_for_host(&self, url: &str) -> Option<String> {
        self.token.clone().filter(|_| self.server.as_deref().is_none_or(|own| host(own) == host(url)))
    }

    /// By whom it is known, for another address of the same server.
    pub fn ca_for_host(&self, url: &str) -> Option<String> {
        self.ca.clone().filter(|_| self.server.as_deref().is_some_and(|own| host(own) == host(url)))
    }

    /// Writes it, readable by its user only; returns where.
    pub fn save(&self) -> Result<PathBuf, Failure> {
        let path = path().ok_or_else(|| Failure::new("there is no home folder to remember a login in; set HOME"))?;
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let whole = path.with_extension("new");
        let _left_over = fs::remove_file(&whole);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole)?;
        let json = serde_json::to_string_pretty(self).map_err(|error| Failure::new(error.to_string()))?;
        writeln!(file, "{json}")?;
        fs::rename(&whole, &path)?;
        Ok(path)
    }

    /// Removes it; returns where it was.
    pub fn forget() -> Result<Option<PathBuf>, Failure> {
        let Some(path) = path() else { return Ok(None) };
        match fs::remove_file(&path) {
            Ok(()) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Scheme and host of a URL, without the port and what follows.
fn host(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let authority = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    let port = url[begin..authority].rfind(':').filter(|at| !url[begin + at..authority].contains(']'));
    &url[..port.map_or(authority, |at| begin + at)]
}

/// `$XDG_CONFIG_HOME/weir/login.json`, by default below `~/.config`.
fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("weir/login.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_no_other_host() {
        let login = Context { server: Some("http://127.0.0.1:15000".into()), token: Some("secret".into()), ca: None };
        for (url, given) in [
            ("http://127.0.0.1:15010", true),
            ("http://127.0.0.1", true),
            ("http://127.0.0.1:15010/x", true),
            ("http://127.0.0.2:15000", false),
            ("https://127.0.0.1:15000", false),
            ("http://127.0.0.1.evil:15000", false),
        ] {
            assert_eq!(login.token_for_host(url).is_some(), given, "{url}");
        }
        assert_eq!((host("http://[::1]:5/"), host("http://[::1]")), ("http://[::1]", "http://[::1]"));
    }
}
