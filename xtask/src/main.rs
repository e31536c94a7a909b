//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! They exist so that a fresh checkout needs no list of steps: each command brings what it needs (Debian packages,
//! a Python environment and Node modules under `target/`), says what it does while it does it, and stops at the
//! first thing that fails with what to do about it. [`stage`] prints and times the steps, [`setup`] installs,
//! the other modules are one command each. Nothing here is linked into what users run.

mod bench;
mod fuzz;
mod root;
mod setup;
mod simulate;
mod stage;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Two commands for a newcomer:
  cargo xtask up        build in release mode, start the demo mesh, watch a change run
  cargo xtask test      install what the tests need, then run all of them

More:
  cargo xtask up --demo-exit --report report.json
  cargo xtask test --only clippy
  cargo xtask test --story house
  cargo xtask bench proxy --rounds 3 --only h1-small,weir,nginx
  cargo xtask simulate --changes 10000 --seed 1
  cargo xtask fuzz --quick";

/// Weir's own development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build Weir in release mode and start it here with the demo mesh; flags go to `weir up`.
    Up(up::Options),
    /// Install what the tests need, then run formatting, lints, unit, property and story tests.
    Test(test::Options),
    /// Only install what the tests and benchmarks need (Debian packages, Python and Node peers).
    Setup,
    /// Run benchmarks beside the peers.
    Bench(bench::Options),
    /// Simulate thousands of unattended changes on a virtual clock.
    Simulate(simulate::Options),
    /// Run the fuzz targets (needs a nightly toolchain and cargo-fuzz).
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Setup => setup::all(),
        Command::Bench(options) => bench::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("\n{problem}");
            ExitCode::FAILURE
        }
    }
}
