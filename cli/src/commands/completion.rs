//! `weir completion`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Outcome;

/// Arguments of `weir completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir completion bash > /etc/bash_completion.d/weir
  weir completion zsh > ~/.zfunc/_weir
  source <(weir completion bash)")]
pub struct Args {
    /// For which shell.
    shell: Shell,
}

/// Prints the script.
pub fn main(args: &Args) -> Outcome {
    clap_complete::generate(args.shell, &mut Cli::command(), "weir", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
