//! `cargo xtask up`: builds in release mode and becomes `weir up --demo`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use crate::root;
use crate::stage::{self, Outcome, Problem, Stages, cargo};

/// Flags for `weir up`, passed on as they are.
#[derive(Args)]
pub struct Options {
    /// E.g. `--demo-exit --report report.json`; `cargo xtask up -- --help` shows all that `weir up` takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

/// Builds what the demo runs, then replaces this process by it, so that signals and the exit code are Weir's own.
pub fn run(options: &Options) -> Outcome {
    Stages::default().run("building in release mode", build)?;
    let weir = root::target().join("release/weir");
    let error = Command::new(&weir).args(["up", "--demo"]).args(&options.flags).exec();
    Err(Problem::new(format!("{}: {error}", weir.display()), "check that the build above made it"))
}

/// The three binaries of the demo, in `target/release`.
fn build() -> Outcome {
    release(&["weir-cli", "weir-proxy", "weir-demo"])
}

/// `cargo build --release` of the packages.
pub fn release(packages: &[&str]) -> Outcome {
    let mut build = cargo(&["build", "--release"]);
    for package in packages {
        build.args(["--package", package]);
    }
    stage::run(&mut build, "mend the build; the compiler's message is above")
}
