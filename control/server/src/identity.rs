//! The certificate authority of this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use weir_identity::{Authority, OwnSigner};
use zeroize::Zeroizing;

use crate::config::{Config, Storage};
use crate::error::StartError;

/// An operator's own certificate authority, by its files.
#[derive(Debug, Clone)]
pub struct AuthorityFiles {
    /// PEM: the certificate that signs, those between it and the root, the root last.
    pub certificates: PathBuf,
    /// PEM, PKCS #8.
    pub key: PathBuf,
}

/// Starts it. Roots of former processes are kept in the data folder, if there is one; keys nowhere.
pub(crate) fn start(config: &Config) -> Result<Arc<Authority>, StartError> {
    let own = config.authority.as_ref().map(read).transpose()?;
    let kept = (config.storage == Storage::Sqlite).then(|| config.data.join("trust-roots.pem"));
    let authority = Authority::start(config.identity.clone(), own.as_ref(), kept, Timestamp::now())?;
    Ok(Arc::new(authority))
}

fn read(files: &AuthorityFiles) -> Result<OwnSigner, StartError> {
    let certificates = text(&files.certificates, "--ca-cert")?;
    let key = Zeroizing::new(text(&files.key, "--ca-key")?);
    Ok(OwnSigner { certificates, key })
}

fn text(path: &Path, flag: &str) -> Result<String, StartError> {
    let failed =
        |source: io::Error| StartError::Data { what: format!("the file of {flag}, {}", path.display()), source };
    fs::read_to_string(path).map_err(failed)
}
