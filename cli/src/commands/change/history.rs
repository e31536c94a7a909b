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
use crate::failure::{Failure, Outcome, USAGE};
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
    let [document] = &documents[..] else { return Err(Failure::new("give one Change at a time").code(USAGE)) };
    if document.target.kind != Kind::Change {
        let failure = Failure::new(format!("{} is a {}, not a Change", document.origin, document.target.kind));
        return Err(failure.code(USAGE));
    }
    let write = Write { reason: None, dry_run: false };
    let client = Client::new(&args.connection)?;
    let answer = client.write(Method::POST, &format!("{BASE}/plan"), &[], Some(&document.value), &write).await?;
    match args.output {
        Output::Json => println!("{}", pretty(&answer.body["plan"])),
        Output::Text => print!("{}", text(&answer.body, "text")),
    }
    Ok(ExitCode::SUCCESS)
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
    print!("{}", text(&told(&args.connection, &args.name).await?, part));
    Ok(ExitCode::SUCCESS)
}

async fn told(connection: &Connection, name: &str) -> Result<Value, Failure> {
    Client::new(connection)?.get(&format!("{}/report", path(name)), &[]).await
}

fn text<'v>(answer: &'v Value, part: &str) -> &'v str {
    answer[part].as_str().unwrap_or_default()
}
