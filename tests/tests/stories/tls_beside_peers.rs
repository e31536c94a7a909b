//! TLS with programs that are not ours: OpenSSL and curl call the proxy, and the proxy calls nginx. Certificates are
//! OpenSSL's own.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use weir_testkit::{Process, TempDir, net, peers};

use crate::fixed::Proxy;

#[test]
fn curl_is_served_with_a_certificate_and_turned_away_without() {
    let pki = Pki::new();
    let proxy = pki.server();
    let (url, me) = (format!("https://{}/", proxy.address), pki.me("order"));
    for version in ["--http1.1", "--http2"] {
        let output = curl(&[&[version], &me.each_ref().map(String::as_str)[..], &[&url]].concat());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{version}: {output:?}");
    }
    assert!(!curl(&[&url]).status.success(), "a caller without a certificate was served");
    let stranger = Pki::new();
    let strange = stranger.me("order");
    assert!(!curl(&[&strange.each_ref().map(String::as_str)[..], &[&url]].concat()).status.success());
    let old = curl(&[&me.each_ref().map(String::as_str)[..], &["--tls-max", "1.2", &url]].concat());
    assert!(!old.status.success(), "TLS 1.2 was taken");
}

#[test]
fn openssl_verifies_the_proxy_and_hears_the_end() {
    let pki = Pki::new();
    let proxy = pki.server();
    let mut command = Command::new(peers::program("openssl", "openssl"));
    command.args(["s_client", "-tls1_3", "-ign_eof", "-verify_return_error", "-connect", &proxy.address.to_string()]);
    command.args(["-CAfile", &pki.file("ca.pem"), "-cert", &pki.file("order.pem"), "-key", &pki.file("order.key")]);
    let output = fed(&mut command, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Verify return code: 0 (ok)") && said.contains("\r\n\r\nhello"), "{said}");
    // What ends without being announced OpenSSL calls `unexpected eof`.
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("eof"), "{complaints}");
}

#[test]
fn nginx_is_called_if_it_is_who_was_expected() {
    let pki = Pki::new();
    let nginx = Nginx::start(&pki);
    let proxy = |identity: &str| {
        let tls = json!({
            "sni": "stock", "certificate": "order", "trust": "roots",
            "identities": [{ "exact": identity }]
        });
        let endpoints = json!([{ "address": nginx.address.to_string(), "tls": true }]);
        let cluster = json!({ "tls": tls, "endpoints": endpoints });
        Proxy::secured(&json!({}), &cluster, &json!({}), &pki.secrets(), nginx.address)
    };
    let get = |proxy: &Proxy| {
        let output = curl(&[&format!("http://{}/", proxy.address)]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(get(&proxy("spiffe://weir/app/stock/unit/a")), "TLSv1.3 SUCCESS stock");
    assert!(!get(&proxy("spiffe://weir/app/pay/unit/a")).contains("TLSv1.3"));
}

/// An authority and two leaves, in a folder of their own.
struct Pki {
    folder: TempDir,
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

impl Pki {
    fn new() -> Pki {
        let pki = Pki { folder: TempDir::new().expect("a temporary folder can be made") };
        let (key, certificate) = (pki.file("ca.key"), pki.file("ca.pem"));
        let authority = ["-subj", "/CN=authority", "-days", "2", "-keyout", &key, "-out", &certificate];
        openssl(&[&["req", "-x509"], &KEY[..], &authority[..]].concat());
        ["stock", "order"].iter().for_each(|app| pki.issue(app));
        pki
    }

    fn issue(&self, app: &str) {
        let file = |ending: &str| self.file(&format!("{app}.{ending}"));
        let name = format!("subjectAltName=URI:spiffe://weir/app/{app}/unit/a\n");
        fs::write(file("ext"), name).expect("a temporary file can be written");
        let subject = format!("/CN={app}");
        openssl(&[&["req"], &KEY[..], &["-subj", &subject, "-keyout", &file("key"), "-out", &file("csr")]].concat());
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-CAcreateserial",
            "-in",
            &file("csr"),
            "-out",
            &file("pem"),
            "-CA",
            &self.file("ca.pem"),
            "-CAkey",
            &self.file("ca.key"),
            "-extfile",
            &file("ext"),
        ]);
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// curl's arguments: whom it trusts (names are not checked, since identities are no host names) and who it is.
    fn me(&self, app: &str) -> [String; 5] {
        let (certificate, key) = (self.file(&format!("{app}.pem")), self.file(&format!("{app}.key")));
        ["--insecure".into(), "--cert".into(), certificate, "--key".into(), key]
    }

    fn secrets(&self) -> Value {
        let leaf = |app: &str| {
            let (chain, key) = (self.file(&format!("{app}.pem")), self.file(&format!("{app}.key")));
            json!({ "name": app, "certificate": { "chain": { "file": chain }, "key": { "file": key } } })
        };
        json!([leaf("stock"), leaf("order"), { "name": "roots", "trust": { "file": self.file("ca.pem") } }])
    }

    /// A proxy that takes nothing but TLS, and answers by itself.
    fn server(&self) -> Proxy {
        let listener = json!({ "tls": { "certificate": "stock", "trust": "roots", "mode": "strict" } });
        let route = json!({ "action": { "respond": { "status": 200, "body": "hello" } } });
        Proxy::secured(&listener, &json!({}), &route, &self.secrets(), net::free_address())
    }
}

/// nginx that wants a certificate of its callers and tells them what it made of it.
struct Nginx {
    _process: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Nginx {
    fn start(pki: &Pki) -> Nginx {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let (address, ready) = (net::free_address(), net::free_address());
        let file = folder.path().join("nginx.conf");
        let config = format!(
            "master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen {ready}; location / {{ return 200 ready; }} }}
  server {{
    listen {address} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_client_certificate {ca};
    ssl_verify_client on;
    location / {{ return 200 '$ssl_protocol $ssl_client_verify $ssl_server_name'; }}
  }}
}}
",
            folder = folder.path().display(),
            chain = pki.file("stock.pem"),
            key = pki.file("stock.key"),
            ca = pki.file("ca.pem"),
        );
        fs::write(&file, config).expect("a temporary file can be written");
        let flags = ["-c", &file.display().to_string(), "-g", "daemon off;"];
        let mut process = Process::start("nginx", peers::program("nginx", "nginx-light"), &flags);
        process.wait_http(ready, "/");
        Nginx { _process: process, _folder: folder, address }
    }
}

fn curl(arguments: &[&str]) -> Output {
    let mut command = Command::new(peers::program("curl", "curl"));
    command.args(["--silent", "--show-error", "--max-time", "30"]).args(arguments);
    command.output().expect("curl starts")
}

fn openssl(arguments: &[&str]) {
    let mut command = Command::new(peers::program("openssl", "openssl"));
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("openssl starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a command with a text as its input.
fn fed(command: &mut Command, text: &str) -> Output {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("it has an input").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}
