//! nginx as a target, and nginx as the upstream of all targets.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::cases::{Case, PREFIX, SMALL, UNARY, decoy};
use crate::targets::Plan;

/// Common to both roles: one worker, no log, connections that are never closed for their number of requests.
fn main(folder: &Path, http: &str) -> String {
    let folder = folder.display();
    format!(
        "worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{http}}}
"
    )
}

fn write(folder: &Path, http: &str) -> io::Result<Vec<String>> {
    let file = folder.join("nginx.conf");
    fs::write(&file, main(folder, http))?;
    let arguments = ["-c", &file.to_string_lossy(), "-g", "daemon off;"];
    Ok(arguments.map(str::to_owned).to_vec())
}

/// The target's configuration; gives its arguments.
pub fn prepare(plan: &Plan<'_>, folder: &Path) -> io::Result<Vec<String>> {
    let mut locations = String::new();
    for number in 0..plan.decoys {
        let _infallible = writeln!(locations, "    location {} {{ proxy_pass http://decoy; }}", decoy(number));
    }
    let (Plan { h1, h2, tls, certificate, .. }, upstream) = (plan, plan.upstream());
    let http = format!(
        "  upstream app {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
  upstream decoy {{ server {upstream}; keepalive 128; }}
  ssl_certificate {};
  ssl_certificate_key {};
  ssl_protocols TLSv1.3;
  ssl_session_tickets off;
  server {{
    listen {h1};
    listen {h2} http2;
    listen {tls} ssl;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header Host $host;
{locations}    location {PREFIX} {{ proxy_pass http://app; }}
  }}
",
        certificate.chain.display(),
        certificate.key.display(),
    );
    write(folder, &http)
}

/// The upstream's configuration: a small body from memory, larger ones from files in the page cache, and a unary gRPC
/// method, which always answers the same message. Gives its arguments.
pub fn serve(h1: SocketAddr, h2: SocketAddr, folder: &Path) -> io::Result<Vec<String>> {
    let file = |case: Case| format!("{}{}", folder.display(), case.path().replace("/api", ""));
    let http = format!(
        "  sendfile on;
  tcp_nopush on;
  open_file_cache max=10;
  server {{
    listen {h1};
    listen {h2} http2;
    location = {} {{ return 200 \"{}\"; }}
    location = {} {{ alias {}; }}
    location = {} {{ alias {}; }}
    location = {UNARY} {{
      alias {};
      types {{ }}
      default_type application/grpc;
      add_trailer grpc-status 0 always;
      # A file may not be posted to; this lets it.
      error_page 405 =200 $uri;
    }}
  }}
",
        Case::H1Small.path(),
        "x".repeat(SMALL),
        Case::H1Large.path(),
        file(Case::H1Large),
        Case::H1Huge.path(),
        file(Case::H1Huge),
        folder.join("unary").display(),
    );
    write(folder, &http)
}
