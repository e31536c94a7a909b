//! An authority, certificates of all kinds, and peers that speak TLS by rustls itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peers::Message;

/// Names of the leaves that every [`Pki`] has.
const LEAVES: [&str; 5] = ["stock", "order", "expired", "foreign", "nameless"];

/// Certificates in a folder of their own.
pub struct Pki {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Pki {
    pub fn new() -> Self {
        let pki = Pki { folder: tempfile::tempdir().unwrap(), authority: authority() };
        std::fs::write(pki.path("roots.pem"), pki.authority.pem()).unwrap();
        LEAVES.iter().for_each(|name| pki.issue(name));
        pki
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Makes a leaf, in place of the one that was there.
    pub fn issue(&self, name: &str) {
        let foreign = authority();
        let mut params = CertificateParams::default();
        if name != "nameless" {
            params.subject_alt_names =
                vec![SanType::URI(format!("spiffe://weir/app/{name}/unit/a").try_into().unwrap())];
        }
        if name == "expired" {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let issuer = if name == "foreign" { &foreign } else { &self.authority };
        let certificate = params.signed_by(&key, issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// The secrets of a configuration: each leaf under its name, and `roots`.
    pub fn secrets(&self) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        let leaf = |name: &&str| {
            let (chain, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
            format!("{{name: {name}, certificate: {{chain: {{file: '{chain}'}}, key: {{file: '{key}'}}}}}}")
        };
        let leaves: Vec<String> = LEAVES.iter().map(leaf).collect();
        format!("[{}, {{name: roots, trust: {{file: '{}'}}}}]", leaves.join(", "), file("roots.pem"))
    }

    /// A line out of the middle of each private key, which must be nowhere else.
    pub fn key_texts(&self) -> Vec<String> {
        let middle = |name: &&str| {
            let text = std::fs::read_to_string(self.path(&format!("{name}.key"))).unwrap();
            text.lines().nth(1).unwrap().to_owned()
        };
        LEAVES.iter().map(middle).collect()
    }

    fn leaf(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
        (vec![chain], PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap())
    }

    /// A client that believes every server.
    pub fn client(&self, me: Option<&str>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believes));
        Arc::new(match me.map(|name| self.leaf(name)) {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        })
    }

    /// A server that answers each request and closes, saying so by TLS or not.
    pub async fn tls_upstream(
        &self,
        me: &str,
        answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
        in_order: bool,
    ) -> SocketAddr {
        let (chain, key) = self.leaf(me);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut session = ServerConnection::new(config.clone()).unwrap();
                shake(&mut stream, &mut session).await;
                receive(&mut stream, &mut session, |text| text.ends_with("\r\n\r\n")).await;
                std::io::Write::write_all(&mut session.writer(), &answer(&Message::default())).unwrap();
                if in_order {
                    session.send_close_notify();
                }
                send(&mut stream, &mut session).await;
            }
        });
        address
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer has said that it sends no more.
    InOrder,
    /// It has not.
    Broken,
}

/// Shakes hands; a peer that breaks off ends it.
pub async fn shake<D: SideData>(
    stream: &mut TcpStream,
    session: &mut (impl std::ops::DerefMut<Target = ConnectionCommon<D>> + ?Sized),
) {
    loop {
        send(stream, session).await;
        if !session.is_handshaking() || !read(stream, session).await {
            return;
        }
    }
}

async fn send<D: SideData>(
    stream: &mut TcpStream,
    session: &mut (impl std::ops::DerefMut<Target = ConnectionCommon<D>> + ?Sized),
) {
    let mut out = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut out).unwrap();
    }
    // A peer that is gone shows with the next read.
    let _ = stream.write_all(&out).await;
}

async fn read<D: SideData>(
    stream: &mut TcpStream,
    session: &mut (impl std::ops::DerefMut<Target = ConnectionCommon<D>> + ?Sized),
) -> bool {
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes).await.unwrap_or(0);
    session.read_tls(&mut &bytes[..read]).unwrap();
    session.process_new_packets().is_ok() && read > 0
}

async fn receive<D: SideData>(
    stream: &mut TcpStream,
    session: &mut (impl std::ops::DerefMut<Target = ConnectionCommon<D>> + ?Sized),
    until: impl Fn(&str) -> bool,
) -> (String, Ended) {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        match std::io::Read::read(&mut session.reader(), &mut bytes) {
            Ok(0) => return (text, Ended::InOrder),
            Ok(len) => text.push_str(std::str::from_utf8(&bytes[..len]).unwrap()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return (text, Ended::Broken),
            Err(_) if until(&text) => return (text, Ended::InOrder),
            Err(_) => drop(read(stream, session).await),
        }
    }
}

/// Sends a request; what comes back up to the connection's end, and how that was.
pub async fn ask(stream: &mut TcpStream, session: &mut ClientConnection, request: &str) -> (String, Ended) {
    std::io::Write::write_all(&mut session.writer(), request.as_bytes()).unwrap();
    send(stream, session).await;
    receive(stream, session, |_| false).await
}

#[derive(Debug)]
struct Believes;

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
