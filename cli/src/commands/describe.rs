//! `weir describe`.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::Connection;
use crate::client::{BASE, Client};
use crate::commands::{events, get};
use crate::failure::{Failure, Outcome};
use crate::output::table::{Cell, Mood, Table};
use crate::output::{color, columns, terminal_width, time, yaml};
use crate::target::{called, targets};

/// Arguments of `weir describe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir describe change/to-b
  weir describe instance stock-east-1
  weir describe apps")]
pub struct Args {
    /// KIND, KIND NAME..., or KIND/NAME...
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Prints resources with their conditions and events.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    for (index, target) in targets(&args.what)?.into_iter().enumerate() {
        let objects = match target.name {
            Some(_) => vec![client.get(&target.path(), &[]).await?],
            None => get::list(&client, target.kind, "", "").await?,
        };
        for (number, object) in objects.iter().enumerate() {
            if index + number > 0 {
                println!();
            }
            describe(&client, object).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn describe(client: &Client, object: &Value) -> Result<(), Failure> {
    head(object);
    section("Spec", &object["spec"])?;
    let mut status = object["status"].clone();
    if let Some(fields) = status.as_object_mut() {
        fields.shift_remove("conditions");
    }
    section("Status", &status)?;
    conditions(object);
    if object["kind"] == "Encryption" {
        connections(client, object).await?;
    }
    let query = [("about", called(object)), ("limit", "20".to_owned())];
    let found = client.get(&format!("{BASE}/events"), &query).await?;
    title("Events");
    events::print(found["items"].as_array().map_or(&[], Vec::as_slice));
    Ok(())
}

/// Who speaks TLS and who plaintext, which is measured and no part of the status.
async fn connections(client: &Client, object: &Value) -> Result<(), Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let told = client.get(&format!("{BASE}/explain/encryptions/{name}"), &[]).await?;
    let text = told["text"].as_str().unwrap_or_default();
    let mut rows = text.lines().skip_while(|line| !line.starts_with("Connections")).skip(1).peekable();
    if rows.peek().is_some() {
        title("Connections");
        rows.for_each(|row| println!("{row}"));
    }
    Ok(())
}

fn head(object: &Value) {
    let (metadata, now) = (&object["metadata"], Timestamp::now());
    let pairs = |field: &str| {
        let pairs =
            metadata[field].as_object().into_iter().flatten().filter(|(key, _)| *key != "weir.dev/last-applied");
        pairs
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join("\n             ")
    };
    println!("{}", color::stdout().bold(called(object)));
    let created =
        format!("{} ({} ago)", metadata["createdAt"].as_str().unwrap_or("-"), time::age(&metadata["createdAt"], now));
    let version = format!("{} (generation {})", metadata["resourceVersion"], metadata["generation"]);
    for (name, text) in
        [("Labels", pairs("labels")), ("Annotations", pairs("annotations")), ("Created", created), ("Version", version)]
    {
        if !text.is_empty() {
            println!("{:<13}{text}", format!("{name}:"));
        }
    }
}

fn title(text: &str) {
    println!("{}", color::stdout().bold(format!("{text}:")));
}

fn section(name: &str, value: &Value) -> Result<(), Failure> {
    if value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(());
    }
    title(name);
    yaml(value)?.lines().for_each(|line| println!("  {line}"));
    Ok(())
}

fn conditions(object: &Value) {
    let now = Timestamp::now();
    let mut table = Table::new(["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    let mut any = false;
    for condition in columns::conditions(object) {
        any = true;
        let field = |name: &str| condition[name].as_str().unwrap_or_default();
        let mood = if field("status") == "True" { Mood::Good } else { Mood::Plain };
        let status = Cell { text: field("status").to_owned(), mood };
        let since = time::age(&condition["lastTransitionTime"], now);
        table.row([field("type").into(), status, since.into(), field("reason").into(), field("message").into()]);
    }
    if any {
        title("Conditions");
        table.render(terminal_width().map(|w| w.saturating_sub(2))).lines().for_each(|line| println!("  {line}"));
    }
}
