//! Whom a peer is: its certificate must lead to a root we trust, and its identity be the one expected.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use webpki::EndEntityCert;
use weir_config::IdentityMatch;

/// Longest identity that is taken (bytes): SPIFFE allows 2,048, and ours have a tenth of that.
const MAX_IDENTITY_BYTES: usize = 512;

/// A certificate that is sound but not of whom we want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongIdentity {
    #[error("the certificate has no URI as its subject alternative name, or more than one")]
    None,
    #[error("the peer is {0}, which is not one of those expected")]
    Other(String),
}

impl From<WrongIdentity> for Error {
    fn from(wrong: WrongIdentity) -> Self {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong))))
    }
}

/// The one URI among the subject alternative names; `None` if there is none or more than one (SPIFFE X.509-SVID section 2).
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let name = names.next().filter(|name| name.len() <= MAX_IDENTITY_BYTES)?;
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
    (printable && names.next().is_none()).then(|| name.to_owned())
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) identities: Vec<IdentityMatch>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), WrongIdentity> {
        if self.identities.is_empty() {
            return Ok(());
        }
        let identity = identity_of(certificate).ok_or(WrongIdentity::None)?;
        let expected = self.identities.iter().any(|expected| expected.matches(&identity));
        if expected { Ok(()) } else { Err(WrongIdentity::Other(identity)) }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        self.check_identity(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies callers: as rustls does, and they must have an identity.
#[derive(Debug)]
pub(super) struct CallerVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        identity_of(end_entity).ok_or(WrongIdentity::None)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
