//! Certificates of instances.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd, string::Ia5String,
};
use zeroize::Zeroizing;

use crate::error::IdentityError;
use crate::signer::Signer;

/// Clocks of machines differ by so much at most; a certificate is valid from so long ago.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A private key in PEM. It shows nothing of itself, and is overwritten when it is dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<String>);

impl Key {
    /// PKCS #8 in PEM, for the one it belongs to.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// An instance's certificate and key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// PEM: the leaf, and what is between it and the root.
    pub chain: String,
    /// Its key.
    pub key: Key,
    /// The URI in it; a server's has none.
    pub identity: String,
    /// When it runs out.
    pub not_after: Timestamp,
    /// When to replace it: at half its life, a little sooner or later, so that a fleet does not come at once.
    pub renew_at: Timestamp,
}

/// Signs a fresh key for `identity`.
pub fn issue(signer: &Signer, identity: &str, ttl: Duration, now: Timestamp) -> Result<Leaf, IdentityError> {
    let names = vec![SanType::URI(Ia5String::try_from(identity)?)];
    sign(signer, identity, names, ttl, now)
}

/// Signs a fresh key for a server that is reached by `names`: addresses, or names of DNS. The root is sent too, for clients
/// that know it by its fingerprint only.
pub fn issue_server(signer: &Signer, names: &[String], ttl: Duration, now: Timestamp) -> Result<Leaf, IdentityError> {
    let name = |name: &String| match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ia5String::try_from(name.as_str()).map(SanType::DnsName),
    };
    let names: Vec<SanType> = names.iter().map(name).collect::<Result<_, _>>()?;
    let mut leaf = sign(signer, "", names, ttl, now)?;
    leaf.chain.push_str(&signer.root);
    Ok(leaf)
}

fn sign(
    signer: &Signer,
    identity: &str,
    names: Vec<SanType>,
    ttl: Duration,
    now: Timestamp,
) -> Result<Leaf, IdentityError> {
    let key = KeyPair::generate()?;
    let not_after = (now + ttl).min(signer.not_after);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Weir");
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now - CLOCK_SKEW, not_after);
    let certificate = params.signed_by(&key, &signer.issuer)?;
    Ok(Leaf {
        chain: certificate.pem() + &signer.intermediates,
        key: Key(Zeroizing::new(key.serialize_pem())),
        identity: identity.to_owned(),
        not_after,
        renew_at: now + renewal(ttl, fastrand::f64()),
    })
}

/// Half the life, give or take a tenth of it; `random` in 0..1.
pub fn renewal(ttl: Duration, random: f64) -> Duration {
    ttl.mul_f64(0.45 + 0.1 * random)
}

/// Makes a certificate valid between two moments.
pub fn valid(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = date_time_ymd(1970, 1, 1);
    let second = |at: Timestamp| Duration::from_secs(at.as_second().max(0).unsigned_abs());
    params.not_before = epoch + second(from);
    params.not_after = epoch + second(until);
}
