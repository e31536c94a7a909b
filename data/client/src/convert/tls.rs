//! Transport sockets and secrets: who the proxy is, whom it trusts, and how endpoints and callers are secured.
//!
//! Certificates come by SDS alone, over the same stream. Whatever would weaken the check of a peer is refused.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{DataSource, Metadata, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type as SecretType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret as Proto,
    SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct};
use weir_config::{ClusterTls, IdentityMatch, KeyPair, ListenerTls, Material, Pem, Secret, TlsMode};

use super::cluster::aggregated;
use super::error::{ConvertError, Result, Under, each, refuse};
use super::{TlsEndpoints, decode};

const TLS: &str = "envoy.transport_sockets.tls";
const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
/// Namespace of the metadata that chooses an endpoint's transport socket.
const MATCH: &str = "envoy.transport_socket_match";
/// The one criterion that is understood there, and its value.
const READY: (&str, &str) = ("weir.tls", "ready");

/// Cleartext by another name.
pub(super) fn is_raw(socket: &TransportSocket) -> bool {
    matches!(socket.name.as_str(), "envoy.transport_sockets.raw_buffer" | "raw_buffer")
}

/// How endpoints of a cluster are spoken to, and which of them that concerns.
pub(super) fn cluster(proto: &Cluster) -> Result<(Option<ClusterTls>, TlsEndpoints)> {
    let socket = proto.transport_socket.as_ref().filter(|socket| !is_raw(socket));
    match (socket, proto.transport_socket_matches.as_slice()) {
        (None, []) => Ok((None, TlsEndpoints::None)),
        (Some(socket), []) => Ok((Some(upstream(socket).under("transport_socket")?), TlsEndpoints::All)),
        (None, matches) => {
            let tls = marked(matches).under("transport_socket_matches")?;
            Ok((tls, TlsEndpoints::Marked))
        }
        (Some(_), _) => Err(ConvertError::at("transport_socket", "beside transport_socket_matches must be raw_buffer")),
    }
}

