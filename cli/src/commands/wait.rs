//! `weir wait`.

use std::process::ExitCode;

use jiff::SignedDuration;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::cli::Connection;
use crate::client::Client;
use crate::failure::{Failure, Outcome, TIMED_OUT, UNREACHABLE, USAGE};
use crate::output::columns;
use crate::target::{Target, called, targets};

/// Between two attempts to reach a control plane that has gone away.
const RETRY: Duration = Duration::from_millis(500);

/// Arguments of `weir wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir wait change/to-b --for phase=Succeeded --timeout 10m
  weir wait change/to-b --for phase=Succeeded,RolledBack,Blocked
  weir wait instance order-east-1 --for condition=Alive
  weir wait instance order-east-1 --for condition=Alive=False
  weir wait app/stock --for delete

Exits with 4 when the time is over. It waits for what is not there yet, too.")]
pub struct Args {
    /// KIND NAME... or KIND/NAME...
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// What for: condition=TYPE[=STATUS], phase=PHASE[,PHASE...] or delete.
    #[arg(long, value_parser = Goal::parse, value_name = "GOAL")]
    r#for: Goal,
    /// How long, e.g. 90s, 10m, 1h.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Condition { name: String, status: String },
    Phase(Vec<String>),
    Deleted,
}

/// Reads a time such as `90s` or `10m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read: SignedDuration = text.parse().map_err(|error| format!("{error}; write e.g. 90s, 10m, 1h"))?;
    read.try_into().map_err(|_| "must not be negative".to_owned())
}

impl Goal {
    fn parse(text: &str) -> Result<Goal, String> {
        match text.split_once('=') {
            Some(("condition", rest)) if !rest.is_empty() => {
                let (name, status) = rest.split_once('=').unwrap_or((rest, "True"));
                Ok(Goal::Condition { name: name.to_owned(), status: status.to_owned() })
            }
            Some(("phase", phases)) if !phases.is_empty() => {
                Ok(Goal::Phase(phases.split(',').map(str::to_owned).collect()))
            }
            None if text == "delete" || text == "deleted" => Ok(Goal::Deleted),
            _ => Err("must be condition=TYPE[=STATUS], phase=PHASE[,PHASE...] or delete".to_owned()),
        }
    }

    fn met(&self, object: &Value) -> bool {
        match self {
            Goal::Condition { name, status } => {
                let same = |condition: &Value, field: &str, wanted: &str| {
                    condition[field].as_str().is_some_and(|have| have.eq_ignore_ascii_case(wanted))
                };
                columns::conditions(object).any(|c| same(c, "type", name) && same(c, "status", status))
            }
            Goal::Phase(phases) => {
                let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
                phases.iter().any(|wanted| wanted.eq_ignore_ascii_case(phase))
            }
            Goal::Deleted => false,
        }
    }
}

/// Waits for each resource in turn, all within the one time.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let deadline = Instant::now() + args.timeout;
    for target in targets(&args.what)? {
        if target.name.is_none() {
            return Err(Failure::new("name what to wait for: KIND/NAME").code(USAGE));
        }
        let mut last = None;
        match timeout_at(deadline, reach(&client, &target, &args.r#for, &mut last)).await {
            Ok(reached) => reached?,
            Err(_) => return Err(too_late(&target, &args, last.as_ref())),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows the resource until it is so, through restarts of the control plane.
async fn reach(client: &Client, target: &Target, goal: &Goal, last: &mut Option<Value>) -> Result<(), Failure> {
    let path = target.path();
    loop {
        if *goal == Goal::Deleted && client.find(&path).await?.is_none() {
            println!(
                "{}/{} is not there",
                target.kind.name().to_ascii_lowercase(),
                target.name.as_deref().unwrap_or("")
            );
            return Ok(());
        }
        let mut reached = false;
        let watch = client.watch(&path, &[], |line| {
            reached = step(&line, goal, last);
            Ok(!reached)
        });
        match watch.await {
            Ok(()) if reached => return Ok(()),
            Ok(()) => {}
            Err(failure) if failure.code == UNREACHABLE => sleep(RETRY).await,
            Err(failure) => return Err(failure),
        }
    }
}

/// Looks at one line of the watch; true if the goal is reached.
fn step(line: &Value, goal: &Goal, last: &mut Option<Value>) -> bool {
    let object = &line["object"];
    let reached = match line["type"].as_str() {
        Some("ADDED" | "MODIFIED") => goal.met(object),
        Some("DELETED") => *goal == Goal::Deleted,
        _ => return false,
    };
    if reached {
        println!("{} {}", called(object), if *goal == Goal::Deleted { "is deleted" } else { "condition met" });
    }
    *last = Some(object.clone());
    reached
}

fn too_late(target: &Target, args: &Args, last: Option<&Value>) -> Failure {
    let name = format!("{}/{}", target.kind.name().to_ascii_lowercase(), target.name.as_deref().unwrap_or_default());
    let state = match last {
        None => "it is not there".to_owned(),
        Some(object) => {
            let message = object.pointer("/status/message").and_then(Value::as_str).unwrap_or_default();
            format!("its phase is {}. {message}", columns::phase(object).text)
        }
    };
    let failure = Failure::new(format!("{name} is not so after {:?}: {}", args.timeout, state.trim()));
    failure.code(TIMED_OUT).hint(format!("weir explain {name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn goals_are_read_and_met() {
        let object = json!({"status": {"phase": "Blocked", "conditions": [{"type": "Alive", "status": "False"}]}});
        let met = |goal: &str| Goal::parse(goal).unwrap().met(&object);
        assert!(met("phase=Succeeded,Blocked") && met("condition=alive=false"));
        assert!(!met("phase=Succeeded") && !met("condition=Alive") && !met("delete"));
        assert!(Goal::parse("ready").is_err() && Goal::parse("phase=").is_err());
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
