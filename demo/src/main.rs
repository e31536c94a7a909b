//! `weir-demo`: small programs that give a mesh something to carry.
//!
//! [`service`] is an application: it answers over HTTP/1.1, calls other applications through its proxy's local ports,
//! and does a little work. [`load`] sends requests at a steady rate and counts what became of each. Both know nothing
//! of Weir: what they show, any program would show. [`http`] is the little of the protocol that they need, and
//! [`client`] the keep-alive client that both use.

mod client;
mod http;
mod load;
mod service;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tiny services and a load generator for trying a mesh.
#[derive(Debug, Parser)]
#[command(name = "weir-demo", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer requests, calling other services on the way.
    Service(service::Args),
    /// Send requests at a steady rate and count what became of them.
    Load(load::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Service(args) => service::run(args).await,
                Command::Load(args) => load::run(args).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-demo: {error}");
            ExitCode::FAILURE
        }
    }
}
