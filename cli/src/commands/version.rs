//! `weir version`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::Connection;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, pretty, yaml};

/// Arguments of `weir version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir version
  weir version --client
  weir version -o json")]
pub struct Args {
    /// Only this command's version; asks no server.
    #[arg(long)]
    client: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// Prints both versions.
pub async fn main(args: Args) -> Outcome {
    let mut versions = json!({"client": env!("CARGO_PKG_VERSION")});
    let server = if args.client { Ok(None) } else { server(&args.connection).await.map(Some) };
    if let Ok(Some(server)) = &server {
        versions["server"] = server.clone();
    }
    match args.output {
        Format::Json => println!("{}", pretty(&versions)),
        Format::Yaml => print!("{}", yaml(&versions)?),
        _ => {
            for (who, version) in versions.as_object().into_iter().flatten() {
                println!("{who}  {}", version.as_str().unwrap_or("unknown"));
            }
        }
    }
    // Its own version is known, whoever is away.
    server.map(|_| ExitCode::SUCCESS)
}

async fn server(connection: &Connection) -> Result<Value, Failure> {
    Ok(Client::new(connection)?.get("/version", &[]).await?["version"].take())
}
