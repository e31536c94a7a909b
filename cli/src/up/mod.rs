//! `weir up`: all of Weir on one machine.

use std::process::ExitCode;

/// Arguments of `weir up`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it until interrupted.
pub fn main(_args: Args) -> ExitCode {
    eprintln!("weir up: this build has no local mesh");
    ExitCode::FAILURE
}
