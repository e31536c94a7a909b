//! One module per command: its arguments, and the function that does it.

pub mod completion;
pub mod control;
pub mod version;

use std::process::ExitCode;

use crate::cli::Command;
use crate::failure::{Failure, Outcome};
use crate::{output, run, up};

/// Does what was typed.
pub fn dispatch(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Run(args) => return run::main(args),
        Command::Up(args) => return up::main(args),
        Command::Control(args) => control::main(args),
        Command::Completion(args) => completion::main(&args),
        Command::Version(args) => block_on(version::main(args)),
    };
    outcome.unwrap_or_else(report)
}

/// Client commands do one thing at a time: one thread serves.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn report(failure: Failure) -> ExitCode {
    eprintln!("{} {failure}", output::color::stderr().red("error:"));
    ExitCode::from(failure.code)
}
