//! How clients of the control plane know that it is the right one: proxies and the `weir` command.
//!
//! They verify its certificate, name included, by the certificates of a file, or by one that they know by its fingerprint
//! only and that the control plane sends along, as `kubeadm join` does: a fingerprint is short enough to be typed and to
//! stand in a script. TLS 1.3 only.

mod pinned;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use sha2::{Digest, Sha256};

use pinned::Pinned;

/// Begins a fingerprint.
const SHA256: &str = "sha256:";
/// Largest file of certificates read, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Whom a client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Certificates of authorities in a PEM file. It is read for each connection: it may be replaced while it is in use.
    File(PathBuf),
    /// Certificates of authorities in PEM.
    Pem(String),
    /// The authority whose certificate has this SHA-256.
    Fingerprint([u8; 32]),
}

/// Why there can be no trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Neither a fingerprint nor anything else.
    #[error("{0:?} is no fingerprint: it is `sha256:` and 64 hexadecimal digits, as `weir control` prints it")]
    Fingerprint(String),
    /// The file can't be read.
    #[error("cannot read certificates from {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was read is of no use.
    #[error("{0}")]
    Certificates(String),
}

impl FromStr for Trust {
    type Err = TrustError;

    /// `sha256:` and hexadecimal digits, certificates in PEM, or else the name of a file.
    fn from_str(text: &str) -> Result<Trust, TrustError> {
        let text = text.trim();
        if let Some(digits) = text.strip_prefix(SHA256) {
            let wrong = || TrustError::Fingerprint(text.to_owned());
            return bytes(digits).map(Trust::Fingerprint).ok_or_else(wrong);
        }
        Ok(if text.starts_with("-----BEGIN") { Trust::Pem(text.to_owned()) } else { Trust::File(text.into()) })
    }
}

/// As it is parsed.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::File(path) => path.display().fmt(f),
            Trust::Pem(pem) => f.write_str(pem),
            Trust::Fingerprint(hash) => f.write_str(&written(hash)),
        }
    }
}

impl Trust {
    /// What a client of TLS is configured with; `alpn`: the protocols that it speaks.
    ///
    /// # Errors
    /// [`TrustError`]: the certificates can't be read.
    pub fn client(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let builder = match self {
            Trust::File(path) => builder.with_root_certificates(roots(&read(path)?)?),
            Trust::Pem(pem) => builder.with_root_certificates(roots(pem)?),
            Trust::Fingerprint(hash) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned::new(*hash, provider)))
            }
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The same, with what a file holds now, so that it can be kept without the file.
    ///
    /// # Errors
    /// As [`Trust::client`].
    pub fn read(&self) -> Result<Trust, TrustError> {
        let Trust::File(path) = self else { return Ok(self.clone()) };
        let pem = read(path)?;
        roots(&pem)?;
        Ok(Trust::Pem(pem))
    }
}

fn read(path: &Path) -> Result<String, TrustError> {
    let mut pem = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut pem));
    match read {
        Ok(_) => Ok(pem),
        Err(source) => Err(TrustError::Read { path: path.to_owned(), source }),
    }
}

fn roots(pem: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(unusable)?).map_err(unusable)?;
    }
    if roots.is_empty() { Err(unusable("there is no certificate in PEM")) } else { Ok(roots) }
}

fn unusable(error: impl fmt::Display) -> TrustError {
    TrustError::Certificates(format!("the certificates that the control plane is known by can't be used: {error}"))
}

/// `sha256:` and the SHA-256 of a certificate in hexadecimal, as [`Trust`] reads it.
pub fn fingerprint(certificate: &[u8]) -> String {
    written(&Sha256::digest(certificate).into())
}

fn written(hash: &[u8; 32]) -> String {
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{SHA256}{digits}")
}

/// 64 hexadecimal digits; colons between them, as openssl writes them, are passed over.
fn bytes(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes?.try_into().ok()
}

fn byte(pair: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()
}

#[cfg(test)]
mod tests;
