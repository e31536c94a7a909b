//! The parts of a snapshot that secure connections: compiled once, shared by all workers, never changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use weir_config::{ClusterTls, ConfigError, ListenerProtocol, ListenerTls, Material, Pem, Secret, TlsMode};

use super::CertificateInfo;
use super::verify::{CallerVerifier, ServerVerifier};
use crate::io::Session;

/// Largest PEM file that is read (bytes).
const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// Most certificates in a chain or a set of roots.
const MAX_CERTIFICATES: usize = 256;

/// What a secured connection was secured with: certificate, roots and whom the peer must be. Made from their contents, so
/// that the same contents are the same generation, whichever snapshot they came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Generation(u64);

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// Not at all.
    Plain,
    /// By TLS.
    Tls(Generation),
}

/// What a listener lets in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepts {
    plain: bool,
    tls: Option<Generation>,
}

impl Accepts {
    pub(crate) fn of(tls: Option<&ServerTls>) -> Self {
        Accepts {
            plain: tls.is_none_or(|tls| tls.mode == TlsMode::Permissive),
            tls: tls.and_then(ServerTls::generation),
        }
    }

    /// Whether a connection secured so would be let in as it is.
    #[inline]
    pub(crate) fn takes(self, security: Security) -> bool {
        match security {
            Security::Plain => self.plain,
            Security::Tls(generation) => self.tls == Some(generation),
        }
    }
}

/// What is spoken inside, as TLS lets both ends agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/1.1 too, which is what servers expect of those who name nothing; so plain TCP needs no way of its own.
    Unnamed,
}

impl Alpn {
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
            Alpn::Http2 => vec![b"h2".to_vec()],
            Alpn::Unnamed => Vec::new(),
        }
    }
}

/// A certificate and its key, ready for use.
#[derive(Debug)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What a secret holds.
#[derive(Debug)]
enum Content {
    Awaited,
    Identity(Identity),
    Roots { store: Arc<RootCertStore>, digest: [u8; 32] },
}

/// The secrets of a configuration, read and parsed.
#[derive(Debug)]
pub(crate) struct Secrets {
    by_name: HashMap<String, Content>,
    provider: Arc<CryptoProvider>,
}

impl Secrets {
    /// # Errors
    /// What cannot be read or is not what it should be.
    pub(crate) fn compile(secrets: &[Secret]) -> Result<Self, Vec<ConfigError>> {
        let (mut by_name, mut problems) = (HashMap::new(), Vec::new());
        for (index, secret) in secrets.iter().enumerate() {
            match Content::of(secret) {
                Ok(content) => drop(by_name.insert(secret.name.clone(), content)),
                Err(message) => problems.push(ConfigError { field: format!("secrets[{index}]"), message }),
            }
        }
        let provider = Arc::new(ring::default_provider());
        if problems.is_empty() { Ok(Secrets { by_name, provider }) } else { Err(problems) }
    }

    /// What may be shown of the certificates, by the name of their secret.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&str, CertificateInfo)> {
        self.by_name.iter().filter_map(|(name, content)| match content {
            Content::Identity(identity) => Some((name.as_str(), CertificateInfo::of(identity.chain.first()?))),
            Content::Awaited | Content::Roots { .. } => None,
        })
    }

    fn identity(&self, name: &str) -> Option<&Identity> {
        match self.by_name.get(name)? {
            Content::Identity(identity) => Some(identity),
            Content::Awaited | Content::Roots { .. } => None,
        }
    }

    fn roots(&self, name: &str) -> Option<(&Arc<RootCertStore>, &[u8; 32])> {
        match self.by_name.get(name)? {
            Content::Roots { store, digest } => Some((store, digest)),
            Content::Awaited | Content::Identity(_) => None,
        }
    }
}

impl Content {
    fn of(secret: &Secret) -> Result<Self, String> {
        if let Some(pair) = &secret.certificate {
            let chain = certificates(&pem(&pair.chain)?)?;
            let key = PrivateKeyDer::from_pem_slice(pem(&pair.key)?.expose());
            let key = key.map_err(|_| "the key is not a private key in PEM (PKCS#8, SEC1 or PKCS#1)".to_owned())?;
            return Ok(Content::Identity(Identity { chain, key }));
        }
        match &secret.trust {
            Some(trust) => Self::roots(&certificates(&pem(trust)?)?),
            None => Ok(Content::Awaited),
        }
    }

    fn roots(certificates: &[CertificateDer<'static>]) -> Result<Self, String> {
        let (mut store, mut digest) = (RootCertStore::empty(), Sha256::new());
        for certificate in certificates {
            digest.update(certificate);
            store.add(certificate.clone()).map_err(|error| format!("a root of trust is unusable: {error}"))?;
        }
        Ok(Content::Roots { store: Arc::new(store), digest: digest.finalize().into() })
    }
}

fn pem(pem: &Pem) -> Result<Material, String> {
    match pem {
        Pem::File(path) => read(path).map_err(|error| format!("cannot read {}: {error}", path.display())),
        Pem::Inline(material) => Ok(material.clone()),
    }
}

fn read(path: &Path) -> std::io::Result<Material> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes)?;
    let material = Material::new(bytes);
    if length as u64 > MAX_PEM_BYTES { Err(std::io::Error::other("it is longer than 1 MiB")) } else { Ok(material) }
}

