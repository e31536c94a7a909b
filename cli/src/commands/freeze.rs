//! `weir freeze`: a protection window in one line.

use std::process::ExitCode;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_model::API_VERSION;

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
  weir delete freeze/incident                         thaw

While a freeze is shut, nothing in its scope changes; what waits says so (`weir explain`).")]
pub struct Args {
    /// Its name.
    name: String,
    /// Only these apps [default: all].
    #[arg(long, value_delimiter = ',', value_name = "APP,...")]
    apps: Vec<String>,
    /// Only these units [default: all].
    #[arg(long, value_delimiter = ',', value_name = "UNIT,...")]
    units: Vec<String>,
    /// From then on, e.g. 2026-01-31T08:00:00Z [default: now].
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Until then, e.g. 2026-01-31T18:00:00Z [default: until it is deleted].
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// For so long, e.g. 6h.
    #[arg(long, value_parser = wait::duration, value_name = "TIME", conflicts_with = "until")]
    r#for: Option<std::time::Duration>,
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
    let mut spec = json!({"reason": reason, "apps": args.apps, "units": args.units});
    let from = args.from.unwrap_or_else(Timestamp::now);
    let until = match args.r#for {
        Some(span) => {
            Some(from.checked_add(span).map_err(|error| Failure::new(format!("--for: {error}")).code(USAGE))?)
        }
        None => args.until,
    };
    set(&mut spec, "from", args.from);
    set(&mut spec, "until", until);
    let body = json!({"apiVersion": API_VERSION, "kind": "Freeze", "metadata": {"name": args.name}, "spec": spec});
    client.write(Method::POST, &format!("{BASE}/freezes"), &[], Some(&body), &args.write).await?;
    let end =
        until.map_or_else(|| format!("until `weir delete freeze/{}`", args.name), |until| format!("until {until}"));
    println!("freeze/{} created, {end}{}", args.name, if args.write.dry_run { " (dry run)" } else { "" });
    Ok(ExitCode::SUCCESS)
}

fn set(spec: &mut Value, field: &str, time: Option<Timestamp>) {
    if let Some(time) = time {
        spec[field] = json!(time);
    }
}
