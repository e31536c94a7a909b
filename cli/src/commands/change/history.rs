//! What a change would do, and what one has done.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use reqwest::Method;
use serde_json::Value;
use weir_model::Kind;

use super::path;
use crate::cli::{Connection, Write};
use crate::client::{BASE, Client};
use crate::commands::files;
use crate::failure::{FAILED, Failure, Outcome, USAGE};
use crate::output::pretty;

/// Arguments of `weir change plan`.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// A file with one Change; `-` for standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `weir change report`.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Its name.
    name: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Document::Md)]
    output: Document,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of what shows a part of the record.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its name.
    name: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Document {
    Md,
    Json,
}

/// Shows what a change would do; nothing is written.
pub async fn plan(args: &Plan) -> Outcome {
    let documents = files::read(std::slice::from_ref(&args.file))?;
    let document = only_change(&documents)?;
    let write = Write { reason: None, dry_run: false };
    let client = Client::new(&args.connection)?;
    let answer = client.write(Method::POST, &format!("{BASE}/plan"), &[], Some(&document.value), &write).await?;
    match args.output {
        Output::Json => println!("{}", pretty(&answer.body["plan"])),
        Output::Text => print!("{}", text(&answer.body, "text")),
    }
    let configuration = document.value.pointer("/spec/action/configPublish").is_some();
    let empty = answer.body.pointer("/plan/inScope") == Some(&Value::from(0)) && !configuration;
    Ok(if empty { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// The one Change among what was given.
fn only_change(documents: &[files::Document]) -> Result<&files::Document, Failure> {
    let changes: Vec<&files::Document> = documents.iter().filter(|d| d.target.kind == Kind::Change).collect();
    match changes[..] {
        [change] => Ok(change),
        [] => Err(Failure::new("there is no Change in what was given").code(USAGE)),
        _ => Err(Failure::new(format!("there are {} Changes: plan one at a time", changes.len())).code(USAGE)),
    }
}

/// Prints the whole record of a change.
pub async fn report(args: &Report) -> Outcome {
    let told = told(&args.connection, &args.name).await?;
    match args.output {
        Document::Json => println!("{}", pretty(&told["report"])),
        Document::Md => print!("{}", text(&told, "markdown")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one part of the record in words.
pub async fn show(args: &Show, part: &str) -> Outcome {
    let told = told(&args.connection, &args.name).await?;
    match args.output {
        Output::Text => print!("{}", text(&told, part)),
        Output::Json => println!("{}", pretty(&part_of(&told["report"], part))),
    }
    Ok(ExitCode::SUCCESS)
}

/// The same part of the report, for programs.
fn part_of(report: &Value, part: &str) -> Value {
    let fields = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect::<serde_json::Map<_, _>>()
    };
    match part {
        "status" => fields(&["name", "action", "phase", "message", "startedAt", "finishedAt", "level"]).into(),
        "diff" => report["plans"].as_array().and_then(|plans| plans.last()).cloned().unwrap_or_default(),
        _ => fields(&["name", "batches"]).into(),
    }
}

async fn told(connection: &Connection, name: &str) -> Result<Value, Failure> {
    Client::new(connection)?.get(&format!("{}/report", path(name)), &[]).await
}

fn text<'v>(answer: &'v Value, part: &str) -> &'v str {
    answer[part].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_told_the_same_parts() {
        let report = json!({"name": "to-b", "phase": "Running", "plans": [1, 2], "batches": [3], "steps": [4]});
        assert_eq!(part_of(&report, "diff"), json!(2));
        assert_eq!(part_of(&report, "verdict"), json!({"name": "to-b", "batches": [3]}));
        assert_eq!(part_of(&report, "status")["phase"], "Running");
        assert_eq!(part_of(&json!({}), "diff"), Value::Null);
    }

    #[test]
    fn the_change_is_found_among_others() {
        let document = |kind: Kind, name: &str| files::Document {
            origin: "f.yaml".into(),
            target: crate::target::Target { kind, name: Some(name.into()) },
            value: Value::Null,
        };
        let found = |documents: &[files::Document]| only_change(documents).map(|d| d.target.name.clone()).ok();
        assert_eq!(found(&[document(Kind::App, "a"), document(Kind::Change, "b")]), Some(Some("b".into())));
        assert_eq!(found(&[document(Kind::App, "a")]), None);
        assert_eq!(found(&[document(Kind::Change, "a"), document(Kind::Change, "b")]), None);
    }
}
