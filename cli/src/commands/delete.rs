//! `weir delete`.

use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Method;

use crate::cli::{Connection, Write};
use crate::client::{Answer, Client};
use crate::commands::{files, get};
use crate::failure::{Failure, Outcome, USAGE};
use crate::target::{Target, called, targets};

/// Arguments of `weir delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir delete freeze/holidays --reason 'over'
  weir delete app stock order
  weir delete instances -l team=old
  weir delete -f mesh/ --ignore-not-found

An instance that Weir runs is unpublished, drained and stopped before it is deleted; a workload then starts another one
in its place. To have fewer, lower the workload's replicas. A change that is under way is aborted or rolled back first.")]
pub struct Args {
    /// KIND NAME..., KIND/NAME..., or KIND with -l.
    #[arg(value_name = "WHAT", required_unless_present = "filename")]
    what: Vec<String>,
    /// What is described in this file, folder, or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// Those with these labels.
    #[arg(short = 'l', long, value_name = "KEY=VALUE,...")]
    selector: Option<String>,
    /// Done if it is not there.
    #[arg(long)]
    ignore_not_found: bool,
    /// Delete what is in use, and an instance's record at once; otherwise one that Weir runs leaves in order first.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Deletes resources, in reverse order if they come from files.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let force: &[_] = if args.force { &[("force", "true".to_owned())] } else { &[] };
    for target in chosen(&client, &args).await? {
        let answer = client.write(Method::DELETE, &target.path(), force, None, &args.write).await;
        match answer {
            Ok(answer) => {
                let dry = if args.write.dry_run { " (dry run)" } else { "" };
                println!("{} {}{dry}", called(&answer.body), told(&answer));
            }
            Err(failure) if failure.status == Some(404) && args.ignore_not_found => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of it: a write that the server calls by name only told it to leave.
fn told(answer: &Answer) -> &'static str {
    match answer.result.as_str() {
        "" => "deleted",
        "unchanged" => "is leaving already",
        _ => "leaves: it is unpublished, drained, stopped, and then deleted",
    }
}

async fn chosen(client: &Client, args: &Args) -> Result<Vec<Target>, Failure> {
    if !args.filename.is_empty() {
        return Ok(files::read(&args.filename)?.into_iter().rev().map(|document| document.target).collect());
    }
    let mut chosen = Vec::new();
    for target in targets(&args.what)? {
        match (&target.name, &args.selector) {
            (Some(_), None) => chosen.push(target),
            (None, Some(selector)) if !selector.is_empty() => {
                let objects = get::list(client, target.kind, selector, "").await?;
                let names = objects.iter().filter_map(|o| Some(o["metadata"]["name"].as_str()?.to_owned()));
                chosen.extend(names.map(|name| Target { kind: target.kind, name: Some(name) }));
            }
            _ => return Err(Failure::new("name what to delete, or select it by label with -l").code(USAGE)),
        }
    }
    Ok(chosen)
}
