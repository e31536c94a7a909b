//! `weir events`.

use std::collections::HashSet;
use std::process::ExitCode;

use serde_json::Value;
use tokio::time::{Duration, sleep};

use crate::cli::Connection;
use crate::client::{BASE, Client};
use crate::failure::{Failure, Outcome, UNREACHABLE};
use crate::output::table::{Cell, Lines, Mood, Table};
use crate::output::{Format, pretty, terminal_width, time, yaml};
use crate::target::single;

/// Between two looks when following: events are appended, not watched.
const PERIOD: Duration = Duration::from_secs(1);
/// Most events asked for at once.
const MOST: usize = 1000;

/// Headers, and first widths where lines come one at a time.
const COLUMNS: [(&str, usize); 5] = [("TIME", 8), ("TYPE", 7), ("ABOUT", 24), ("REASON", 14), ("MESSAGE", 0)];

/// Arguments of `weir events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir events                      the newest of everything
  weir events change/to-b          of one resource
  weir events --warnings --limit 1000
  weir events --follow
  weir events --audit              who wrote what, and why")]
pub struct Args {
    /// Only of this resource: KIND/NAME.
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    /// The newest so many.
    #[arg(long, default_value_t = 50, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those that call for attention.
    #[arg(long, conflicts_with = "audit")]
    warnings: bool,
    /// The audit log instead: every write, who and why.
    #[arg(long, conflicts_with = "follow")]
    audit: bool,
    /// Go on until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// Prints events.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let found = fetch(&client, &args, usize::from(args.limit)).await?;
    if args.follow {
        follow(&client, &args, found).await?;
    } else {
        show(&found, &args)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &Client, args: &Args, limit: usize) -> Result<Vec<Value>, Failure> {
    let mut query = vec![("limit", limit.to_string())];
    if !args.what.is_empty() {
        let target = single(&args.what)?;
        query.push(("about", format!("{}/{}", target.kind.name(), target.name.unwrap_or_default())));
    }
    let path = format!("{BASE}/{}", if args.audit { "audit" } else { "events" });
    let mut answer = client.get(&path, &query).await?;
    let mut items = answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    items.retain(|event| !args.warnings || event["type"] == "Warning");
    Ok(items)
}

async fn follow(client: &Client, args: &Args, first: Vec<Value>) -> Result<(), Failure> {
    let mut lines = Lines::new(&COLUMNS);
    if matches!(args.output, Format::Table | Format::Wide) {
        println!("{}", lines.next(COLUMNS.map(|(header, _)| Cell::from(header)), terminal_width()));
    }
    show_lines(&first, args, &mut lines)?;
    let mut seen: HashSet<String> = first.iter().map(Value::to_string).collect();
    loop {
        sleep(PERIOD).await;
        let found = match fetch(client, args, MOST).await {
            Err(failure) if failure.code == UNREACHABLE => continue,
            found => found?,
        };
        let now: HashSet<String> = found.iter().map(Value::to_string).collect();
        let new: Vec<Value> = found.into_iter().filter(|event| !seen.contains(&event.to_string())).collect();
        show_lines(&new, args, &mut lines)?;
        seen = now;
    }
}

fn show(found: &[Value], args: &Args) -> Result<(), Failure> {
    match args.output {
        Format::Json => println!("{}", pretty(&serde_json::json!({"items": found}))),
        Format::Table if args.audit => audit(found, terminal_width()),
        Format::Wide if args.audit => audit(found, None),
        Format::Table => print(found),
        Format::Wide => print!("{}", table(found).render(None)),
        Format::Yaml | Format::Name => show_lines(found, args, &mut Lines::new(&COLUMNS))?,
    }
    Ok(())
}

/// One by one, as they come.
fn show_lines(found: &[Value], args: &Args, lines: &mut Lines) -> Result<(), Failure> {
    for event in found {
        match args.output {
            Format::Json => println!("{event}"),
            Format::Yaml => print!("---\n{}", yaml(event)?),
            Format::Name => println!("{}", about(event)),
            Format::Table => println!("{}", lines.next(cells(event), terminal_width())),
            Format::Wide => println!("{}", lines.next(cells(event), None)),
        }
    }
    Ok(())
}

/// A table of events that fits the terminal.
pub fn print(found: &[Value]) {
    match found.is_empty() {
        true => println!("none"),
        false => print!("{}", table(found).render(terminal_width())),
    }
}

fn table(found: &[Value]) -> Table {
    let mut table = Table::new(COLUMNS.map(|(header, _)| header));
    found.iter().for_each(|event| table.row(cells(event)));
    table
}

fn cells(event: &Value) -> [Cell; 5] {
    let field = |name: &str| event[name].as_str().unwrap_or_default();
    let mood = if field("type") == "Warning" { Mood::Busy } else { Mood::Plain };
    let kind = Cell { text: field("type").to_owned(), mood };
    let time = time::clock(&event["time"]);
    [time.into(), kind, about(event).into(), field("reason").into(), field("message").into()]
}

fn audit(found: &[Value], width: Option<usize>) {
    let mut table = Table::new(["TIME", "ACTOR", "VERB", "WHAT", "WHY"]);
    for entry in found {
        let text = |path: &str| Cell::from(entry.pointer(path).and_then(Value::as_str).unwrap_or_default());
        let time = time::clock(&entry["time"]);
        table.row([time.into(), text("/author/actor"), text("/verb"), about(entry).into(), text("/author/reason")]);
    }
    print!("{}", table.render(width));
}

fn about(record: &Value) -> String {
    let key = if record["about"].is_object() { &record["about"] } else { &record["key"] };
    let field = |name: &str| key[name].as_str().unwrap_or("?");
    format!("{}/{}", field("kind").to_ascii_lowercase(), field("name"))
}
