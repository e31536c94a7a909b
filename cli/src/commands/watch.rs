//! `weir watch`, and `weir get --watch`.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::cli::Connection;
use crate::client::Client;
use crate::failure::{Failure, Outcome, UNREACHABLE};
use crate::output::table::{Cell, Lines, Mood};
use crate::output::{Format, columns, terminal_width, time, yaml};
use crate::target::{Target, called, single, targets};

/// Between two attempts to reach a control plane that has gone away.
const RETRY: Duration = Duration::from_secs(1);

/// First widths of the columns; they grow with what comes.
const NAME_WIDTH: usize = 20;
const CELL_WIDTH: usize = 8;

/// Arguments of `weir watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir watch instances                every change of an instance
  weir watch change/to-b -o json      one JSON object a line, for programs
  weir watch instances -l unit=east

A watch goes on by itself when the control plane restarts.")]
pub struct Args {
    /// KIND, KIND NAME, or KIND/NAME.
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// Only with these labels.
    #[arg(short = 'l', long, value_name = "KEY=VALUE,...", default_value = "", hide_default_value = true)]
    selector: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// Follows resources until interrupted.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let target = match targets(&args.what)?.as_slice() {
        [target] => target.clone(),
        _ => single(&args.what)?,
    };
    follow(&client, &target, &args.selector, "", args.output).await
}

/// Prints a line per change until interrupted; comes back after a restart of the control plane.
pub async fn follow(client: &Client, target: &Target, selector: &str, prefix: &str, format: Format) -> Outcome {
    let mut printer = Printer::new(target, format);
    let mut position = None;
    loop {
        let mut query = vec![("labelSelector", selector.to_owned())];
        if target.name.is_none() {
            query.push(("prefix", prefix.to_owned()));
        }
        query.extend(position.map(|version: u64| ("resourceVersion", version.to_string())));
        let each = |line: Value| step(&line, &mut position, &mut printer);
        match client.watch(&target.path(), &query, each).await {
            Ok(()) => {}
            Err(failure) if failure.status == Some(410) => position = None,
            Err(failure) if failure.code == UNREACHABLE && position.is_some() => sleep(RETRY).await,
            Err(failure) => return Err(failure),
        }
    }
}

/// Takes one line of the stream; false: come again.
fn step(line: &Value, position: &mut Option<u64>, printer: &mut Printer) -> Result<bool, Failure> {
    let (event, object) = (line["type"].as_str().unwrap_or_default(), &line["object"]);
    if event == "ERROR" {
        if object["code"] == 410 {
            *position = None;
        }
        return Ok(false);
    }
    if let Some(version) = object.pointer("/metadata/resourceVersion").and_then(Value::as_u64) {
        // The state at the start comes in the order of names: only from the bookmark after it do versions rise.
        if event == "BOOKMARK" || position.is_some() {
            *position = Some(version);
        }
    }
    if event != "BOOKMARK" {
        printer.show(event, object)?;
    }
    Ok(true)
}

/// Prints one line per change.
struct Printer {
    format: Format,
    lines: Lines,
}

impl Printer {
    fn new(target: &Target, format: Format) -> Printer {
        let own = columns::header(target.kind).into_iter();
        let own = own.enumerate().map(|(index, header)| (header, if index == 0 { NAME_WIDTH } else { CELL_WIDTH }));
        let columns: Vec<(&str, usize)> = [("TIME", 20), ("EVENT", 8)].into_iter().chain(own).collect();
        let mut printer = Printer { format, lines: Lines::new(&columns) };
        if matches!(format, Format::Table | Format::Wide) {
            printer.print(columns.iter().map(|(header, _)| Cell::from(*header)));
        }
        printer
    }

    fn show(&mut self, event: &str, object: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json => println!("{}", json!({"type": event, "object": object})),
            Format::Yaml => print!("---\n{}", yaml(object)?),
            Format::Name => println!("{event} {}", called(object)),
            Format::Table | Format::Wide => self.row(event, object),
        }
        Ok(())
    }

    fn row(&mut self, event: &str, object: &Value) {
        let now = Timestamp::now();
        let mood = match event {
            "ADDED" => Mood::Good,
            "DELETED" => Mood::Bad,
            _ => Mood::Plain,
        };
        let time = Cell::from(time::clock(&Value::from(now.to_string())));
        let event = Cell { text: event.to_owned(), mood };
        self.print([time, event].into_iter().chain(columns::row(object)));
    }

    fn print(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let width = if self.format == Format::Wide { None } else { terminal_width() };
        println!("{}", self.lines.next(cells, width));
    }
}
