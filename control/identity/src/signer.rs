//! A signing key with its certificate: made here, or the operator's own.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use crate::error::IdentityError;
use crate::leaf::{CLOCK_SKEW, valid};

/// Signs leaves.
pub struct Signer {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// Sent behind each leaf: what is between it and the root.
    pub(crate) intermediates: String,
    /// The root, PEM.
    pub(crate) root: String,
    pub(crate) not_after: Timestamp,
    /// When it is to be replaced; an operator's own is theirs to replace.
    pub(crate) replace_at: Option<Timestamp>,
}

/// An operator's own certificate authority: read, never written.
pub struct OwnSigner {
    /// PEM: the certificate that signs, then those between it and the root, the root last.
    pub certificates: String,
    /// PEM, PKCS #8.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for OwnSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnSigner").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

impl Signer {
    /// A new one, valid for `ttl`.
    pub fn make(trust_domain: &str, ttl: Duration, now: Timestamp) -> Result<Signer, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(trust_domain)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after = now + ttl;
        valid(&mut params, now - CLOCK_SKEW, not_after);
        let root = params.self_signed(&key)?.pem();
        let replace_at = Some(now + ttl / 2);
        Ok(Signer { issuer: Issuer::new(params, key), intermediates: String::new(), root, not_after, replace_at })
    }

    /// The operator's own.
    pub fn of(own: &OwnSigner, now: Timestamp) -> Result<Signer, IdentityError> {
        let key = KeyPair::from_pem(&own.key).map_err(|e| given(format!("the key is no PKCS #8 in PEM: {e}")))?;
        let chain = certificates(&own.certificates)?;
        let (Some(first), Some(root)) = (chain.first(), chain.last()) else {
            return Err(given("there is no certificate in PEM".to_owned()));
        };
        let not_after = check(first, &key, now)?;
        let between: &[String] = if chain.len() > 1 { &chain[..chain.len() - 1] } else { &[] };
        let issuer = Issuer::from_ca_cert_pem(first, key)?;
        Ok(Signer { issuer, intermediates: between.concat(), root: root.clone(), not_after, replace_at: None })
    }
}

/// Unlike any other signer's, so that a verifier finds the right root at once.
fn name(trust_domain: &str) -> Result<DistinguishedName, IdentityError> {
    let number = getrandom::u32().map_err(IdentityError::Random)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Weir");
    // X.520 bounds a common name at 64 characters.
    let domain: String = trust_domain.chars().take(40).collect();
    name.push(DnType::CommonName, format!("{domain} mesh {number:08x}"));
    Ok(name)
}

fn given(why: String) -> IdentityError {
    IdentityError::Given(why)
}

/// Each certificate of a PEM file, as PEM, without what stands between them.
pub fn certificates(text: &str) -> Result<Vec<String>, IdentityError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let end = rest[at..].find(END).ok_or_else(|| given("a certificate in PEM has no end".to_owned()))?;
        found.push(format!("{}\n", &rest[at..at + end + END.len()]));
        rest = &rest[at + end + END.len()..];
    }
    Ok(found)
}

/// A certificate that may sign, now, with this key. Returns its end.
fn check(pem: &str, key: &KeyPair, now: Timestamp) -> Result<Timestamp, IdentityError> {
    let not_after = with(pem, |certificate| {
        if !certificate.is_ca() {
            return Err(given("the first certificate is not one of a certificate authority (CA:TRUE)".to_owned()));
        }
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(given("the key is not that of the first certificate".to_owned()));
        }
        Ok(certificate.validity().not_after.timestamp())
    })??;
    let not_after = Timestamp::from_second(not_after).map_err(|e| given(e.to_string()))?;
    if not_after <= now {
        return Err(given(format!("it ran out at {not_after}")));
    }
    Ok(not_after)
}

/// When a certificate runs out.
pub fn end(pem: &str) -> Result<Timestamp, IdentityError> {
    let second = with(pem, |certificate| certificate.validity().not_after.timestamp())?;
    Timestamp::from_second(second).map_err(|e| given(e.to_string()))
}

fn with<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, IdentityError> {
    let unreadable = |what: &dyn std::fmt::Display| given(format!("a certificate can't be read: {what}"));
    let parsed = Pem::iter_from_buffer(pem.as_bytes()).next();
    let parsed = parsed.ok_or_else(|| unreadable(&"it is empty"))?.map_err(|e| unreadable(&e))?;
    let certificate = parsed.parse_x509().map_err(|e| unreadable(&e))?;
    Ok(read(&certificate))
}
