//! What others' clients and servers say to each other goes unchanged through two proxies, one beside each: gRPC with
//! streams in all four forms, errors and trailers; WebSocket; HTTP/2 from curl and nghttp to an HTTP/1.1 nginx, with bodies
//! larger than any buffer.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use weir_testkit::{LONG, Process, TempDir, eventually, net, peers};

use crate::fixed::Proxy;

#[test]
fn grpc_streams_errors_and_trailers() {
    let upstream = net::free_address();
    let mut server = Process::spawn("gRPC server", python("grpc_server.py").args([&upstream.to_string(), "one"]));
    server.wait_line("serving");
    let (proxy, _second) = Proxy::pair("Http2", "Http2", upstream);
    let mut calls = Process::spawn("gRPC client", python("grpc_calls.py").args([&proxy.address.to_string(), "one"]));
    assert!(calls.wait_exit(LONG).success(), "{:?}", calls.output());
}

#[test]
fn grpc_callers_are_told_in_their_own_words_what_went_wrong() {
    let (nobody, silent) = (net::free_address(), TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    let never = silent.local_addr().expect("it is bound");
    let forward =
        |timeout: u64| json!({ "forward": { "clusters": [{ "cluster": "upstream" }], "timeoutMs": timeout } });
    let respond = |status: u16| json!({ "action": { "respond": { "status": status } } });
    for (route, upstream, status) in [
        (json!({ "action": forward(15_000) }), nobody, "UNAVAILABLE"),
        (json!({ "action": forward(300) }), never, "DEADLINE_EXCEEDED"),
        (json!({ "action": forward(0), "matches": { "path": { "exact": "/none" } } }), nobody, "UNIMPLEMENTED"),
        (respond(503), nobody, "UNAVAILABLE"),
        (respond(429), nobody, "UNAVAILABLE"),
        (respond(404), nobody, "UNIMPLEMENTED"),
        (respond(403), nobody, "PERMISSION_DENIED"),
        (respond(401), nobody, "UNAUTHENTICATED"),
        (respond(400), nobody, "INTERNAL"),
        (respond(500), nobody, "UNKNOWN"),
    ] {
        let proxy = Proxy::configured(&json!({}), &json!({ "protocol": "Http2" }), &route, upstream);
        assert_eq!(who(proxy.address, 1), [status], "{route}");
    }
}

#[test]
fn a_grpc_server_that_says_it_is_not_well_is_not_called() {
    let (one, two) = (net::free_address(), net::free_address());
    let mut well = Process::spawn("gRPC server", python("grpc_server.py").args([&one.to_string(), "one"]));
    let mut sick = Process::spawn("sick gRPC server", python("grpc_server.py").args([&two.to_string(), "two", "sick"]));
    [&mut well, &mut sick].into_iter().for_each(|server| drop(server.wait_line("serving")));
    let endpoints = json!([{ "address": one.to_string() }, { "address": two.to_string() }]);
    let check = json!({ "probe": { "grpc": {} }, "intervalMs": 250, "timeoutMs": 10_000, "unhealthyThreshold": 1 });
    let cluster = json!({ "protocol": "Http2", "endpoints": endpoints, "healthCheck": check });
    let proxy = Proxy::configured(&json!({}), &cluster, &json!({}), one);
    eventually("only the one that is well is called", LONG, || {
        let answers = who(proxy.address, 8);
        if answers == ["one"; 8] { Ok(()) } else { Err(format!("{answers:?}")) }
    });
}

/// What a gRPC client is answered, or the status it sees, so many times.
fn who(proxy: SocketAddr, times: usize) -> Vec<String> {
    let output = python("grpc_status.py").args([&proxy.to_string(), &times.to_string()]).output();
    let output = output.expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn websocket_passes_through() {
    let upstream = net::free_address();
    let mut server = Process::spawn("WebSocket server", node().args(["serve", &upstream.to_string()]));
    server.wait_line("serving");
    let (proxy, _second) = Proxy::pair("Http1", "Http1", upstream);
    let url = format!("ws://{}/echo", proxy.address);
    let mut client = Process::spawn("WebSocket client", node().args(["check", &url]));
    assert!(client.wait_exit(LONG).success(), "{:?}", client.output());
}

#[test]
fn curl_and_nginx_exchange_large_bodies() {
    let nginx = Nginx::start();
    let (proxy, _second) = Proxy::pair("Http2", "Http1", nginx.address);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let got = folder.path().join("got");
        curl(&[version, "--output", &text(&got), &format!("http://{}/large", proxy.address)]);
        assert!(fs::read(&got).expect("curl wrote it") == large(), "{version}: the download changed");
        let put = ["--upload-file", &text(&nginx.file("large"))];
        curl(&[&[version], &put[..], &[&format!("http://{}/put/{version}", proxy.address)]].concat());
        let stored = nginx.file("put").join(version);
        assert!(fs::read(stored).expect("nginx stored it") == large(), "{version}: the upload changed");
    }
}

#[test]
fn nghttp_multiplexes_large_bodies() {
    let nginx = Nginx::start();
    let (proxy, _second) = Proxy::pair("Http2", "Http1", nginx.address);
    let large_file = format!("http://{}/large", proxy.address);
    assert!(nghttp(&[&large_file]) == large(), "the download changed");
    let statistics = nghttp(&["--null-out", "--stat", "--multiply=16", &large_file]);
    let answered = String::from_utf8_lossy(&statistics).lines().filter(|line| line.contains(" 200  20M ")).count();
    assert_eq!(answered, 16, "{}", String::from_utf8_lossy(&statistics));
    let url = format!("http://{}/put/nghttp", proxy.address);
    nghttp(&["--data", &text(&nginx.file("large")), "--header=:method: PUT", &url]);
    assert!(fs::read(nginx.file("put").join("nghttp")).expect("nginx stored it") == large(), "the upload changed");
}

/// nginx that serves `/large` and stores what is put under `/put/`.
struct Nginx {
    _process: Process,
    folder: TempDir,
    address: SocketAddr,
}

impl Nginx {
    fn start() -> Nginx {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let address = net::free_address();
        fs::write(folder.path().join("large"), large()).expect("a temporary file can be written");
        let file = folder.path().join("nginx.conf");
        fs::write(&file, nginx_config(folder.path(), address)).expect("a temporary file can be written");
        let flags = ["-c", &text(&file), "-g", "daemon off;"];
        let mut process = Process::start("nginx", peers::program("nginx", "nginx-light"), &flags);
        process.wait_http(address, "/small");
        Nginx { _process: process, folder, address }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

/// One process, so that files in the private folder are read and written by who started it.
fn nginx_config(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_max_body_size 100m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address};
    root {folder};
    location = /small {{ return 200 small; }}
    location /put/ {{ dav_methods PUT; create_full_put_path on; }}
  }}
}}
"
    )
}

/// 20 MiB that do not repeat with any power of two, so that a lost or doubled piece shows.
fn large() -> Vec<u8> {
    (0..20u32 << 20).map(|at| (at % 251) as u8).collect()
}

fn curl(arguments: &[&str]) {
    let mut command = Command::new(peers::program("curl", "curl"));
    command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]).args(arguments);
    let output = command.output().expect("curl starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn nghttp(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(peers::program("nghttp", "nghttp2-client"));
    let output = command.args(["--timeout=60"]).args(arguments).output().expect("nghttp starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn python(script: &str) -> Command {
    let mut command = Command::new(peers::python());
    command.arg(peers::script(script));
    command
}

fn node() -> Command {
    let mut command = Command::new(peers::program("node", "nodejs"));
    command.arg(peers::script("websocket.js")).env("NODE_PATH", peers::node_folder().join("node_modules"));
    command
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
