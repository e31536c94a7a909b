//! HAProxy as a target.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::cases::{PREFIX, decoy};
use crate::targets::Plan;

/// Writes its configuration; gives its arguments.
pub fn prepare(plan: &Plan<'_>, folder: &Path) -> io::Result<Vec<String>> {
    let mut rules = String::new();
    for number in 0..plan.decoys {
        let _infallible = writeln!(rules, "  use_backend decoy if {{ path_beg {} }}", decoy(number));
    }
    let (Plan { h1, h2, tls, certificate, .. }, upstream) = (plan, plan.upstream());
    let protocol = if plan.h2_upstream { "proto h2" } else { "" };
    let text = format!(
        "global
  nbthread 1
  maxconn 8192
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  tune.ssl.cachesize 0
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend bench
  bind {h1}
  bind {h2} proto h2
  bind {tls} ssl crt {}
{rules}  use_backend app if {{ path_beg {PREFIX} }}
backend app
  server one {upstream} pool-max-conn 128 {protocol}
backend decoy
  server one {upstream} {protocol}
",
        certificate.both.display()
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let arguments = ["-db", "-f", &file.to_string_lossy()];
    Ok(arguments.map(str::to_owned).to_vec())
}