/// TLS for endpoints that say they are ready, cleartext for others.
fn marked(matches: &[TransportSocketMatch]) -> Result<Option<ClusterTls>> {
    let mut found = None;
    for (index, candidate) in matches.iter().enumerate() {
        let Some(socket) = candidate.transport_socket.as_ref().filter(|socket| !is_raw(socket)) else { continue };
        let fits = found.is_none() && is_ready(candidate.r#match.as_ref());
        if !fits {
            let message = format!("must be the only one with TLS, and match {{{}: {}}}", READY.0, READY.1);
            return Err(ConvertError::at(format!("[{index}]"), message));
        }
        found = Some(upstream(socket).under_index("", index)?);
    }
    Ok(found)
}

/// Whether an endpoint says that it is ready for TLS.
pub(super) fn endpoint_is_ready(metadata: Option<&Metadata>) -> bool {
    is_ready(metadata.and_then(|metadata| metadata.filter_metadata.get(MATCH)))
}

fn is_ready(criteria: Option<&Struct>) -> bool {
    let value = criteria.and_then(|criteria| criteria.fields.get(READY.0)).and_then(|value| value.kind.as_ref());
    matches!(value, Some(Kind::StringValue(text)) if text == READY.1)
}

fn upstream(socket: &TransportSocket) -> Result<ClusterTls> {
    let context: UpstreamTlsContext = decode(typed(socket, UPSTREAM)?).under("typed_config")?;
    refuse(context.auto_host_sni || context.auto_sni_san_validation, "auto_host_sni")?;
    let common = context.common_tls_context.unwrap_or_default();
    let validation = validation(&common).under("common_tls_context")?;
    let Some((trust, identities)) = validation else {
        return Err(ConvertError::at(
            "common_tls_context.validation_context_type",
            "is absent: a server must be verified",
        ));
    };
    let certificate = certificate(&common).under("common_tls_context")?;
    Ok(ClusterTls { sni: context.sni, certificate, trust, identities })
}

/// TLS of a listener, as one of its filter chains has it.
pub(super) fn listener(socket: &TransportSocket, mode: TlsMode) -> Result<ListenerTls> {
    let context: DownstreamTlsContext = decode(typed(socket, DOWNSTREAM)?).under("typed_config")?;
    let common = context.common_tls_context.unwrap_or_default();
    let certificate = certificate(&common).under("common_tls_context")?;
    let Some(certificate) = certificate else {
        return Err(ConvertError::at("common_tls_context.tls_certificate_sds_secret_configs", "is empty"));
    };
    let mutual = context.require_client_certificate.is_some_and(|required| required.value);
    let trust = match (mutual, validation(&common).under("common_tls_context")?) {
        (_, Some((_, identities))) if !identities.is_empty() => {
            return Err(ConvertError::unsupported("common_tls_context: subject alternative names of callers"));
        }
        (true, Some((trust, _))) => Some(trust),
        (false, None) => None,
        (true, None) => {
            return Err(ConvertError::at("require_client_certificate", "needs a validation context"));
        }
        (false, Some(_)) => {
            return Err(ConvertError::at("require_client_certificate", "must be true where callers are verified"));
        }
    };
    let defaults = ListenerTls::new(certificate);
    Ok(ListenerTls { mode, trust, ..defaults })
}

/// True if the socket is TLS; anything but that and cleartext is refused.
pub(super) fn is_tls(socket: Option<&TransportSocket>) -> Result<bool> {
    match socket {
        None => Ok(false),
        Some(socket) if is_raw(socket) => Ok(false),
        Some(socket) if socket.name == TLS => Ok(true),
        Some(socket) => Err(ConvertError::unsupported(format!("transport_socket `{}`", socket.name))),
    }
}

fn typed<'a>(socket: &'a TransportSocket, url: &str) -> Result<&'a Any> {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) if socket.name == TLS && any.type_url == url => Ok(any),
        _ => Err(ConvertError::unsupported(format!("transport socket `{}`", socket.name))),
    }
}

/// Name of the secret with the proxy's own certificate.
fn certificate(common: &CommonTlsContext) -> Result<Option<String>> {
    let params = common.tls_params.as_ref().map_or(0, |params| params.tls_maximum_protocol_version);
    let old = !matches!(TlsProtocol::try_from(params), Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv13));
    refuse(old, "tls_params.tls_maximum_protocol_version below TLSv1_3")?;
    refuse(!common.tls_certificates.is_empty(), "tls_certificates (only by SDS)")?;
    refuse(common.tls_certificate_provider_instance.is_some(), "tls_certificate_provider_instance")?;
    refuse(common.custom_handshaker.is_some(), "custom_handshaker")?;
    refuse(common.custom_tls_certificate_selector.is_some(), "custom_tls_certificate_selector")?;
    refuse(common.key_log.is_some(), "key_log")?;
    match common.tls_certificate_sds_secret_configs.as_slice() {
        [] => Ok(None),
        [secret] => Ok(Some(by_ads(secret).under("tls_certificate_sds_secret_configs[0]")?)),
        _ => Err(ConvertError::at("tls_certificate_sds_secret_configs", "has several; this proxy has one certificate")),
    }
}

fn by_ads(secret: &SdsSecretConfig) -> Result<String> {
    aggregated(secret.sds_config.as_ref()).under("sds_config")?;
    if secret.name.is_empty() { Err(ConvertError::at("name", "is empty")) } else { Ok(secret.name.clone()) }
}

/// Name of the secret with the roots of trust, and the identities that are accepted.
fn validation(common: &CommonTlsContext) -> Result<Option<(String, Vec<IdentityMatch>)>> {
    match &common.validation_context_type {
        None => Ok(None),
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            Ok(Some((by_ads(secret).under("validation_context_sds_secret_config")?, Vec::new())))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let Some(secret) = &combined.validation_context_sds_secret_config else {
                return Err(ConvertError::at("validation_context_sds_secret_config", "is absent"));
            };
            let trust = by_ads(secret).under("validation_context_sds_secret_config")?;
            let context = combined.default_validation_context.clone().unwrap_or_default();
            Ok(Some((trust, identities(&context).under("default_validation_context")?)))
        }
        Some(_) => Err(ConvertError::unsupported("validation_context_type (only by SDS)")),
    }
}