fn certificates(pem: &Material) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose()).take(MAX_CERTIFICATES + 1).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in PEM in it".into()),
        Ok(found) if found.len() > MAX_CERTIFICATES => {
            Err(format!("there are more than {MAX_CERTIFICATES} certificates"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(format!("it is not PEM: {error}")),
    }
}

/// TLS on a listener.
#[derive(Debug)]
pub(crate) struct ServerTls {
    pub(crate) mode: TlsMode,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_handshakes: usize,
    /// Absent while a secret is awaited.
    ready: Option<(Generation, Arc<ServerConfig>)>,
}

impl ServerTls {
    /// # Errors
    /// If certificate and key do not fit each other, or the roots are unusable.
    pub(crate) fn compile(tls: &ListenerTls, protocol: ListenerProtocol, secrets: &Secrets) -> Result<Self, String> {
        Ok(ServerTls {
            mode: tls.mode,
            handshake_timeout: Duration::from_millis(tls.handshake_timeout_ms),
            max_handshakes: tls.max_handshakes,
            ready: server_config(tls, protocol, secrets)?,
        })
    }

    pub(crate) fn generation(&self) -> Option<Generation> {
        self.ready.as_ref().map(|(generation, _)| *generation)
    }

    /// A session for one connection; `None` while there is no certificate.
    pub(crate) fn session(&self) -> Option<(Generation, Session)> {
        let (generation, config) = self.ready.as_ref()?;
        let session = UnbufferedServerConnection::new(config.clone()).ok()?;
        Some((*generation, Session::Server(session)))
    }
}

fn server_config(
    tls: &ListenerTls,
    protocol: ListenerProtocol,
    secrets: &Secrets,
) -> Result<Option<(Generation, Arc<ServerConfig>)>, String> {
    let Some(identity) = secrets.identity(&tls.certificate) else { return Ok(None) };
    let mut digest = Sha256::new();
    let builder = ServerConfig::builder_with_provider(secrets.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let builder = match &tls.trust {
        None => builder.with_no_client_auth(),
        Some(trust) => {
            let Some((store, roots)) = secrets.roots(trust) else { return Ok(None) };
            digest.update(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(store.clone(), secrets.provider.clone())
                .clear_root_hint_subjects()
                .build()
                .map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(Arc::new(CallerVerifier(verifier)))
        }
    };
    let mut config = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| format!("certificate `{}`: {error}", tls.certificate))?;
    config.alpn_protocols = match protocol {
        ListenerProtocol::Auto => [Alpn::Http2.names(), Alpn::Http1.names()].concat(),
        ListenerProtocol::Http1 => Alpn::Http1.names(),
        ListenerProtocol::Http2 => Alpn::Http2.names(),
        ListenerProtocol::Bolt | ListenerProtocol::Dubbo | ListenerProtocol::Tcp => Vec::new(),
    };
    // Connections live long here, and what is not kept cannot be stolen or outlive a rotation.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    identity.chain.iter().for_each(|certificate| digest.update(certificate));
    Ok(Some((generation(digest), Arc::new(config))))
}

/// TLS towards the endpoints of a cluster.
#[derive(Debug)]
pub(crate) struct ClientTls {
    pub(crate) generation: Generation,
    name: ServerName<'static>,
    /// Absent while a secret is awaited.
    config: Option<Arc<ClientConfig>>,
}

impl ClientTls {
    /// # Errors
    /// If certificate and key do not fit each other.
    pub(crate) fn compile(tls: &ClusterTls, secrets: &Secrets) -> Result<Self, String> {
        let mut digest = Sha256::new();
        digest.update(format!("{} {:?} ", tls.sni, tls.identities));
        let config = client_config(tls, secrets, &mut digest)?;
        // The name is only told to the server; whom we trust is decided by identity.
        let name = ServerName::try_from(tls.sni.clone());
        let name = name.unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
        Ok(ClientTls { generation: generation(digest), name, config })
    }

    /// A session for one connection; `None` while there is no certificate or no root.
    pub(crate) fn session(&self, alpn: Alpn) -> Option<Session> {
        let config = self.config.clone()?;
        UnbufferedClientConnection::new_with_alpn(config, self.name.clone(), alpn.names()).ok().map(Session::Client)
    }
}

fn client_config(
    tls: &ClusterTls,
    secrets: &Secrets,
    digest: &mut Sha256,
) -> Result<Option<Arc<ClientConfig>>, String> {
    let Some((store, roots)) = secrets.roots(&tls.trust) else { return Ok(None) };
    digest.update(roots);
    let verifier =
        ServerVerifier { roots: store.clone(), identities: tls.identities.clone(), provider: secrets.provider.clone() };
    let builder = ClientConfig::builder_with_provider(secrets.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let Some(identity) = secrets.identity(name) else { return Ok(None) };
            identity.chain.iter().for_each(|certificate| digest.update(certificate));
            builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| format!("certificate `{name}`: {error}"))?
        }
    };
    config.enable_sni = !tls.sni.is_empty();
    config.resumption = Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

fn generation(digest: Sha256) -> Generation {
    let digest: [u8; 32] = digest.finalize().into();
    let (first, _) = digest.split_at(8);
    Generation(first.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
