//! `weir wait`.

use std::process::ExitCode;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep, timeout_at};
use weir_model::Kind;

use crate::cli::Connection;
use crate::client::Client;
use crate::failure::{Failure, Outcome, TIMED_OUT, UNREACHABLE, USAGE};
use crate::output::columns;
use crate::target::{Target, called, targets};

mod life;

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

Exits with 4 when the time is over, with 1 as soon as the phase cannot come any more, and with 3 if the control plane
cannot be reached. It waits for what is not there yet, too, and through restarts of the control plane.")]
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

/// Reads a time such as `90s`, `10m` or `2d`; a day is 24 hours.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |error: jiff::Error| format!("{error}; write e.g. 90s, 10m, 1h, 2d");
    let span: Span = text.parse().map_err(wrong)?;
    let read: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
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

    /// Refuses what can never be: only some kinds have phases and conditions, and those have names.
    fn suits(&self, kind: Kind) -> Result<(), Failure> {
        match self {
            Goal::Phase(phases) => phases.iter().try_for_each(|phase| life::known_phase(kind, phase)),
            Goal::Condition { name, .. } => life::known_condition(kind, name),
            Goal::Field { .. } | Goal::Deleted => Ok(()),
        }
    }

    /// True if what is waited for can still become so.
    fn reachable(&self, kind: Kind, object: &Value) -> bool {
        let Goal::Phase(phases) = self else { return true };
        life::reachable(kind, object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending"), phases)
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
        let mut seen = Seen::default();
        match timeout_at(deadline, reach(&client, &target, &args.r#for, &mut seen)).await {
            Ok(reached) => reached?,
            Err(_) => return Err(seen.away.take().unwrap_or_else(|| too_late(&target, &args, seen.last.as_ref()))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was seen while waiting.
#[derive(Debug, Default)]
struct Seen {
    /// The resource as it was last.
    last: Option<Value>,
    /// The control plane has answered once.
    answered: bool,
    /// It cannot be reached at the moment.
    away: Option<Failure>,
}

/// Follows the resource until it is so, through restarts of the control plane.
async fn reach(client: &Client, target: &Target, goal: &Goal, seen: &mut Seen) -> Result<(), Failure> {
    let path = target.path();
    loop {
        let (mut reached, mut there) = (false, false);
        let watch = client.watch(&path, &[], |line| {
            (seen.answered, seen.away) = (true, None);
            there |= line["type"] == "ADDED";
            reached = step(&line, goal, &mut seen.last);
            // What is there comes first, and then a bookmark.
            if !reached && *goal == Goal::Deleted && !there && line["type"] == "BOOKMARK" {
                println!("{} is not there", named(target));
                reached = true;
            }
            if !reached && line["type"] != "DELETED" && !goal.reachable(target.kind, &line["object"]) {
                return Err(never(target, &line["object"]));
            }
            Ok(!reached)
        });
        match watch.await {
            Ok(()) if reached => return Ok(()),
            Ok(()) => {}
            Err(failure) if passing(&failure) && seen.answered => {
                seen.away = Some(failure).filter(|failure| failure.code == UNREACHABLE);
                sleep(RETRY).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// The control plane is away, or knows the changes since the last look no longer: the next look begins anew.
fn passing(failure: &Failure) -> bool {
    failure.code == UNREACHABLE || failure.status == Some(410)
}

/// It will never be so.
fn never(target: &Target, object: &Value) -> Failure {
    let message = object.pointer("/status/message").and_then(Value::as_str).unwrap_or_default();
    let (name, phase) = (named(target), columns::phase(object).text);
    let failure = Failure::new(format!("{name} is {phase} and stays so: {message}"));
    failure.hint(format!("weir explain {name}"))
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
        assert!(phase.suits(Kind::Instance).is_ok());
        let refused = phase.suits(Kind::Change).unwrap_err();
        assert!(refused.code == USAGE && refused.to_string().contains("Succeeded"), "{refused}");
        let refused = phase.suits(Kind::Workload).unwrap_err();
        assert!(refused.code == USAGE && refused.to_string().contains("status.serving="), "{refused}");
        assert!(Goal::parse("status.serving=2").unwrap().suits(Kind::Workload).is_ok());
    }

    #[test]
    fn what_cannot_come_any_more_is_not_waited_for() {
        let goal = Goal::parse("phase=Succeeded").unwrap();
        let reachable = |phase: &str| goal.reachable(Kind::Change, &json!({"status": {"phase": phase}}));
        assert!(["Pending", "Running", "Blocked", "RollingBack"].into_iter().all(reachable));
        assert!(!reachable("RolledBack") && !reachable("Aborted"));
        assert!(goal.reachable(Kind::Change, &json!({})), "a bookmark says nothing");
        assert!(
            Goal::parse("condition=Aliv").unwrap().suits(Kind::Instance).unwrap_err().to_string().contains("Alive")
        );
        assert!(Goal::parse("condition=Alive").unwrap().suits(Kind::App).is_err());
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
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
