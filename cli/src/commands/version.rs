//! `weir version`.

use std::process::ExitCode;

use crate::cli::Connection;
use crate::client::Client;
use crate::failure::Outcome;

/// Arguments of `weir version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir version
  weir version --client")]
pub struct Args {
    /// Only this command's version; asks no server.
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Prints both versions.
pub async fn main(args: Args) -> Outcome {
    println!("client  {}", env!("CARGO_PKG_VERSION"));
    if !args.client {
        let server = Client::new(&args.connection)?.json("/version").await?;
        println!("server  {}", server["version"].as_str().unwrap_or("unknown"));
    }
    Ok(ExitCode::SUCCESS)
}
