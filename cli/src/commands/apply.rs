//! `weir apply`.

use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Method;

use crate::cli::{Connection, Write};
use crate::client::{Answer, Client};
use crate::commands::files::{self, Document};
use crate::failure::{Failure, Outcome};
use crate::output::color;

/// Arguments of `weir apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir apply -f app.yaml
  weir apply -f mesh/ --reason 'second region'
  weir get app/stock -o yaml | sed 's/tier: 3/tier: 2/' | weir apply -f -
  weir apply -f mesh/ --dry-run           what would happen

All resources are checked by the server before the first is written: a mistake in the last one leaves nothing half
applied. Fields that earlier texts set and this one leaves out go back to their defaults; fields that only controllers
or other people wrote stay.")]
pub struct Args {
    /// File, folder, or - for standard input.
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Applies every document.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let documents = files::read(&args.filename)?;
    let dry = Write { dry_run: true, ..args.write.clone() };
    let mut answers = Vec::new();
    for document in &documents {
        answers.push(send(&client, document, &dry).await?);
    }
    for (document, answer) in documents.iter().zip(answers) {
        let answer = if args.write.dry_run { answer } else { send(&client, document, &args.write).await? };
        tell(document, &answer, args.write.dry_run);
        answer.warn();
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends one document as an apply.
pub async fn send(client: &Client, document: &Document, write: &Write) -> Result<Answer, Failure> {
    let path = document.target.path();
    let query = [("apply", "true".to_owned())];
    let answer = client.write(Method::PATCH, &path, &query, Some(&document.value), write).await;
    answer.map_err(|failure| Failure { message: format!("{}: {}", document.origin, failure.message), ..failure })
}

fn tell(document: &Document, answer: &Answer, dry: bool) {
    let paint = color::stdout();
    let result = match answer.result.as_str() {
        "created" => paint.green("created"),
        "unchanged" => paint.dim("unchanged"),
        other => paint.yellow(other),
    };
    println!("{} {result}{}", called(document), if dry { " (dry run)" } else { "" });
}

fn called(document: &Document) -> String {
    let kind = document.target.kind.name().to_ascii_lowercase();
    format!("{kind}/{}", document.target.name.as_deref().unwrap_or_default())
}
