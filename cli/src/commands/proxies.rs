//! `weir proxies`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Connection;
use crate::client::{BASE, Client};
use crate::failure::{Failure, Outcome};
use crate::output::table::{Cell, Mood, Table};
use crate::output::{Format, color, pretty, terminal_width, time, yaml};

/// Types in the order in which they are sent.
const TYPES: [&str; 4] = ["CDS", "EDS", "LDS", "RDS"];
/// Characters of a version that are shown.
const SHORT: usize = 8;

/// Arguments of `weir proxies`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir proxies                   is everybody up to date?
  weir proxies -o wide           with versions, traffic and memory
  weir proxies stock             only of this app
  weir proxies --stale           only those that lag behind or have rejected something

ok: the version sent is acknowledged; sent: not yet; REJECTED: the proxy refused it, its own words follow below;
-: never sent.")]
pub struct Args {
    /// Only of this app, or of this name.
    #[arg(value_name = "APP|NAME")]
    only: Option<String>,
    /// Only those that lag behind or have rejected something.
    #[arg(long)]
    stale: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// One connected proxy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Its instance.
    pub node: String,
    /// Its app.
    pub app: String,
    /// What it says it is.
    pub agent: String,
    protocol: String,
    connected_at: Value,
    /// By type.
    pub types: BTreeMap<String, Type>,
    health: Option<Value>,
}

/// One type of configuration on one proxy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Type {
    sent: String,
    acknowledged: String,
    rejected: String,
    /// Why, in the proxy's words.
    pub error: String,
    resources: usize,
}

impl Type {
    /// The last answer was a refusal.
    pub fn refused(&self) -> bool {
        !self.rejected.is_empty() && self.rejected == self.sent
    }

    /// What was sent is in force.
    pub fn current(&self) -> bool {
        self.sent == self.acknowledged
    }
}

/// Reads all proxies.
pub async fn fetch(client: &Client) -> Result<Vec<(Proxy, Value)>, Failure> {
    let mut answer = client.get(&format!("{BASE}/proxies"), &[]).await?;
    let items = answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let read = |item: Value| {
        let proxy = serde_json::from_value(item.clone()).map_err(|error| Failure::new(error.to_string()))?;
        Ok((proxy, item))
    };
    items.into_iter().map(read).collect()
}

/// Prints proxies and what they have acknowledged.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let mut found = fetch(&client).await?;
    found.retain(|(proxy, _)| args.only.as_ref().is_none_or(|only| *only == proxy.app || *only == proxy.node));
    found.retain(|(proxy, _)| !args.stale || proxy.types.values().any(|t| t.refused() || !t.current()));
    found.sort_by(|(a, _), (b, _)| a.node.cmp(&b.node));
    let raw = || serde_json::json!({"items": found.iter().map(|(_, item)| item).collect::<Vec<_>>()});
    match args.output {
        Format::Json => println!("{}", pretty(&raw())),
        Format::Yaml => print!("{}", yaml(&raw())?),
        Format::Name => found.iter().for_each(|(proxy, _)| println!("instance/{}", proxy.node)),
        Format::Table | Format::Wide if found.is_empty() => eprintln!("no proxies found"),
        format => show(&found.into_iter().map(|(proxy, _)| proxy).collect::<Vec<_>>(), format == Format::Wide),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(proxies: &[Proxy], wide: bool) {
    let now = Timestamp::now();
    let mut header = vec!["NAME", "APP", "AGENT"];
    header.extend(TYPES);
    header.push("CONNECTED");
    if wide {
        header.extend(["STREAM", "REQ/S", "ERRORS", "FAULTS", "RSS"]);
    }
    let mut table = Table::new(header);
    for proxy in proxies {
        let mut cells: Vec<Cell> = vec![(&*proxy.node).into(), (&*proxy.app).into(), (&*proxy.agent).into()];
        cells.extend(TYPES.map(|name| state(proxy.types.get(name), wide)));
        cells.push(time::age(&proxy.connected_at, now).into());
        if wide {
            cells.push((&*proxy.protocol).into());
            cells.extend(health(proxy.health.as_ref()));
        }
        table.row(cells);
    }
    print!("{}", table.render(if wide { None } else { terminal_width() }));
    rejections(proxies);
}

fn state(state: Option<&Type>, wide: bool) -> Cell {
    let Some(state) = state else { return Cell::default() };
    let (word, mood) = match (state.refused(), state.current(), state.sent.is_empty()) {
        (true, ..) => ("REJECTED", Mood::Bad),
        (_, _, true) => ("-", Mood::Plain),
        (_, true, _) => ("ok", Mood::Good),
        _ => ("sent", Mood::Busy),
    };
    let version: String = state.sent.chars().take(SHORT).collect();
    let text = if wide && word != "-" { format!("{word} {version} ({})", state.resources) } else { word.to_owned() };
    Cell { text, mood }
}

fn health(health: Option<&Value>) -> [Cell; 4] {
    let Some(health) = health else { return Default::default() };
    let number = |field: &str| health[field].as_f64().unwrap_or_default();
    let faults: u64 = health["faults"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
    let mood = |bad: bool| if bad { Mood::Bad } else { Mood::Plain };
    [
        format!("{:.1}", number("requestsPerSecond")).into(),
        Cell { text: number("errors").to_string(), mood: mood(number("errors") > 0.0) },
        Cell { text: faults.to_string(), mood: mood(faults > 0) },
        format!("{:.1} MB", number("rssBytes") / 1e6).into(),
    ]
}

fn rejections(proxies: &[Proxy]) {
    for proxy in proxies {
        for (name, state) in proxy.types.iter().filter(|(_, state)| state.refused()) {
            let version: String = state.rejected.chars().take(SHORT).collect();
            println!("\n{} rejected {name} {version}:", color::stdout().red(&proxy.node));
            state.error.lines().for_each(|line| println!("  {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        let of = |sent: &str, acknowledged: &str, rejected: &str| {
            let [sent, acknowledged, rejected] = [sent, acknowledged, rejected].map(str::to_owned);
            state(Some(&Type { sent, acknowledged, rejected, ..Type::default() }), false).text
        };
        assert_eq!(of("2", "2", ""), "ok");
        assert_eq!(of("2", "1", ""), "sent");
        assert_eq!(of("2", "1", "2"), "REJECTED");
        assert_eq!(of("3", "3", "2"), "ok", "a later version was accepted");
        assert_eq!(of("", "", ""), "-");
    }
}
