//! `weir train`: how a release train goes, and what a person wants of it.

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use weir_model::train::{ReleaseTrain, Rider, RiderState};
use weir_model::{Kind, Object};

use crate::cli::{Connection, Write};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::table::{Cell, Table};
use crate::output::{Format, yaml};
use crate::target::Target;

/// Arguments of `weir train`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir train status proxy
  weir train pause proxy --reason 'release party'
  weir train pick proxy 1.5.0-n42 --reason 'security fix'

A bad version is taken off by `weir release withdraw`.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show its versions, what they have shown, and how long they took.
    Status(Status),
    /// Begin nothing new; what runs goes on.
    Pause(Which),
    /// Go on after a pause.
    Resume(Which),
    /// Let a proven version depart now.
    Pick(Pick),
}

#[derive(Debug, clap::Args)]
struct Status {
    /// Its name.
    name: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Its name.
    name: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Pick {
    /// The train.
    name: String,
    /// The version.
    version: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Shows it, or writes what is wanted of it.
pub async fn main(args: Args) -> Outcome {
    match args.verb {
        Verb::Status(status) => show(&status).await,
        Verb::Pause(which) => set(&which, json!({"paused": true}), "is to pause: nothing new begins").await,
        Verb::Resume(which) => set(&which, json!({"paused": false}), "is to go on").await,
        Verb::Pick(pick) => choose(pick).await,
    }
}

fn path(name: &str) -> String {
    Target { kind: Kind::ReleaseTrain, name: Some(name.to_owned()) }.path()
}

async fn set(which: &Which, spec: Value, told: &str) -> Outcome {
    let client = Client::new(&which.connection)?;
    client.write(Method::PATCH, &path(&which.name), &[], Some(&json!({"spec": spec})), &which.write).await?;
    println!("releasetrain/{} {told}{}", which.name, if which.write.dry_run { " (dry run)" } else { "" });
    Ok(ExitCode::SUCCESS)
}

async fn choose(pick: Pick) -> Outcome {
    let Pick { name, version, write, connection } = pick;
    let train = read(&name, &connection).await?;
    let state = train.status.riders.get(&version).map(|rider| rider.state);
    if state != Some(RiderState::Proven) {
        let is = state.map_or("not on the train".to_owned(), |state| format!("{state:?}"));
        let failure = Failure::new(format!("{version} is {is}; only what has proven itself may depart"));
        return Err(failure.hint(format!("`weir train status {name}` shows what has")));
    }
    let which = Which { name, write, connection };
    set(&which, json!({"pick": version}), &format!("is to depart with {version}")).await
}

async fn read(name: &str, connection: &Connection) -> Result<ReleaseTrain, Failure> {
    let value = Client::new(connection)?.get(&path(name), &[]).await?;
    let object: Object = serde_json::from_value(value).map_err(|error| Failure::new(error.to_string()))?;
    ReleaseTrain::try_from(object).map_err(|error| Failure::new(error.to_string()))
}

async fn show(status: &Status) -> Outcome {
    let train = read(&status.name, &status.connection).await?;
    match status.output {
        Format::Json => println!("{:#}", json!(train.status)),
        Format::Yaml => print!("{}", yaml(&json!(train.status))?),
        _ => print!("{}\n\n{}", train.status.message, table(&train).render(None)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest first.
fn table(train: &ReleaseTrain) -> Table {
    let mut riders: Vec<(&String, &Rider)> = train.status.riders.iter().collect();
    riders.sort_by_key(|(_, rider)| std::cmp::Reverse(rider.registered_at));
    let mut table = Table::new(["VERSION", "STATE", "SCORE", "REQUESTS", "TO CANARY", "TO PRODUCTION", "WHY"]);
    for (version, rider) in riders {
        let score = rider.score.map_or("-".to_owned(), |score| format!("{score:.0}"));
        let delay = |moment| rider.delay_seconds(moment).map_or("-".to_owned(), span);
        let cells = [
            version.clone(),
            format!("{:?}", rider.state),
            score,
            rider.evidence.requests.to_string(),
            delay(rider.canary_at),
            delay(rider.released_at),
            rider.why.clone(),
        ];
        table.row(cells.map(Cell::from));
    }
    table
}

/// Two units at most: `3d4h`, `12m5s`.
fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let counts = units.map(|(size, unit)| {
        let count = left / size;
        left %= size;
        (count, unit)
    });
    let told: Vec<String> = counts
        .into_iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if told.is_empty() { "0s".into() } else { told.concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let told = [0, 5, 65, 3600, 3661, 90_000, 266_400].map(span);
        assert_eq!(told, ["0s", "5s", "1m5s", "1h", "1h1m", "1d1h", "3d2h"]);
    }
}
