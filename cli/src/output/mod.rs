//! Printing: tables that fit the terminal, colours only where a person looks, JSON and YAML as they are.

pub mod color;
pub mod columns;
pub mod table;
pub mod time;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::target::called;

/// How resources are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table that fits the terminal.
    #[default]
    Table,
    /// A table with more columns, never cut.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Only kind/name, one a line.
    Name,
}

/// Prints the resources of one kind.
pub fn resources(objects: &[Value], format: Format, single: bool) -> Result<(), Failure> {
    match format {
        Format::Table => print!("{}", columns::table(objects, false).render(terminal_width())),
        Format::Wide => print!("{}", columns::table(objects, true).render(None)),
        Format::Name => objects.iter().for_each(|object| println!("{}", called(object))),
        Format::Json => println!("{}", pretty(&whole(objects, single))),
        Format::Yaml => print!("{}", yaml(&whole(objects, single))?),
    }
    Ok(())
}

/// One object as it is, or a list of them.
fn whole(objects: &[Value], single: bool) -> Value {
    match objects {
        [one] if single => one.clone(),
        many => json!({"apiVersion": weir_model::API_VERSION, "kind": "List", "items": many}),
    }
}

/// Indented JSON.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// YAML, with a line break at the end.
pub fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| Failure::new(error.to_string()))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Columns of the terminal on standard output; `None`: it is none, nothing is cut.
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
