//! `cargo xtask bench`: installs the peers, builds Weir in release mode, and runs `weir-bench`.

use std::ffi::OsString;

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
    /// (`--json FILE`, `--rounds N`, `--seconds S`, `--only CASE,TARGET`).
    Proxy {
        /// Flags for `weir-bench proxy`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<OsString>,
    },
}

/// Prepares, then runs it.
pub fn run(options: &Options) -> Outcome {
    let What::Proxy { flags } = &options.what;
    let mut stages = Stages::default();
    stages.run("peers", || setup::packages().and_then(|()| setup::python()))?;
    stages.run("building in release mode", || up::release(&["weir-proxy"]))?;
    stages.run("benchmark", || proxy(flags))
}

fn proxy(flags: &[OsString]) -> Outcome {
    let manifest = root::checkout().join("Cargo.toml");
    let mut command = cargo(&["run", "--quiet", "--package", "weir-bench", "--manifest-path"]);
    command.arg(manifest).args(["--", "proxy", "--weir"]);
    command.arg(root::target().join("release/weir-proxy"));
    command.arg("--venv").arg(root::venv()).args(flags);
    // A path among the flags is meant from where the caller stands.
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| root::checkout().into()));
    stage::run(&mut command, "see the message above; a run with errors reports no number")
}
