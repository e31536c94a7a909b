//! `weir change`: what a person wants of a change that runs or waits, and what there is to know of it.

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use weir_model::Kind;

use crate::cli::{Connection, Write};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::target::Target;

mod checks;
mod history;
mod undo;

/// Arguments of `weir change`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir change pause to-b --reason 'sale until noon'
  weir change resume to-b
  weir change rollback to-b --reason 'support reports slow checkouts'
  weir change undo to-b                   a new change, back to the version before
  weir change approve to-b                the next batch, at level L2
  weir change skip to-b --batch 3         pass over a batch
  weir change step to-b stock-east-1      one instance, at level L0
  weir change step to-b stock-east-1 --back
  weir change plan -f to-b.yaml           what would it do?
  weir change report to-b -o md           all that it did, and why
  weir change checks                      what every change is asked
  weir change skip-check to-b S-BUDGET --reason 'this is the fix'

What it is doing: weir get changes, weir explain change/to-b, weir describe change/to-b")]
pub struct Args {
    /// What to do with it.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Finish what is in flight, begin nothing.
    Pause(Which),
    /// Go on after a pause.
    Resume(Which),
    /// Stop for good where it stands.
    Abort(Which),
    /// Try a blocked or failed batch again.
    Retry(Which),
    /// Undo what was done.
    #[command(alias = "roll-back")]
    Rollback(Which),
    /// Make a change back to the version before one that has ended.
    Undo(undo::Undo),
    /// Let the next batch begin (level L2).
    Approve(Approve),
    /// List all checks: code, when it is asked, severity, meaning.
    Checks(checks::List),
    /// Let it go on without a check. Needs --reason; who and why end in the change's record.
    SkipCheck(checks::Skip),
    /// Pass over a batch: who of it has not changed is left out, and the change goes on.
    Skip(Approve),
    /// Change one instance (level L0), or take one back (any level).
    Step(Step),
    /// Show what a change would do, before it is applied: batches and why, who waits, forecast, largest blast radius.
    Plan(history::Plan),
    /// The whole record: plans, batches, verdicts, steps, who and why.
    Report(history::Report),
    /// What the last planning changed.
    Diff(history::Show),
    /// How each batch was judged, with the evidence.
    Verdict(history::Show),
    /// Where it is, at which level, and what kept it from the next.
    Status(history::Show),
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
struct Approve {
    #[command(flatten)]
    which: Which,
    /// Which batch [default: to approve, the next one; to skip, the one that runs or is stuck, or else the next].
    #[arg(long, value_name = "NUMBER")]
    batch: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct Step {
    #[command(flatten)]
    which: Which,
    /// The instance.
    instance: String,
    /// Back to what it had before; it then leaves the change.
    #[arg(long)]
    back: bool,
}

/// Writes what is wanted into the change's spec; the change engine does it.
pub async fn main(args: Args) -> Outcome {
    match args.verb {
        Verb::Pause(which) => command(&which, "Pause", "is to pause: what is in flight finishes, nothing begins").await,
        Verb::Resume(which) => command(&which, "Run", "is to go on").await,
        Verb::Abort(which) => command(&which, "Abort", "is to stop where it stands").await,
        Verb::Rollback(which) => command(&which, "RollBack", "is to be rolled back").await,
        Verb::Retry(which) => retry(&which).await,
        Verb::Undo(undo) => undo::main(&undo).await,
        Verb::Approve(approve) => approve_batch(&approve).await,
        Verb::Checks(list) => checks::list(&list).await,
        Verb::SkipCheck(skip) => checks::skip(&skip).await,
        Verb::Skip(skip) => skip_batch(&skip).await,
        Verb::Step(step) => one_step(&step).await,
        Verb::Plan(plan) => history::plan(&plan).await,
        Verb::Report(report) => history::report(&report).await,
        Verb::Diff(show) => history::show(&show, "diff").await,
        Verb::Verdict(show) => history::show(&show, "verdict").await,
        Verb::Status(show) => history::show(&show, "status").await,
    }
}

async fn command(which: &Which, command: &str, told: &str) -> Outcome {
    let (client, change) = read(which).await?;
    refuse_ended(which, &change)?;
    write(&client, which, &change, json!({"command": command}), told).await
}

async fn retry(which: &Which) -> Outcome {
    let (client, change) = read(which).await?;
    refuse_ended(which, &change)?;
    let retries = change.pointer("/spec/retries").and_then(Value::as_u64).unwrap_or_default() + 1;
    write(&client, which, &change, json!({"retries": retries, "command": "Run"}), "is to try again").await
}

async fn approve_batch(approve: &Approve) -> Outcome {
    let which = &approve.which;
    let (client, change) = read(which).await?;
    refuse_ended(which, &change)?;
    let batch = approve.batch.unwrap_or_else(|| next_batch(&change));
    let told = format!("may run batches up to {batch}");
    write(&client, which, &change, json!({"approvedBatch": batch}), &told).await
}

async fn skip_batch(skip: &Approve) -> Outcome {
    let which = &skip.which;
    let (client, change) = read(which).await?;
    refuse_ended(which, &change)?;
    let batch = skip.batch.unwrap_or_else(|| open_batch(&change).unwrap_or_else(|| next_batch(&change)));
    let told = format!("is to pass over batch {batch}");
    write(&client, which, &change, json!({"skippedBatches": with(&change, "skippedBatches", json!(batch))}), &told)
        .await
}

async fn one_step(step: &Step) -> Outcome {
    let Step { which, instance, back } = step;
    let (client, change) = read(which).await?;
    refuse_ended(which, &change)?;
    let level = change.pointer("/status/level/level").or(change.pointer("/spec/level")).and_then(Value::as_str);
    if !back && level.is_some_and(|level| level != "L0") {
        let failure = Failure::new(format!("change/{} goes by its plan, which says who is next", which.name));
        return Err(failure.hint("single instances are changed by hand at `level: L0`"));
    }
    let way = if *back { "Back" } else { "Forward" };
    let steps = with(&change, "steps", json!({"instance": instance, "way": way}));
    let told = if *back { format!("is to take {instance} back") } else { format!("is to change {instance}") };
    write(&client, which, &change, json!({"steps": steps}), &told).await
}

/// A list of the spec with `item` in it, once.
fn with(change: &Value, list: &str, item: Value) -> Vec<Value> {
    let mut all = change["spec"][list].as_array().cloned().unwrap_or_default();
    if !all.contains(&item) {
        all.push(item);
    }
    all
}

/// The batch that runs or is stuck.
fn open_batch(change: &Value) -> Option<u64> {
    let batches = change.pointer("/status/batches").and_then(Value::as_array)?;
    let open = |batch: &&Value| ["Changing", "Baking", "Failed"].iter().any(|phase| batch["phase"] == *phase);
    batches.iter().find(open)?["number"].as_u64()
}

/// The first batch that has not begun; of a change that is not planned yet, the first.
fn next_batch(change: &Value) -> u64 {
    let batches = change.pointer("/status/batches").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let waiting = batches.iter().find(|batch| batch["phase"] == "Waiting");
    let last = batches.last().and_then(|batch| batch["number"].as_u64()).unwrap_or_default();
    waiting.and_then(|batch| batch["number"].as_u64()).unwrap_or(last + 1)
}

async fn read(which: &Which) -> Result<(Client, Value), Failure> {
    let client = Client::new(&which.connection)?;
    let change = client.get(&path(&which.name), &[]).await?;
    Ok((client, change))
}

fn path(name: &str) -> String {
    Target { kind: Kind::Change, name: Some(name.to_owned()) }.path()
}

fn refuse_ended(which: &Which, change: &Value) -> Result<(), Failure> {
    let phase = change.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    if ["Succeeded", "RolledBack", "Aborted"].contains(&phase) {
        let failure = Failure::new(format!("change/{} has ended ({phase}); nothing was written", which.name));
        return Err(failure.hint("what is wanted now is a new change: `weir apply -f` one with another name"));
    }
    Ok(())
}

/// Writes only onto the version that was read: the decision was about that one.
async fn write(client: &Client, which: &Which, change: &Value, spec: Value, told: &str) -> Outcome {
    let version = &change["metadata"]["resourceVersion"];
    let generation = change["metadata"]["generation"].clone();
    let patch = json!({"spec": spec});
    let pinned = json!({"metadata": {"resourceVersion": version}, "spec": spec});
    let answer = client.write(Method::PATCH, &path(&which.name), &[], Some(&pinned), &which.write).await;
    let answer = match answer {
        // Its status moves all the time; only another person's change of the spec is a reason to stop.
        Err(failure) if failure.status == Some(409) => {
            let (_, now) = read(which).await?;
            if now["metadata"]["generation"] != generation {
                return Err(failure);
            }
            client.write(Method::PATCH, &path(&which.name), &[], Some(&patch), &which.write).await?
        }
        answer => answer?,
    };
    let dry = if which.write.dry_run { " (dry run)" } else { "" };
    match answer.result.as_str() {
        "unchanged" => println!("change/{} unchanged: that is what is wanted already", which.name),
        _ => println!("change/{} {told}{dry}", which.name),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_batch_is_the_first_that_waits() {
        let batch = |number: u32, phase: &str| json!({"number": number, "phase": phase});
        let change = |batches: Vec<Value>| json!({"status": {"batches": batches}});
        assert_eq!(next_batch(&change(vec![batch(1, "Passed"), batch(2, "Waiting"), batch(3, "Waiting")])), 2);
        assert_eq!(next_batch(&change(vec![batch(1, "Baking")])), 2);
        assert_eq!(next_batch(&json!({})), 1);
    }

    #[test]
    fn what_is_asked_for_twice_is_there_once() {
        let change = json!({"spec": {"skippedBatches": [2]}});
        assert_eq!(with(&change, "skippedBatches", json!(2)), [json!(2)]);
        assert_eq!(with(&change, "skippedBatches", json!(3)), [json!(2), json!(3)]);
        let status =
            json!({"status": {"batches": [{"number": 1, "phase": "Passed"}, {"number": 2, "phase": "Failed"}]}});
        assert_eq!(open_batch(&status), Some(2));
    }
}
