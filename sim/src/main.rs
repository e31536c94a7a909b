//! Runs simulations: `cargo xtask simulate`.

use std::process::ExitCode;

use clap::Parser;
use weir_sim::command::{self, Options};

/// Simulated changes under the real planner, checker, judge and executor.
#[derive(Debug, Parser)]
#[command(name = "weir-sim", max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// An inventory of your own, in YAML or JSON; else fleets are made up.
    file: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match command::run(&cli.options, cli.file.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
