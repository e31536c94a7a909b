//! What a change is asked, and going on without an answer.

use std::process::ExitCode;

use serde_json::{Value, json};
use weir_model::check::{At, CATALOGUE, listed, own_code};
use weir_model::{Kind, error::nearest};

use super::{Which, read, refuse_ended, write};
use crate::cli::Connection;
use crate::client::Client;
use crate::commands::get;
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::pretty;
use crate::output::table::Table;

/// Arguments of `weir change checks`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `weir change skip-check`.
#[derive(Debug, clap::Args)]
pub struct Skip {
    #[command(flatten)]
    which: Which,
    /// The check's code, e.g. S-BUDGET, or the name of a Check of your own.
    #[arg(value_name = "CHECK")]
    check: String,
    /// Ask it again.
    #[arg(long)]
    undo: bool,
}

/// Lists the checks that come with Weir, and those of the server's own.
pub async fn list(list: &List) -> Outcome {
    let client = Client::new(&list.connection)?;
    let mut rows: Vec<Value> = CATALOGUE.iter().map(|c| {
        json!({"code": c.code, "at": c.at, "severity": c.severity, "skippable": c.skippable, "meaning": c.meaning})
    }).collect();
    rows.extend(get::list(&client, Kind::Check, "", "").await?.iter().map(own));
    if list.json {
        println!("{}", pretty(&Value::Array(rows)));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["CODE", "ASKED", "SEVERITY", "SKIPPABLE", "MAKES SURE THAT"]);
    for row in &rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let at = row["at"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        let skippable = if row["skippable"] == true { "yes" } else { "no" };
        table.row(
            [text("code"), at, text("severity"), skippable.to_owned(), text("meaning")].map(|c| c.as_str().into()),
        );
    }
    print!("{}", table.render(None));
    Ok(ExitCode::SUCCESS)
}

fn own(check: &Value) -> Value {
    let code = own_code(check["metadata"]["name"].as_str().unwrap_or_default());
    let spec = &check["spec"];
    let at = if spec["at"].is_null() { json!([At::Batch]) } else { spec["at"].clone() };
    json!({
        "code": code, "at": at, "severity": spec["severity"], "skippable": true, "meaning": spec["meaning"],
    })
}

/// Writes the skip into the change's spec; the API signs it.
pub async fn skip(skip: &Skip) -> Outcome {
    let (which, code) = (&skip.which, code(&skip.check)?);
    if skip.undo {
        let (client, change) = read(which).await?;
        refuse_ended(which, &change)?;
        return write(&client, which, &change, json!({"skipChecks": {code: null}}), "is asked it again").await;
    }
    let reason = which.write.reason.clone().filter(|reason| !reason.trim().is_empty());
    let missing = || Failure::new("--reason is missing").code(USAGE).hint("say why it may go on without this check");
    let reason = reason.ok_or_else(missing)?;
    let (client, change) = read(which).await?;
    refuse_ended(which, &change)?;
    let told = format!("may go on without {code}");
    write(&client, which, &change, json!({"skipChecks": {code: {"reason": reason}}}), &told).await
}

/// The code of a check by its code or by the name of a Check.
fn code(text: &str) -> Result<String, Failure> {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("U-") {
        return Ok(upper);
    }
    match listed(&upper) {
        Some(check) if check.skippable => Ok(upper),
        Some(check) => {
            let failure = Failure::new(format!("{upper} can't be skipped: {}", check.instead));
            Err(failure.code(USAGE))
        }
        None if text.bytes().any(|b| b.is_ascii_uppercase()) => {
            let hint = nearest(text, CATALOGUE.iter().map(|c| c.code)).unwrap_or("`weir change checks` lists them");
            Err(Failure::new(format!("there is no check {text}")).code(USAGE).hint(hint.to_owned()))
        }
        None => Ok(own_code(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_named_by_its_code_or_by_its_own_name() {
        assert_eq!(code("s-budget").ok().as_deref(), Some("S-BUDGET"));
        assert_eq!(code("no-incident").ok().as_deref(), Some("U-NO-INCIDENT"));
        assert!(code("H-VERDICT").is_err() && code("S-BUDGETS").is_err());
    }
}
