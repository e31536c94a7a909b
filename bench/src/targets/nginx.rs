//! nginx as a target, and nginx as the upstream of all targets.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use weir_testkit::{Process, TempDir, net};

use crate::cases::{Case, DECOYS, LARGE, PREFIX, SMALL, decoy};
use crate::load::LOAD_CORE;
use crate::targets::{Plan, Programs, pinned};

/// Common to both roles: one worker, no log, connections that are never closed for their number of requests.
fn main(folder: &Path, http: &str) -> String {
    let folder = folder.display();
    format!(
        "worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
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
pub fn prepare(plan: &Plan, folder: &Path) -> io::Result<Vec<String>> {
    let mut locations = String::new();
    for number in 0..DECOYS {
        let _infallible = writeln!(locations, "    location {} {{ proxy_pass http://decoy; }}", decoy(number));
    }
    let Plan { h1, h2, upstream } = plan;
    let http = format!(
        "  upstream app {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
  upstream decoy {{ server {upstream}; keepalive 128; }}
  server {{
    listen {h1};
    listen {h2} http2;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header Host $host;
{locations}    location {PREFIX} {{ proxy_pass http://app; }}
  }}
"
    );
    write(folder, &http)
}

/// The upstream on core 0: a small body from memory, a large one from a file in the page cache.
///
/// # Errors
/// If its files cannot be written.
pub fn upstream(programs: &Programs) -> io::Result<(Process, SocketAddr, TempDir)> {
    let folder = TempDir::new()?;
    // The worker of a root master runs as another user and must get at the file.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::write(folder.path().join("large"), "x".repeat(LARGE))?;
    let address = net::free_address();
    let http = format!(
        "  sendfile on;
  tcp_nopush on;
  open_file_cache max=10;
  server {{
    listen {address};
    location = {} {{ return 200 \"{}\"; }}
    location = {} {{ alias {}/large; }}
  }}
",
        Case::H1Small.path(),
        "x".repeat(SMALL),
        Case::H1Large.path(),
        folder.path().display(),
    );
    let arguments = write(folder.path(), &http)?;
    let mut process = pinned(LOAD_CORE, "upstream nginx", &programs.nginx, &arguments);
    process.wait_http(address, Case::H1Large.path());
    Ok((process, address, folder))
}
