//! `weir run`: a program and its proxy under one supervisor.

use std::process::ExitCode;

/// Arguments of `weir run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub program: Vec<String>,
}

/// Runs the supervisor until its program ends.
pub fn main(args: Args) -> ExitCode {
    eprintln!("weir run: this build has no supervisor, {:?} was not started", args.program);
    ExitCode::FAILURE
}
