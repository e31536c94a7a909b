//! `weir wait`.

use std::process::ExitCode;

use jiff::SignedDuration;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep, timeout_at};
use weir_model::Kind;

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
  weir wait workload/stock-east --for status.serving=3
  weir wait app/stock --for delete

Exits with 4 when the time is over. It waits for what is not there yet, too.")]
pub struct Args {
    /// KIND NAME... or KIND/NAME...
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// What for: condition=TYPE[=STATUS], phase=PHASE[,PHASE...], status.FIELD=VALUE or delete.
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
    Condition {
        name: String,
        status: String,
    },
    Phase(Vec<String>),
    /// A JSON pointer, and the value there.
    Field {
        pointer: String,
        value: String,
    },
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
            Some((path, value)) if path.starts_with("status.") || path.starts_with("spec.") => {
                Ok(Goal::Field { pointer: format!("/{}", path.replace('.', "/")), value: value.to_owned() })
            }
            None if text == "delete" || text == "deleted" => Ok(Goal::Deleted),
            _ => {
                Err("must be condition=TYPE[=STATUS], phase=PHASE[,PHASE...], status.FIELD=VALUE or delete".to_owned())
            }
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
            Goal::Field { pointer, value } => {
                let text = |field: &Value| field.as_str().map_or_else(|| field.to_string(), str::to_owned);
                object.pointer(pointer).map(text).as_ref() == Some(value)
            }
            Goal::Deleted => false,
        }
    }

    /// Refuses what can never be: only some kinds have a phase.
    fn suits(&self, kind: Kind) -> Result<(), Failure> {
        if !matches!(self, Goal::Phase(_)) || matches!(kind, Kind::Instance | Kind::Change) {
            return Ok(());
        }
        let failure = Failure::new(format!("a {kind} has no phase: nothing to wait for")).code(USAGE);
        Err(match kind {
            Kind::Workload => failure.hint("wait for its instances: --for status.serving=NUMBER"),
            _ => failure
                .hint("instances and changes have one; see `weir get KIND NAME -o yaml`, and --for status.FIELD=VALUE"),
        })
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
        args.r#for.suits(target.kind)?;
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
        let (mut reached, mut there) = (false, false);
        let watch = client.watch(&path, &[], |line| {
            there |= line["type"] == "ADDED";
            reached = step(&line, goal, last);
            // What is there comes first, and then a bookmark.
            if !reached && *goal == Goal::Deleted && !there && line["type"] == "BOOKMARK" {
                println!("{} is not there", named(target));
                reached = true;
            }
            Ok(!reached)
        });
        match watch.await {
            Ok(()) if reached => return Ok(()),
            Ok(()) => {}
            Err(failure) if passing(&failure) => sleep(RETRY).await,
            Err(failure) => return Err(failure),
        }
    }
}

/// The control plane is away, or knows the changes since the last look no longer: the next look begins anew.
fn passing(failure: &Failure) -> bool {
    failure.code == UNREACHABLE || failure.status == Some(410)
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

fn named(target: &Target) -> String {
    format!("{}/{}", target.kind.name().to_ascii_lowercase(), target.name.as_deref().unwrap_or_default())
}

fn too_late(target: &Target, args: &Args, last: Option<&Value>) -> Failure {
    let name = named(target);
    let state = match last {
        None => "it is not there".to_owned(),
        Some(object) => {
            let message = object.pointer("/status/message").and_then(Value::as_str).unwrap_or_default();
            let phase =
                object.pointer("/status/phase").map(|_| format!("its phase is {}. ", columns::phase(object).text));
            format!("{}{message}", phase.unwrap_or_default())
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
    fn only_what_has_a_phase_is_waited_for_by_phase() {
        let phase = Goal::parse("phase=Serving").unwrap();
        assert!(phase.suits(Kind::Change).is_ok() && phase.suits(Kind::Instance).is_ok());
        let refused = phase.suits(Kind::Workload).unwrap_err();
        assert!(refused.code == USAGE && refused.to_string().contains("status.serving="), "{refused}");
        assert!(Goal::parse("status.serving=2").unwrap().suits(Kind::Workload).is_ok());
    }

    #[test]
    fn history_that_is_forgotten_is_no_reason_to_give_up() {
        let refused = |status| Failure { status: Some(status), ..Failure::new("") };
        assert!(passing(&refused(410)) && passing(&Failure::new("").code(UNREACHABLE)));
        assert!(!passing(&refused(403)));
    }

    #[test]
    fn goals_are_read_and_met() {
        let object = json!({"status": {"phase": "Blocked", "conditions": [{"type": "Alive", "status": "False"}]}});
        let met = |goal: &str| Goal::parse(goal).unwrap().met(&object);
        assert!(met("phase=Succeeded,Blocked") && met("condition=alive=false"));
        assert!(!met("phase=Succeeded") && !met("condition=Alive") && !met("delete"));
        let counted = json!({"spec": {"app": "stock"}, "status": {"serving": 2}});
        let met = |goal: &str| Goal::parse(goal).unwrap().met(&counted);
        assert!(met("status.serving=2") && met("spec.app=stock"));
        assert!(!met("status.serving=20") && !met("status.other=2"));
        assert!(Goal::parse("ready").is_err() && Goal::parse("phase=").is_err());
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
