//! The certificate that all targets show: self-signed, P-256, made for each run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Where the certificate and its key lie, and the certificate itself.
#[derive(Debug)]
pub struct Certificate {
    /// PEM of the certificate.
    pub chain: PathBuf,
    /// PEM of the key.
    pub key: PathBuf,
    /// Both, as HAProxy wants them.
    pub both: PathBuf,
    der: CertificateDer<'static>,
}

/// Name in the certificate.
const NAME: &str = "bench.weir.test";

impl Certificate {
    /// Makes one, with files in the folder.
    ///
    /// # Errors
    /// If it cannot be made or written.
    pub fn make(folder: &Path) -> Result<Certificate, String> {
        let failed = |error: &dyn std::fmt::Display| format!("certificate of the run: {error}");
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let params = CertificateParams::new(vec![NAME.to_owned()]).map_err(|error| failed(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            fs::write(&file, text).map(|()| file).map_err(|error| failed(&error))
        };
        Ok(Certificate {
            chain: write("chain.pem", certificate.pem())?,
            key: write("key.pem", key.serialize_pem())?,
            both: write("both.pem", certificate.pem() + &key.serialize_pem())?,
            der: certificate.der().clone(),
        })
    }

    /// A client that trusts it, takes TLS 1.3 only and never resumes.
    ///
    /// # Errors
    /// If it is not a certificate.
    pub fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).map_err(|error| error.to_string())?;
        let versions = [&rustls::version::TLS13];
        let mut config =
            ClientConfig::builder_with_protocol_versions(&versions).with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// The name that clients ask for.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("it is a DNS name")
}
