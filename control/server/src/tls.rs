//! The certificate of the control plane's own ports: issued by its authority, or the operator's, and replaced while it is in
//! use.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use weir_identity::Authority;
use zeroize::Zeroizing;

use crate::config::{Config, Storage, Tls};
use crate::error::StartError;

/// In the data folder: certificates that verify the control plane's own.
const CA_FILE: &str = "control-ca.pem";
/// How often the operator's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pause after a certificate could not be made.
const PAUSE: Duration = Duration::from_secs(5);

/// What the ports answer with, and what clients are to be told.
pub(crate) struct OwnTls {
    source: Source,
    current: Arc<Current>,
    ca_file: Option<PathBuf>,
    fingerprint: String,
}

/// The certificate in use.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl OwnTls {
    /// With its first certificate; `None`: the ports are in plaintext.
    pub(crate) fn start(
        config: &Config,
        authority: &Arc<Authority>,
        addresses: [SocketAddr; 2],
    ) -> Result<Option<OwnTls>, StartError> {
        let mut source = match &config.tls {
            Tls::Off => return Ok(None),
            Tls::Authority { names } => Source::Authority {
                authority: Arc::clone(authority),
                names: reached_by(names, addresses),
                changes: authority.changes(),
                renew_after: PAUSE,
            },
            Tls::Files { certificate, key } => {
                Source::Files { certificate: certificate.clone(), key: key.clone(), seen: [None; 2] }
            }
        };
        let first = source.certificate()?;
        let fingerprint = first.cert.last().map(|last| weir_trust::fingerprint(last)).unwrap_or_default();
        let current = Arc::new(Current(ArcSwap::from_pointee(first)));
        let keeps = config.storage == Storage::Sqlite;
        let tls = OwnTls { source, current, ca_file: keeps.then(|| config.data.join(CA_FILE)), fingerprint };
        tls.write_ca()?;
        Ok(Some(tls))
    }

    /// What clients may trust, as a file; none when nothing is kept.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// The same as a fingerprint, that of the last certificate which is sent.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Answers with the newest certificate; `alpn`: the protocol that is spoken.
    pub(crate) fn acceptor(&self, alpn: &[u8]) -> Result<TlsAcceptor, StartError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(|e| StartError::Tls(e.to_string()))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&self.current) as _;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Replaces the certificate in time, until `stopped`.
    pub(crate) async fn keep(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.replace() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    async fn replace(&mut self) {
        loop {
            self.source.due().await;
            match self.source.certificate() {
                Ok(certificate) => {
                    self.current.0.store(Arc::new(certificate));
                    info!("the certificate of the control plane's own ports was replaced");
                }
                Err(error) => {
                    warn!(%error, "the certificate of the control plane's own ports stays as it is");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            if let Err(error) = self.write_ca() {
                warn!(%error, "clients that verify the control plane by this file have the one before");
            }
        }
    }

    /// Whole or not at all: clients read it at any time.
    fn write_ca(&self) -> Result<(), StartError> {
        let Some(path) = &self.ca_file else { return Ok(()) };
        let failed = |source| StartError::Data { what: path.display().to_string(), source };
        match &self.source {
            Source::Authority { authority, .. } => write(path, &authority.bundle().roots).map_err(failed),
            Source::Files { certificate, .. } => {
                let pem = fs::read_to_string(certificate).map_err(failed)?;
                write(path, pem.rfind("-----BEGIN").map_or("", |last| &pem[last..])).map_err(failed)
            }
        }
    }
}

/// Where certificates come from.
enum Source {
    Authority {
        authority: Arc<Authority>,
        names: Vec<String>,
        changes: watch::Receiver<u64>,
        renew_after: Duration,
    },
    /// The operator's, who may replace them at any time.
    Files {
        certificate: PathBuf,
        key: PathBuf,
        seen: [Option<SystemTime>; 2],
    },
}

impl Source {
    /// A new one, or what the files hold.
    fn certificate(&mut self) -> Result<CertifiedKey, StartError> {
        match self {
            Source::Authority { authority, names, renew_after, .. } => {
                let now = Timestamp::now();
                let leaf = authority.issue_server(names, now)?;
                *renew_after = Duration::try_from(leaf.renew_at.duration_since(now)).unwrap_or(PAUSE);
                certified(&leaf.chain, leaf.key.reveal())
            }
            Source::Files { certificate, key, seen } => {
                // Before they are read: what changes meanwhile is seen as another change.
                *seen = written([certificate, key]);
                let chain = read(certificate, "--tls-cert")?;
                certified(&chain, &Zeroizing::new(read(key, "--tls-key")?))
            }
        }
    }

    /// Resolves when there is to be another.
    async fn due(&mut self) {
        match self {
            Source::Authority { changes, renew_after, .. } => {
                tokio::select! {
                    () = tokio::time::sleep(*renew_after) => {}
                    Ok(()) = changes.changed() => {}
                }
            }
            Source::Files { certificate, key, seen } => {
                while written([certificate, key]) == *seen {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }
}

fn written(files: [&Path; 2]) -> [Option<SystemTime>; 2] {
    files.map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok())
}

fn certified(chain: &str, key: &str) -> Result<CertifiedKey, StartError> {
    let unusable = |what: &str, error: &dyn std::fmt::Display| StartError::Tls(format!("{what}: {error}"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| unusable("the certificates are no PEM", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable("the key is no PEM", &error))?;
    let provider = ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| unusable("the certificate and its key", &error))
}

/// Names and addresses at which clients may reach the ports: what the operator says, where they listen, and this machine.
fn reached_by(names: &[String], addresses: [SocketAddr; 2]) -> Vec<String> {
    let listening = addresses.map(|address| address.ip());
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let addresses = listening.into_iter().filter(|ip| !ip.is_unspecified()).chain(local).map(|ip| ip.to_string());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut all: Vec<String> = names.iter().cloned().chain(["localhost".to_owned(), host]).chain(addresses).collect();
    all.retain(|name| !name.is_empty());
    all.sort();
    all.dedup();
    all
}

fn read(path: &Path, flag: &str) -> Result<String, StartError> {
    let failed = |source| StartError::Data { what: format!("the file of {flag}, {}", path.display()), source };
    fs::read_to_string(path).map_err(failed)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_clients_may_type() {
        let listening = ["0.0.0.0:15000", "10.1.2.3:15010"].map(|address| address.parse().unwrap());
        let names = reached_by(&["weir.example".to_owned(), "localhost".to_owned()], listening);
        for name in ["weir.example", "localhost", "127.0.0.1", "::1", "10.1.2.3"] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name} in {names:?}");
        }
        assert!(!names.contains(&"0.0.0.0".to_owned()));
    }
}
