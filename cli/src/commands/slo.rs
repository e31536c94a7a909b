//! `weir slo`: objectives for others who alert on them.

use std::process::ExitCode;

use clap::Subcommand;
use weir_model::slo::rules;
use weir_model::{Kind, Object, Slo};

use crate::cli::Connection;
use crate::client::Client;
use crate::commands::get;
use crate::failure::{Failure, Outcome};

/// Arguments of `weir slo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir slo rules > weir-slo.yaml && promtool check rules weir-slo.yaml
  weir slo rules stock-errors

How they stand: weir get slos, weir describe slo/stock-errors")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print Prometheus rules: the share of bad requests by window, the budget left, and alerts on how fast it burns.
    Rules(Rules),
}

#[derive(Debug, clap::Args)]
struct Rules {
    /// Only these objectives.
    names: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Prints rules.
pub async fn main(args: Args) -> Outcome {
    let Verb::Rules(Rules { names, connection }) = args.verb;
    let client = Client::new(&connection)?;
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(format!("an answer of the server: {error}"));
    let mut slos = Vec::new();
    for value in get::list(&client, Kind::Slo, "", "").await? {
        let object: Object = serde_json::from_value(value).map_err(|e| unreadable(&e))?;
        let slo = Slo::try_from(object).map_err(|e| unreadable(&e))?;
        if names.is_empty() || names.iter().any(|name| name == slo.name()) {
            slos.push(slo);
        }
    }
    if let Some(missing) = names.iter().find(|name| !slos.iter().any(|slo| slo.name() == **name)) {
        return Err(Failure::new(format!("there is no slo/{missing}")).hint("`weir get slos` lists them"));
    }
    print!("{}", rules(&slos));
    Ok(ExitCode::SUCCESS)
}