#[allow(deprecated)] // what older control planes say must not be passed over
fn identities(context: &CertificateValidationContext) -> Result<Vec<IdentityMatch>> {
    sound(context)?;
    refuse(!context.match_subject_alt_names.is_empty(), "match_subject_alt_names (use the typed ones)")?;
    refuse(context.trusted_ca.is_some(), "trusted_ca (only by SDS)")?;
    each("match_typed_subject_alt_names", &context.match_typed_subject_alt_names, identity)
}

/// Refuses what this proxy would not check.
fn sound(context: &CertificateValidationContext) -> Result<()> {
    let verifies = context.trust_chain_verification == TrustChainVerification::VerifyTrustChain as i32;
    refuse(!verifies, "trust_chain_verification: ACCEPT_UNTRUSTED")?;
    refuse(context.allow_expired_certificate, "allow_expired_certificate")?;
    refuse(!context.verify_certificate_hash.is_empty(), "verify_certificate_hash")?;
    refuse(!context.verify_certificate_spki.is_empty(), "verify_certificate_spki")?;
    refuse(context.crl.is_some(), "crl")?;
    refuse(context.custom_validator_config.is_some(), "custom_validator_config")
}

fn identity(matcher: &SubjectAltNameMatcher) -> Result<IdentityMatch> {
    refuse(matcher.san_type != SanType::Uri as i32, "san_type other than URI")?;
    let matcher = matcher.matcher.clone().unwrap_or_default();
    refuse(matcher.ignore_case, "matcher.ignore_case")?;
    match matcher.match_pattern {
        Some(MatchPattern::Exact(exact)) => Ok(IdentityMatch::Exact(exact)),
        Some(MatchPattern::Prefix(prefix)) => Ok(IdentityMatch::Prefix(prefix)),
        _ => Err(ConvertError::at("matcher", "must be `exact` or `prefix`")),
    }
}

/// A secret of SDS.
pub(super) fn secret(proto: Proto) -> Result<Arc<Secret>> {
    let mut secret = Secret { name: proto.name, ..Default::default() };
    match proto.r#type {
        Some(SecretType::TlsCertificate(certificate)) => {
            secret.certificate = Some(pair(certificate).under("tls_certificate")?);
        }
        Some(SecretType::ValidationContext(context)) => {
            sound(&context).under("validation_context")?;
            let named = !context.match_typed_subject_alt_names.is_empty();
            refuse(named, "validation_context.match_typed_subject_alt_names (in the cluster, please)")?;
            secret.trust = Some(pem(context.trusted_ca).under("validation_context.trusted_ca")?);
        }
        _ => return Err(ConvertError::at("type", "must be `tls_certificate` or `validation_context`")),
    }
    Ok(Arc::new(secret))
}

fn pair(certificate: TlsCertificate) -> Result<KeyPair> {
    refuse(certificate.private_key_provider.is_some(), "private_key_provider")?;
    refuse(certificate.password.is_some(), "password")?;
    let chain = pem(certificate.certificate_chain).under("certificate_chain")?;
    Ok(KeyPair { chain, key: pem(certificate.private_key).under("private_key")? })
}

fn pem(source: Option<DataSource>) -> Result<Pem> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => Ok(Pem::Inline(Material::new(bytes))),
        Some(Specifier::InlineString(text)) => Ok(Pem::Inline(Material::new(text.into_bytes()))),
        Some(Specifier::Filename(path)) => Ok(Pem::File(path.into())),
        Some(Specifier::EnvironmentVariable(_)) => Err(ConvertError::unsupported("environment_variable")),
        None => Err(ConvertError::here("is absent")),
    }
}
