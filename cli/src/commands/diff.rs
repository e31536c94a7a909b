//! `weir diff`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::{Connection, Write};
use crate::client::Client;
use crate::commands::{apply, files};
use crate::failure::{DIFFERS, Failure, Outcome};
use crate::output::{color, yaml};
use crate::target::called;

/// Lines around a difference.
const AROUND: usize = 3;
/// Longer texts are not compared line by line.
const MAX_LINES: usize = 4000;

/// Arguments of `weir diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir diff -f mesh/
  weir diff -f app.yaml && echo nothing to do

Exits with 0 if apply would change nothing, with 5 if it would.")]
pub struct Args {
    /// File, folder, or - for standard input.
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Prints what apply would change: the server works it out by a dry run.
pub async fn main(args: Args) -> Outcome {
    let client = Client::new(&args.connection)?;
    let dry = Write { dry_run: true, reason: None };
    let mut differs = false;
    for document in files::read(&args.filename)? {
        let before = client.find(&document.target.path()).await?;
        let after = apply::send(&client, &document, &dry).await?;
        if after.result != "unchanged" {
            differs = true;
            show(&called(&after.body), before.as_ref(), &after.body)?;
        }
    }
    Ok(if differs { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS })
}

fn show(name: &str, before: Option<&Value>, after: &Value) -> Result<(), Failure> {
    let paint = color::stdout();
    let old = before.map(wanted).transpose()?.unwrap_or_default();
    let state = if before.is_some() { "stored" } else { "not there" };
    println!("{}", paint.bold(format!("--- {name} ({state})\n+++ {name} (applied)")));
    for line in unified(&old, &wanted(after)?) {
        match line.as_bytes().first() {
            Some(b'+') => println!("{}", paint.green(line)),
            Some(b'-') => println!("{}", paint.red(line)),
            Some(b'@') => println!("{}", paint.dim(line)),
            _ => println!("{line}"),
        }
    }
    Ok(())
}

/// What a person writes of a resource, as YAML.
pub fn wanted(object: &Value) -> Result<String, Failure> {
    let mut annotations = object.pointer("/metadata/annotations").cloned().unwrap_or_default();
    if let Some(notes) = annotations.as_object_mut() {
        notes.shift_remove("weir.dev/last-applied");
    }
    let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    let mut metadata = json!({"name": object["metadata"]["name"]});
    for (field, value) in [("labels", object["metadata"]["labels"].clone()), ("annotations", annotations)] {
        if !empty(&value) {
            metadata[field] = value;
        }
    }
    yaml(&json!({"metadata": metadata, "spec": object["spec"]}))
}

/// One line of an edit script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// A unified diff: changed lines with [`AROUND`] lines of context.
fn unified(old: &str, new: &str) -> Vec<String> {
    let edits = edits(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let near = |index: usize| {
        let from = index.saturating_sub(AROUND);
        edits[from..edits.len().min(index + AROUND + 1)].iter().any(|edit| !matches!(edit, Edit::Same(_)))
    };
    let mut lines = Vec::new();
    let mut skipped = false;
    for (index, edit) in edits.iter().enumerate() {
        if !near(index) {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) {
            lines.push("@@".to_owned());
        }
        lines.push(match edit {
            Edit::Same(line) => format!(" {line}"),
            Edit::Gone(line) => format!("-{line}"),
            Edit::New(line) => format!("+{line}"),
        });
    }
    lines
}

/// The shortest edit script, from the table of longest common subsequences.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Edit<'a>> {
    if old.len() > MAX_LINES || new.len() > MAX_LINES {
        return old.iter().map(|l| Edit::Gone(l)).chain(new.iter().map(|l| Edit::New(l))).collect();
    }
    let common = common(old, new);
    let (mut i, mut j, mut edits) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push(Edit::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            edits.push(Edit::Gone(old[i]));
            i += 1;
        } else {
            edits.push(Edit::New(new[j]));
            j += 1;
        }
    }
    edits
}

/// `common[i][j]`: length of the longest common subsequence of `old[i..]` and `new[j..]`.
fn common(old: &[&str], new: &[&str]) -> Vec<Vec<u16>> {
    let mut table = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let longer = table[i + 1][j].max(table[i][j + 1]);
            table[i][j] = if old[i] == new[j] { table[i + 1][j + 1] + 1 } else { longer };
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_and_its_surroundings() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n";
        let wanted = ["@@", " 2", " 3", " 4", "-5", "+five", " 6", " 7", " 8", " 9", "+10"];
        assert_eq!(unified(old, new), wanted);
        assert!(unified(old, old).is_empty());
        assert_eq!(unified("", "a\n"), ["+a"]);
    }
}
