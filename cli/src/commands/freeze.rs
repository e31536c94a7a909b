//! `weir freeze`: a protection window in one line.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use weir_model::freeze::{Effect, Schedule};
use weir_model::{API_VERSION, FreezeSpec};

use crate::cli::{Connection, Write};
use crate::client::{BASE, Client};
use crate::commands::wait;
use crate::failure::{Failure, Outcome, USAGE};

/// Arguments of `weir freeze`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir freeze sale --reason 'summer sale' --for 6h
  weir freeze audit --reason 'yearly audit' --apps ledger,pay --until 2026-01-31T18:00:00Z
  weir freeze incident --reason 'incident 4711'       until it is deleted
  weir freeze --all --reason 'incident 4711'          the red button: everything, roll-backs too
  weir freeze nights --reason 'batch runs' --schedule '0 22 * * *' --for 8h --time-zone Asia/Shanghai
  weir freeze office --permit --reason 'office hours' --schedule '0 9 * * 1-5' --for 8h --time-zone Europe/Berlin
  weir delete freeze/incident                         thaw

While a freeze holds, nothing in its scope changes; with --permit, it changes only then. What waits says so
(`weir explain`).")]
pub struct Args {
    /// Its name [default with --all: all].
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// The red button: nothing changes anywhere, not even by roll-back, until it is deleted.
    #[arg(long, conflicts_with_all = ["apps", "lines", "units", "permit", "schedule"])]
    all: bool,
    /// Change is permitted within the window, instead of forbidden.
    #[arg(long)]
    permit: bool,
    /// Only these apps [default: all].
    #[arg(long, value_delimiter = ',', value_name = "APP,...")]
    apps: Vec<String>,
    /// Only apps of these business lines [default: all].
    #[arg(long, value_delimiter = ',', value_name = "LINE,...")]
    lines: Vec<String>,
    /// Only these units [default: all].
    #[arg(long, value_delimiter = ',', value_name = "UNIT,...")]
    units: Vec<String>,
    /// From then on, e.g. 2026-01-31T08:00:00Z [default: now].
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Until then, e.g. 2026-01-31T18:00:00Z [default: until it is deleted].
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// For so long, e.g. 6h; with --schedule, each time.
    #[arg(long, value_parser = wait::duration, value_name = "TIME")]
    r#for: Option<Duration>,
    /// Again and again, beginning at these times (five fields, as in crontab), each time --for so long.
    #[arg(long, value_name = "CRON", requires = "for")]
    schedule: Option<String>,
    /// Time zone of --schedule, e.g. Asia/Shanghai.
    #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "schedule")]
    time_zone: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Creates the Freeze.
pub async fn main(args: Args) -> Outcome {
    let reason = args.write.reason.as_deref().filter(|reason| !reason.trim().is_empty());
    let missing = || Failure::new("--reason is missing").code(USAGE).hint("say why, for those who will wait");
    let reason = reason.ok_or_else(missing)?;
    let client = Client::new(&args.connection)?;
    let name = args.name.clone().unwrap_or_else(|| "all".to_owned());
    let until = args.until()?;
    let spec = args.spec(reason, until);
    let body = json!({"apiVersion": API_VERSION, "kind": "Freeze", "metadata": {"name": name}, "spec": spec});
    let answer = client.write(Method::POST, &format!("{BASE}/freezes"), &[], Some(&body), &args.write).await?;
    let end = until.map_or_else(|| format!("until `weir delete freeze/{name}`"), |until| format!("until {until:.0}"));
    println!("freeze/{name} created, {end}{}", if args.write.dry_run { " (dry run)" } else { "" });
    answer.warn();
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// When it is over, unless that is left open.
    fn until(&self) -> Result<Option<Timestamp>, Failure> {
        let span = self.r#for.filter(|_| self.schedule.is_none());
        if span.is_some() && self.until.is_some() {
            return Err(Failure::new("--for and --until contradict each other").code(USAGE));
        }
        if let Some(until) = self.until.filter(|until| *until <= Timestamp::now()) {
            let failure = Failure::new(format!("--until {until:.0} is over already: it would hold nothing"));
            return Err(failure.code(USAGE).hint("times are UTC with Z at the end, or carry their offset"));
        }
        let Some(span) = span else { return Ok(self.until) };
        let from = self.from.unwrap_or_else(Timestamp::now);
        let until = from.checked_add(span).map_err(|error| Failure::new(format!("--for: {error}")).code(USAGE))?;
        Ok(Some(until))
    }

    fn spec(&self, reason: &str, until: Option<Timestamp>) -> FreezeSpec {
        let length = self.r#for.unwrap_or_default().as_secs();
        let schedule = self.schedule.as_ref().map(|cron| Schedule {
            cron: cron.clone(),
            duration_seconds: length,
            time_zone: self.time_zone.clone(),
        });
        FreezeSpec {
            effect: if self.permit { Effect::Permit } else { Effect::Suppress },
            from: self.from,
            until,
            schedule,
            apps: self.apps.clone(),
            lines: self.lines.clone(),
            units: self.units.clone(),
            roll_backs_too: self.all,
            reason: reason.to_owned(),
        }
    }
}
