//! Why a handshake failed, in few words: labels of a metric.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::verify::WrongIdentity;
use crate::io::Unsecured;

/// A closed list, in the order of their counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HandshakeFailure {
    /// The peer showed no certificate.
    NoCertificate,
    /// The peer's certificate has expired or is not valid yet.
    Expired,
    /// The peer's certificate leads to no root that is trusted.
    UnknownIssuer,
    /// The peer is not one of those expected, or has no identity.
    Identity,
    /// The peer's certificate is wrong in another way.
    Certificate,
    /// The peer did not like our certificate.
    Refused,
    /// No protocol or cipher in common.
    Incompatible,
    /// It is not TLS, or broken.
    Protocol,
    /// It took too long.
    Timeout,
    /// The peer closed or broke the connection.
    Closed,
    /// There were as many handshakes as there may be.
    Limit,
    /// The secrets have not come yet.
    NotReady,
}

impl HandshakeFailure {
    pub(crate) const ALL: &'static [HandshakeFailure] = &[
        HandshakeFailure::NoCertificate,
        HandshakeFailure::Expired,
        HandshakeFailure::UnknownIssuer,
        HandshakeFailure::Identity,
        HandshakeFailure::Certificate,
        HandshakeFailure::Refused,
        HandshakeFailure::Incompatible,
        HandshakeFailure::Protocol,
        HandshakeFailure::Timeout,
        HandshakeFailure::Closed,
        HandshakeFailure::Limit,
        HandshakeFailure::NotReady,
    ];

    /// The value of the `reason` label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::NoCertificate => "no_certificate",
            HandshakeFailure::Expired => "expired",
            HandshakeFailure::UnknownIssuer => "unknown_issuer",
            HandshakeFailure::Identity => "identity",
            HandshakeFailure::Certificate => "certificate",
            HandshakeFailure::Refused => "refused_by_peer",
            HandshakeFailure::Incompatible => "incompatible",
            HandshakeFailure::Protocol => "protocol",
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::Closed => "closed",
            HandshakeFailure::Limit => "limit",
            HandshakeFailure::NotReady => "not_ready",
        }
    }
}

impl From<&Unsecured> for HandshakeFailure {
    fn from(unsecured: &Unsecured) -> Self {
        match unsecured {
            Unsecured::Tls(error) => error.into(),
            Unsecured::Io(error) if error.kind() == io::ErrorKind::InvalidData => HandshakeFailure::Protocol,
            Unsecured::Io(_) => HandshakeFailure::Closed,
            Unsecured::TooLong => HandshakeFailure::Protocol,
        }
    }
}

impl From<&Error> for HandshakeFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
            Error::InvalidCertificate(error) => certificate(error),
            Error::AlertReceived(alert) => alert_received(*alert),
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
            _ => HandshakeFailure::Protocol,
        }
    }
}

fn certificate(error: &CertificateError) -> HandshakeFailure {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => HandshakeFailure::Expired,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => HandshakeFailure::UnknownIssuer,
        CertificateError::Other(other) if other.0.is::<WrongIdentity>() => HandshakeFailure::Identity,
        _ => HandshakeFailure::Certificate,
    }
}

fn alert_received(alert: AlertDescription) -> HandshakeFailure {
    match alert {
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => HandshakeFailure::Closed,
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::NoApplicationProtocol => HandshakeFailure::Incompatible,
        _ => HandshakeFailure::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_its_counters() {
        assert!(HandshakeFailure::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
    }
}
