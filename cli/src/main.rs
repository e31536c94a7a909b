//! The weir command: runs the control plane, joins programs to the mesh, and talks to the HTTP API.
//!
//! [`cli`] is what can be typed; every command is a module of [`commands`] with its arguments and one function.
//! [`client`] speaks to the API, [`target`] reads what a command is about, [`output`] prints, [`context`] is what
//! `weir login` remembers. [`run`] (the supervisor beside a program) and [`up`] (all of Weir on one machine) are
//! programs of their own and keep their own runtime.

mod cli;
mod client;
mod commands;
mod context;
mod failure;
mod output;
mod run;
mod secure;
mod target;
mod up;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    commands::dispatch(cli::Cli::parse().command)
}
