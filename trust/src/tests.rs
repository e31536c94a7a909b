//! Handshakes in memory, between rustls and itself.

use std::io::Write;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn make() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn fingerprint(&self) -> Trust {
        fingerprint(self.0.der()).parse().unwrap()
    }

    /// A server of this name, which sends its authority's certificate along.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let chain = vec![certificate.der().clone(), self.0.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}

/// What comes of a connection to `name`.
fn connect(trust: &Trust, server: &Arc<ServerConfig>, name: &'static str) -> Result<(), String> {
    let config = trust.client(&[]).map_err(|error| error.to_string())?;
    let mut client = ClientConnection::new(config, ServerName::try_from(name).unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| error.to_string())?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn a_file_and_a_fingerprint_are_trusted_alike() {
    let (own, other) = (Authority::make(), Authority::make());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(own.0.pem().as_bytes()).unwrap();
    let by_file: Trust = file.path().to_str().unwrap().parse().unwrap();
    for trust in [own.fingerprint(), by_file.read().unwrap(), by_file] {
        assert_eq!(connect(&trust, &own.server("weir.example"), "weir.example"), Ok(()), "{trust}");
        assert_eq!(connect(&trust, &own.server("127.0.0.1"), "127.0.0.1"), Ok(()), "{trust}");
        let stranger = connect(&trust, &other.server("weir.example"), "weir.example").unwrap_err();
        assert!(stranger.starts_with("invalid peer certificate"), "{stranger}");
        let name = connect(&trust, &own.server("other.example"), "weir.example").unwrap_err();
        assert!(name.contains("not valid for name"), "{name}");
    }
}

#[test]
fn one_that_only_sends_the_known_certificate_along_is_not_trusted() {
    let (own, other) = (Authority::make(), Authority::make());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["weir.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &other.0).unwrap();
    let chain = vec![certificate.der().clone(), own.0.der().clone()];
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = Arc::new(builder.with_single_cert(chain, key).unwrap());
    assert!(connect(&own.fingerprint(), &server, "weir.example").is_err());
}

#[test]
fn what_is_given_is_told_apart() {
    let own = Authority::make();
    assert!(matches!("ca.pem".parse(), Ok(Trust::File(_))));
    assert!(matches!(own.0.pem().parse(), Ok(Trust::Pem(_))));
    assert_eq!(own.fingerprint().to_string(), fingerprint(own.0.der()));
    let colons = format!("sha256:{}", vec!["AB"; 32].join(":"));
    assert_eq!(colons.parse::<Trust>().unwrap().to_string(), format!("sha256:{}", "ab".repeat(32)));
    for wrong in ["sha256:", "sha256:12", "sha256:zz", &format!("sha256:{}", "a".repeat(63))] {
        assert!(wrong.parse::<Trust>().unwrap_err().to_string().contains("64 hexadecimal"), "{wrong}");
    }
    let none = Trust::File("/nonexistent".into()).client(&[]).unwrap_err().to_string();
    assert!(none.contains("/nonexistent"), "{none}");
    assert!(Trust::Pem("-----BEGIN".into()).client(&[]).is_err());
}
