//! A request of the proxy to itself: over loopback, through a worker, to a responder of its own, and back.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_config::{
    Cluster, Direction, Endpoint, Forward, Limits, Listener, ListenerProtocol, ProxyConfig, Route, RouteAction,
    RouteTable, VirtualHost, WeightedCluster,
};

use crate::{Proxy, Snapshot};

/// Name of the listener, route table and cluster.
const NAME: &str = "self-check";
/// Loopback takes microseconds; a proxy that needs longer is not well.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest message taken from the peer.
const MAX_BYTES: usize = 4096;

/// Sends the request; the answer must carry what the responder was to say. The proxy serves nothing afterwards.
pub(super) async fn through(proxy: &Proxy) -> Result<String, String> {
    let result = tokio::time::timeout(TIMEOUT, exchange(proxy)).await;
    proxy.apply(Snapshot::empty()).await.map_err(told("cannot close its own listener"))?;
    result.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
}

async fn exchange(proxy: &Proxy) -> Result<String, String> {
    let responder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(told("cannot listen on loopback"))?;
    let address = responder.local_addr().map_err(told("cannot listen on loopback"))?;
    let snapshot = Snapshot::compile(config(address)).map_err(told("its own configuration"))?;
    proxy.apply(snapshot).await.map_err(told("its own configuration"))?;
    let entrance = proxy.local_addr(NAME).ok_or("its own listener did not open")?;
    let secret = format!("{:016x}", fastrand::u64(..));
    let answer = answer(entrance, responder, &secret).await?;
    match answer.starts_with("HTTP/1.1 200") && answer.ends_with(&secret) {
        true => Ok("answered through a worker".into()),
        false => Err(format!("an unexpected answer: {:?}", answer.lines().next().unwrap_or_default())),
    }
}

/// What comes back; a responder that nobody called does not hold up the verdict.
async fn answer(entrance: SocketAddr, responder: TcpListener, secret: &str) -> Result<String, String> {
    let mut asked = pin!(ask(entrance));
    tokio::select! {
        answer = &mut asked => answer,
        served = respond(responder, secret) => {
            served?;
            asked.await
        }
    }
}

fn told<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// One outbound listener: a drill, which concerns inbound requests, must not be noticed here.
fn config(responder: SocketAddr) -> ProxyConfig {
    let endpoint = Endpoint { address: responder, weight: 1, priority: 0, labels: Default::default(), tls: false };
    let cluster = Cluster {
        name: NAME.into(),
        protocol: Default::default(),
        balance: Default::default(),
        endpoints: vec![endpoint],
        original_destination: false,
        returning: false,
        connect_timeout_ms: 1_000,
        limits: Default::default(),
        health_check: None,
        tls: None,
    };
    let listener = Listener {
        name: NAME.into(),
        bind: (Ipv4Addr::LOCALHOST, 0).into(),
        direction: Direction::Outbound,
        protocol: ListenerProtocol::Http1,
        routes: NAME.into(),
        bind_to_port: true,
        original_destination: false,
        server_names: Vec::new(),
        tcp_cluster: None,
        limits: Limits::default(),
        access_log: false,
        trace: false,
        tls: None,
        drain_ms: None,
    };
    ProxyConfig {
        listeners: vec![listener],
        route_tables: vec![table()],
        clusters: vec![cluster],
        ..Default::default()
    }
}

fn table() -> RouteTable {
    let clusters = vec![WeightedCluster { cluster: NAME.into(), weight: 1 }];
    let route = Route {
        name: NAME.into(),
        matches: Default::default(),
        action: RouteAction::Forward(Forward { clusters, ..Default::default() }),
        request_headers: Default::default(),
        response_headers: Default::default(),
    };
    let host = VirtualHost { name: NAME.into(), domains: vec!["*".into()], routes: vec![route] };
    RouteTable { name: NAME.into(), hosts: vec![host] }
}

async fn respond(responder: TcpListener, secret: &str) -> Result<(), String> {
    let (mut stream, _) = responder.accept().await.map_err(told("no request came through"))?;
    read_until(&mut stream, |text| text.ends_with("\r\n\r\n")).await?;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{secret}", secret.len());
    stream.write_all(answer.as_bytes()).await.map_err(told("cannot answer"))
}

async fn ask(entrance: SocketAddr) -> Result<String, String> {
    let mut stream = TcpStream::connect(entrance).await.map_err(told("cannot connect to its own listener"))?;
    let request = b"GET /self-check HTTP/1.1\r\nhost: self-check\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(told("cannot send"))?;
    read_until(&mut stream, |_| false).await
}

/// Reads until the end of the stream or until `is_enough`.
async fn read_until(stream: &mut TcpStream, is_enough: impl Fn(&str) -> bool) -> Result<String, String> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BYTES {
        let count = stream.read_buf(&mut bytes).await.map_err(told("cannot read"))?;
        if count == 0 || is_enough(&String::from_utf8_lossy(&bytes)) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
