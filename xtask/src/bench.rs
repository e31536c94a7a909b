//! `cargo xtask bench`: installs the peers, builds Weir in release mode, and runs `weir-bench`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::root;
use crate::setup;
use crate::stage::{self, Outcome, Stages, cargo};
use crate::up;

/// Which benchmark.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// nginx, HAProxy, Envoy and Weir side by side; flags go to `weir-bench proxy`
    /// (`--json FILE`, `--rounds N`, `--seconds S`, `--quick`, `--only CASE,TARGET`).
    Proxy {
        /// Flags for `weir-bench proxy`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<OsString>,
    },
    /// How long planning a change takes, and how much memory, from 30,000 pods to a million.
    Plan {
        /// Write the rows as JSON to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

/// Prepares, then runs it.
pub fn run(options: &Options) -> Outcome {
    let mut stages = Stages::default();
    match &options.what {
        What::Proxy { flags } => {
            stages.run("peers", || setup::packages().and_then(|()| setup::python()))?;
            stages.run("building in release mode", || up::release(&["weir-proxy"]))?;
            stages.run("benchmark", || proxy(flags))
        }
        What::Plan { json } => stages.run("planning", || plan(json.as_deref())),
    }
}

fn plan(json: Option<&Path>) -> Outcome {
    let manifest = root::checkout().join("Cargo.toml");
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "weir-change", "--example", "plan_scale"]);
    command.arg("--manifest-path").arg(manifest).arg("--");
    if let Some(file) = json {
        command.arg("--json").arg(file);
    }
    // A path among the flags is meant from where the caller stands.
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| root::checkout().into()));
    stage::run(&mut command, "see the message above; a plan with findings reports no number")
}

fn proxy(flags: &[OsString]) -> Outcome {
    let manifest = root::checkout().join("Cargo.toml");
    // The load it generates itself must not be what is slow.
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "weir-bench", "--manifest-path"]);
    command.arg(manifest).args(["--", "proxy", "--weir"]);
    command.arg(root::target().join("release/weir-proxy"));
    command.arg("--venv").arg(root::venv()).args(flags);
    // A path among the flags is meant from where the caller stands.
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| root::checkout().into()));
    stage::run(&mut command, "see the message above; a run with errors reports no number")
}
