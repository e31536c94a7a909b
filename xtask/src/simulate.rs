//! `cargo xtask simulate`: builds the simulator in release mode and runs it.

use std::ffi::OsString;

use clap::Args;

use crate::root;
use crate::stage::{self, Outcome, cargo};

/// Flags go to the simulator; `cargo xtask simulate --help` shows them.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// `--changes N`, `--seed S`, `--peers`, `--doublings N`, `--pods N`, `--json FILE`, `--figures FOLDER`, `FILE`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

/// Builds and runs it.
pub fn run(options: &Options) -> Outcome {
    let manifest = root::checkout().join("Cargo.toml");
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "weir-sim", "--manifest-path"]);
    command.arg(manifest).arg("--").args(&options.flags);
    // A path among the flags is meant from where the caller stands.
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| root::checkout().into()));
    stage::run(&mut command, "see the message above; a broken invariant is a defect, its seed repeats it")
}
