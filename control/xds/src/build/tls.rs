//! TLS in Envoy's words: the contexts of listeners and clusters, and the secrets they name. What proxies may rely on is
//! written down in `docs/reference/encryption.md`.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::google::protobuf as wkt;
use prost::Message;
use weir_identity::{Bundle, Leaf};
use weir_model::app::Protocol;
use zeroize::Zeroize;

use super::ads;
use crate::names;
use crate::resource::{Resource, hash, pack};

/// Namespace of endpoint metadata by which Envoy chooses among a cluster's transport sockets.
pub const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Key and value by which an endpoint asks for TLS.
pub const READY: (&str, &str) = ("weir.tls", "ready");

const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
const RAW_BUFFER: &str = "envoy.transport_sockets.raw_buffer";

/// `weir:workload`. Its version is told from the certificate, never from the key.
pub fn workload(leaf: &Leaf) -> Arc<Resource> {
    let certificate = tls::TlsCertificate {
        certificate_chain: inline(leaf.chain.as_bytes()),
        private_key: inline(leaf.key.reveal().as_bytes()),
        ..Default::default()
    };
    let mut message = secret(names::WORKLOAD, tls::secret::Type::TlsCertificate(certificate));
    let body = message.encode_to_vec();
    wipe(&mut message);
    Resource::secret(names::WORKLOAD, hash([leaf.chain.as_bytes()]), body)
}

/// `weir:roots`.
pub fn roots(bundle: &Bundle) -> Arc<Resource> {
    let context =
        tls::CertificateValidationContext { trusted_ca: inline(bundle.roots.as_bytes()), ..Default::default() };
    Resource::new(names::ROOTS, &secret(names::ROOTS, tls::secret::Type::ValidationContext(context)))
}

fn secret(name: &str, r#type: tls::secret::Type) -> tls::Secret {
    tls::Secret { name: name.to_owned(), r#type: Some(r#type) }
}

fn inline(bytes: &[u8]) -> Option<core::DataSource> {
    let specifier = core::data_source::Specifier::InlineBytes(bytes.to_vec());
    Some(core::DataSource { specifier: Some(specifier), ..Default::default() })
}

fn wipe(message: &mut tls::Secret) {
    let Some(tls::secret::Type::TlsCertificate(certificate)) = &mut message.r#type else { return };
    let key = certificate.private_key.as_mut().and_then(|source| source.specifier.as_mut());
    if let Some(core::data_source::Specifier::InlineBytes(bytes)) = key {
        bytes.zeroize();
    }
}

/// Tells TLS from plaintext by the first bytes of a connection.
pub fn inspector() -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(pack(&TlsInspector::default()))),
        ..Default::default()
    }
}

/// Matches connections of one transport protocol, as [`inspector`] tells it.
pub fn transport(protocol: &str) -> Option<listener::FilterChainMatch> {
    Some(listener::FilterChainMatch { transport_protocol: protocol.to_owned(), ..Default::default() })
}

/// What a server takes from callers.
pub fn downstream(protocol: Protocol) -> core::TransportSocket {
    let alpn: &[&str] = if protocol == Protocol::Tcp { &[] } else { &["h2", "http/1.1"] };
    let roots = ValidationContextType::ValidationContextSdsSecretConfig(named(names::ROOTS));
    let context = tls::DownstreamTlsContext {
        require_client_certificate: Some(wkt::BoolValue { value: true }),
        common_tls_context: Some(common(alpn, roots)),
        ..Default::default()
    };
    socket(TLS_SOCKET, pack(&context))
}

/// TLS for the endpoints that are ready for it, plaintext for the others.
pub fn matches(app: &str, identities: &str, protocol: Protocol) -> Vec<TransportSocketMatch> {
    let ready = wkt::Value { kind: Some(wkt::value::Kind::StringValue(READY.1.to_owned())) };
    let ready = wkt::Struct { fields: HashMap::from([(READY.0.to_owned(), ready)]) };
    let one = |name: &str, r#match, socket| TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(r#match),
        transport_socket: Some(socket),
    };
    let plaintext = socket(RAW_BUFFER, pack(&RawBuffer::default()));
    vec![one("tls", ready, upstream(app, identities, protocol)), one("plaintext", wkt::Struct::default(), plaintext)]
}

fn upstream(app: &str, identities: &str, protocol: Protocol) -> core::TransportSocket {
    let matcher = tls::SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Prefix(identities.to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let validation =
        tls::CertificateValidationContext { match_typed_subject_alt_names: vec![matcher], ..Default::default() };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(validation),
        validation_context_sds_secret_config: Some(named(names::ROOTS)),
        ..Default::default()
    };
    let alpn: &[&str] = match protocol {
        Protocol::Http2 | Protocol::Grpc => &["h2"],
        Protocol::Http1 => &["http/1.1"],
        _ => &[],
    };
    let context = tls::UpstreamTlsContext {
        sni: app.to_owned(),
        common_tls_context: Some(common(alpn, ValidationContextType::CombinedValidationContext(combined))),
        ..Default::default()
    };
    socket(TLS_SOCKET, pack(&context))
}

fn common(alpn: &[&str], validation: ValidationContextType) -> tls::CommonTlsContext {
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
            tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![named(names::WORKLOAD)],
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        validation_context_type: Some(validation),
        ..Default::default()
    }
}

fn named(secret: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: secret.to_owned(), sds_config: ads() }
}

fn socket(name: &str, config: wkt::Any) -> core::TransportSocket {
    core::TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}
