//! `weir get`.

use std::process::ExitCode;

use serde_json::Value;
use weir_model::Kind;

use crate::cli::Connection;
use crate::client::{BASE, Client};
use crate::commands::watch;
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{self, Format};
use crate::target::{Target, targets};

/// Arguments of `weir get`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir get instances                      all instances
  weir get instances -l team=pay -o wide  by label, with more columns
  weir get app stock -o yaml              one app as it can be applied again
  weir get app/stock change/to-b          several kinds
  weir get apps,units                     two lists
  weir get changes --watch                follow them

Kinds: apps, units, instances (inst), routes, workloads (wl), freezes, changes (chg), changerecords, releases (rel),
encryptions (enc), releasetrains (train), checks, slos, tokens.")]
pub struct Args {
    /// KIND, KIND NAME..., or KIND/NAME...
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// Only with these labels.
    #[arg(short = 'l', long, value_name = "KEY=VALUE,...", default_value = "", hide_default_value = true)]
    selector: String,
    /// Only names that begin so.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only those of this app.
    #[arg(long, conflicts_with = "watch")]
    app: Option<String>,
    /// Only those of this unit.
    #[arg(long, conflicts_with = "watch")]
    unit: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Print a line for every change until interrupted.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Prints resources.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let targets = targets(&args.what)?;
    if args.watch {
        let [target] = targets.as_slice() else {
            return Err(Failure::new("--watch follows one kind or one resource").code(USAGE));
        };
        return watch::follow(&client, target, &args.selector, &args.prefix, args.output).await;
    }
    let single = targets.len() == 1 && targets[0].name.is_some();
    let (mut found, missing) = fetch(&client, &targets, &args.selector, &args.prefix).await?;
    found.iter_mut().for_each(|(_, objects)| objects.retain(|object| args.concerns(object)));
    let printed = print(&found, args.output, single)?;
    // What is there is shown all the same.
    missing.map_or(Ok(printed), Err)
}

impl Args {
    /// It is of the app and unit asked for.
    fn concerns(&self, object: &Value) -> bool {
        let is = |wanted: &Option<String>, field: &str| {
            wanted.as_ref().is_none_or(|wanted| object["spec"][field].as_str() == Some(wanted))
        };
        is(&self.app, "app") && is(&self.unit, "unit")
    }
}

/// Resources by kind.
type Found = Vec<(Kind, Vec<Value>)>;

/// One group of resources per kind, in the order asked for, and those named that are not there.
async fn fetch(
    client: &Client,
    targets: &[Target],
    selector: &str,
    prefix: &str,
) -> Result<(Found, Option<Failure>), Failure> {
    let mut groups: Found = Vec::new();
    let mut missing: Option<Failure> = None;
    for target in targets {
        let objects = match target.name {
            Some(_) => match client.get(&target.path(), &[]).await {
                Err(failure) if failure.status == Some(404) => {
                    missing = Some(match missing {
                        None => failure,
                        Some(before) => both(before, failure),
                    });
                    continue;
                }
                object => vec![object?],
            },
            None => list(client, target.kind, selector, prefix).await?,
        };
        match groups.iter_mut().find(|(kind, _)| *kind == target.kind) {
            Some((_, group)) => group.extend(objects),
            None => groups.push((target.kind, objects)),
        }
    }
    Ok((groups, missing))
}

fn both(before: Failure, failure: Failure) -> Failure {
    Failure { message: format!("{}; {}", before.message, failure.message), ..before }
}

/// All resources of a kind, every page.
pub async fn list(client: &Client, kind: Kind, selector: &str, prefix: &str) -> Result<Vec<Value>, Failure> {
    let mut query = vec![("labelSelector", selector.to_owned()), ("prefix", prefix.to_owned())];
    let mut objects = Vec::new();
    loop {
        let mut page = client.get(&format!("{BASE}/{}", kind.plural()), &query).await?;
        if let Some(items) = page["items"].as_array_mut() {
            objects.append(items);
        }
        let Some(next) = page.pointer("/metadata/continue").and_then(Value::as_str) else { return Ok(objects) };
        query.truncate(2);
        query.push(("continue", next.to_owned()));
    }
}

fn print(groups: &[(Kind, Vec<Value>)], format: Format, single: bool) -> Outcome {
    if !matches!(format, Format::Table | Format::Wide) {
        let all: Vec<Value> = groups.iter().flat_map(|(_, objects)| objects.clone()).collect();
        output::resources(&all, format, single)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (index, (kind, objects)) in groups.iter().enumerate() {
        if index > 0 {
            println!();
        }
        match objects.is_empty() {
            true => eprintln!("no {} found", kind.plural()),
            false => output::resources(objects, format, single)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
