//! One module per command: its arguments, and the function that does it.

pub mod apply;
pub mod change;
pub mod check;
pub mod completion;
pub mod control;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod events;
pub mod explain;
mod files;
pub mod freeze;
pub mod get;
pub mod login;
pub mod proxies;
pub mod release;
pub mod simulate;
pub mod slo;
pub mod token;
pub mod train;
pub mod version;
pub mod wait;
pub mod watch;

use std::process::ExitCode;

use crate::cli::{Ask, Command};
use crate::failure::{Failure, Outcome};
use crate::{output, run, up};

/// Does what was typed.
pub fn dispatch(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Run(args) => return run::main(*args),
        Command::Up(args) => return up::main(args),
        Command::Control(args) => control::main(args),
        Command::Simulate(args) => {
            end_with_the_reader();
            simulate::main(&args)
        }
        Command::Completion(args) => {
            end_with_the_reader();
            completion::main(&args)
        }
        Command::Ask(command) => {
            end_with_the_reader();
            block_on(ask(command))
        }
    };
    outcome.unwrap_or_else(report)
}

/// Commands that talk to the API.
async fn ask(command: Ask) -> Outcome {
    match command {
        Ask::Apply(args) => apply::main(args).await,
        Ask::Get(args) => get::main(args).await,
        Ask::Describe(args) => describe::main(args).await,
        Ask::Delete(args) => delete::main(args).await,
        Ask::Watch(args) => watch::main(args).await,
        Ask::Diff(args) => diff::main(args).await,
        Ask::Wait(args) => wait::main(args).await,
        Ask::Change(args) => change::main(args).await,
        Ask::Freeze(args) => freeze::main(args).await,
        Ask::Release(args) => release::main(*args).await,
        Ask::Train(args) => train::main(args).await,
        Ask::Slo(args) => slo::main(args).await,
        Ask::Explain(args) => explain::main(args).await,
        Ask::Events(args) => events::main(args).await,
        Ask::Check(args) => check::main(args).await,
        Ask::Proxies(args) => proxies::main(args).await,
        Ask::Login(args) => login::main(args).await,
        Ask::Token(args) => token::main(args).await,
        Ask::Version(args) => version::main(args).await,
    }
}

/// `weir get ... | head` ends quietly with its reader, as other commands do; Rust's default is to fail with a panic.
fn end_with_the_reader() {
    // SAFETY: nothing else runs yet, and the default disposition calls no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Client commands do one thing at a time: one thread serves.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn report(failure: Failure) -> ExitCode {
    eprintln!("{} {failure}", output::color::stderr().red("error:"));
    ExitCode::from(failure.code)
}
