//! HAProxy as a target.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::cases::{DECOYS, PREFIX, decoy};
use crate::targets::Plan;

/// Writes its configuration; gives its arguments.
pub fn prepare(plan: &Plan, folder: &Path) -> io::Result<Vec<String>> {
    let mut rules = String::new();
    for number in 0..DECOYS {
        let _infallible = writeln!(rules, "  use_backend decoy if {{ path_beg {} }}", decoy(number));
    }
    let Plan { h1, h2, upstream } = plan;
    let text = format!(
        "global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend bench
  bind {h1}
  bind {h2} proto h2
{rules}  use_backend app if {{ path_beg {PREFIX} }}
backend app
  server one {upstream} pool-max-conn 128
backend decoy
  server one {upstream}
"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let arguments = ["-db", "-f", &file.to_string_lossy()];
    Ok(arguments.map(str::to_owned).to_vec())
}
