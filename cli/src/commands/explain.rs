//! `weir explain`.

use std::process::ExitCode;

use crate::cli::Connection;
use crate::client::{BASE, Client};
use crate::commands::events;
use crate::failure::Outcome;
use crate::output::{Format, color, pretty, yaml};
use crate::target::single;

/// Arguments of `weir explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir explain change/to-b        what does it wait for, or why was it blocked?
  weir explain instance order-east-2")]
pub struct Args {
    /// KIND/NAME or KIND NAME.
    #[arg(required = true, num_args = 1..=2, value_name = "WHAT")]
    what: Vec<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// Prints why a resource waits, was blocked, or is as it is.
pub async fn main(args: Args) -> Outcome {
    let target = single(&args.what)?;
    let path = target.path().replacen(BASE, &format!("{BASE}/explain"), 1);
    let told = Client::new(&args.connection)?.get(&path, &[]).await?;
    match args.output {
        Format::Json => println!("{}", pretty(&told)),
        Format::Yaml => print!("{}", yaml(&told)?),
        _ => {
            println!("{}", told["text"].as_str().unwrap_or_default());
            if let Some(warnings) = told["warnings"].as_array().filter(|w| !w.is_empty()) {
                println!("\n{}", color::stdout().bold("Warnings:"));
                events::print(warnings);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
