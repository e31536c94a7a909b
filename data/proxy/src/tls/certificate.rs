//! What of a certificate may be shown: its fingerprint, its identity, its end.

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::identity_of;

/// What is known of a certificate without any secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateInfo {
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// The URI in its subject alternative name; empty: there is none.
    pub identity: String,
    /// When it ends, in seconds since 1970; 0: that could not be read.
    pub not_after_unix_s: i64,
}

impl CertificateInfo {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = Sha256::digest(certificate.as_ref());
        CertificateInfo {
            fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            identity: identity_of(certificate).unwrap_or_default(),
            not_after_unix_s: not_after(certificate.as_ref()).unwrap_or(0),
        }
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of the validity of a certificate (RFC 5280 section 4.1): certificate > tbsCertificate > version, serial number,
/// signature, issuer, then validity, whose second element it is.
fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (tbs, _) = element(certificate, SEQUENCE)?;
    let mut rest = if tbs.first() == Some(&VERSION) { any(tbs)?.2 } else { tbs };
    for _ in 0..3 {
        rest = any(rest)?.2;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (tag, text, _) = any(any(validity)?.2)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what follows of the first element (X.690 section 8.1); lengths of up to three bytes.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5), as seconds since 1970.
fn time(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    let valid = digits.bytes().all(|byte| byte.is_ascii_digit());
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) if valid => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) if valid => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let field = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let days = days_since_1970(year, field(0)?, field(2)?);
    Some(days * 86_400 + field(4)? * 3_600 + field(6)? * 60 + field(8)?)
}

/// Days of the proleptic Gregorian calendar. With years that begin in March, a month begins after `(153 m + 2) / 5` days
/// and leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(time(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(GENERALIZED_TIME, "20000229120000Z"), Some(951_825_600));
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for wrong in ["", "Z", "7001010000Z", "7001010000000", "70010100000xZ"] {
            assert_eq!(time(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_certificate_tells_its_end_and_its_identity() {
        let uri = rcgen::SanType::URI("spiffe://weir/app/a/unit/u".try_into().unwrap());
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![uri];
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let info = CertificateInfo::of(params.self_signed(&key).unwrap().der());
        assert_eq!((info.identity.as_str(), info.not_after_unix_s), ("spiffe://weir/app/a/unit/u", 1_927_843_200));
        assert_eq!(info.fingerprint.len(), 64);
    }

    #[test]
    fn broken_certificates_tell_nothing() {
        let key = rcgen::KeyPair::generate().unwrap();
        let whole = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        for end in 0..whole.der().len().min(300) {
            not_after(&whole.der()[..end]);
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
