//! A private key is given to the proxy it belongs to, and is in nothing else that the control plane writes or shows.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::config::core::v3::{Node, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message;
use tokio_stream::StreamExt;
use tracing_subscriber::filter::LevelFilter;
use weir_server::{Config, Server, Storage, Tls};

const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// Everything that is logged, at the finest level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_is_nowhere_but_with_the_proxy_it_belongs_to() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(move || writer.clone()).init();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(folder.path())).await.unwrap();

    let key = key(server.xds()).await;
    let lines: Vec<&[u8]> = key.split(|b| *b == b'\n').filter(|line| line.len() > 40).collect();
    assert!(!lines.is_empty(), "a key in PEM has long lines");
    let api = server.api();
    let shown = tokio::task::spawn_blocking(move || {
        ["/metrics", "/apis/weir.dev/v1/proxies", "/apis/weir.dev/v1/instances", "/apis/weir.dev/v1/events"]
            .map(|path| get(api, path))
            .concat()
    });
    let shown = shown.await.unwrap();
    assert!(shown.windows(7).any(|w| w == b"stock-1"), "the proxy is shown");
    server.stop().await;
    absent(&lines, &shown, "what the API shows");
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.len() > 1000, "it is logged at the finest level");
    absent(&lines, &logged, "the log");
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        absent(&lines, &std::fs::read(&path).unwrap(), &path.display().to_string());
    }
}

fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        api: "127.0.0.1:0".parse().unwrap(),
        xds: "127.0.0.1:0".parse().unwrap(),
        storage: Storage::Sqlite,
        admin_token: None,
        may_mint_admin: true,
        insecure_loopback: true,
        supervisor: None,
        stop_instances: false,
        identity: Default::default(),
        authority: None,
        tls: Tls::Off,
    }
}

/// The key that a proxy which can do TLS is sent.
async fn key(xds: SocketAddr) -> Vec<u8> {
    let text = |t: &str| Value { kind: Some(Kind::StringValue(t.to_owned())) };
    let object = |fields: [(&str, Value); 2]| Struct { fields: fields.map(|(k, v)| (k.to_owned(), v)).into() };
    let weir = object([("app", text("stock")), ("tls", Value { kind: Some(Kind::BoolValue(true)) })]);
    let weir = Value { kind: Some(Kind::StructValue(weir)) };
    let metadata = object([("weir", weir), ("x", text("x"))]);
    let node = Node { id: "stock-1".to_owned(), metadata: Some(metadata), ..Default::default() };
    let request = DiscoveryRequest {
        node: Some(node),
        type_url: SDS.to_owned(),
        resource_names: vec!["weir:workload".to_owned()],
        ..Default::default()
    };
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{xds}")).await.unwrap();
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    let mut responses = client.stream_aggregated_resources(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let secret = Secret::decode(response.resources[0].value.as_slice()).unwrap();
    let Some(Type::TlsCertificate(certificate)) = secret.r#type else { panic!("no certificate") };
    match certificate.private_key.unwrap().specifier {
        Some(Specifier::InlineBytes(key)) => key,
        other => panic!("no key inline: {other:?}"),
    }
}

fn get(api: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(api).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    answer
}

fn absent(lines: &[&[u8]], bytes: &[u8], place: &str) {
    for line in lines {
        assert!(!bytes.windows(line.len()).any(|window| window == *line), "{place} holds a part of a private key");
    }
}
