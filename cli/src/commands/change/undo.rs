//! The way back from a change that has ended: another change, to the version before.

use std::collections::BTreeSet;
use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};
use weir_model::{API_VERSION, Kind};

use super::path;
use crate::cli::{Connection, Write};
use crate::client::{BASE, Client};
use crate::commands::get;
use crate::failure::{Failure, Outcome};

/// Arguments of `weir change undo`.
#[derive(Debug, clap::Args)]
pub struct Undo {
    /// The change that has ended.
    name: String,
    /// Name of the new change [default: NAME-undo].
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Makes a change to the version that the instances ran before, with the same scope and care.
pub async fn main(args: &Undo) -> Outcome {
    let client = Client::new(&args.connection)?;
    let change = client.get(&path(&args.name), &[]).await?;
    refuse_unended(&args.name, &change)?;
    let uid = change.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    let records = get::list(&client, Kind::ChangeRecord, "", &format!("{uid}.")).await?;
    let version = the_version_before(&args.name, &records)?;
    let name = args.new_name.clone().unwrap_or_else(|| format!("{}-undo", args.name));
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "Change",
        "metadata": {"name": name},
        "spec": back(&args.name, &change["spec"], &version)?,
    });
    let answer = client.write(Method::POST, &format!("{BASE}/changes"), &[], Some(&body), &args.write).await?;
    let dry = if args.write.dry_run { " (dry run)" } else { "" };
    println!("change/{name} created{dry}: everything in the scope of change/{} goes to {version}", args.name);
    answer.warn();
    Ok(ExitCode::SUCCESS)
}

fn refuse_unended(name: &str, change: &Value) -> Result<(), Failure> {
    match change.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending") {
        "Succeeded" | "Aborted" => Ok(()),
        "RolledBack" => Err(Failure::new(format!("change/{name} is undone already: it was rolled back"))),
        phase => {
            let failure = Failure::new(format!("change/{name} has not ended ({phase})"));
            Err(failure.hint(format!("`weir change rollback {name}` takes back what it has done")))
        }
    }
}

/// What its instances ran before it, as its records say.
fn the_version_before(name: &str, records: &[Value]) -> Result<String, Failure> {
    let facts = records.iter().filter_map(|record| record["spec"]["facts"].as_array()).flatten();
    let before: BTreeSet<&str> = facts.filter_map(|fact| fact.pointer("/planned/previous")?.as_str()).collect();
    match before.into_iter().collect::<Vec<_>>().as_slice() {
        [one] if !one.is_empty() => Ok((*one).to_owned()),
        [] | [_] => Err(Failure::new(format!("change/{name} has changed nothing: there is nothing to undo"))),
        many => {
            let failure = Failure::new(format!("before change/{name} its instances ran {}", many.join(", ")));
            Err(failure.hint("make a Change for each of them, with the scope in which it ran"))
        }
    }
}

/// The same change to another version: scope and care stay, what a person wanted of that one does not.
fn back(name: &str, spec: &Value, version: &str) -> Result<Value, Failure> {
    let mut back = json!({"action": spec["action"]});
    for field in ["scope", "ladder", "budget", "judge", "level", "instanceTimeoutSeconds"] {
        if !spec[field].is_null() {
            back[field] = spec[field].clone();
        }
    }
    for action in ["proxyUpgrade", "appRelease"] {
        if let Some(to) = back["action"].get_mut(action) {
            to["version"] = json!(version);
            return Ok(back);
        }
    }
    let failure = Failure::new(format!("change/{name} brought no version of a proxy or an app"));
    Err(failure.hint("apply what was there before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(previous: &str) -> Value {
        json!({"spec": {"facts": [{"planned": {"previous": previous}}, {"letGo": {}}]}})
    }

    #[test]
    fn the_version_before_must_be_one() {
        assert_eq!(the_version_before("x", &[planned("A"), planned("A"), json!({"spec": {}})]).unwrap(), "A");
        assert!(the_version_before("x", &[]).unwrap_err().to_string().contains("changed nothing"));
        assert!(the_version_before("x", &[planned("A"), planned("B")]).unwrap_err().to_string().contains("A, B"));
    }

    #[test]
    fn scope_and_care_stay_and_commands_do_not() {
        let spec = json!({
            "action": {"appRelease": {"app": "stock", "version": "2"}}, "scope": {"units": ["east"]}, "command": "Abort",
            "approvedBatch": 3, "level": "L2",
        });
        let wanted = json!({
            "action": {"appRelease": {"app": "stock", "version": "1"}}, "scope": {"units": ["east"]}, "level": "L2",
        });
        assert_eq!(back("x", &spec, "1").unwrap(), wanted);
        assert!(back("x", &json!({"action": {"external": {}}}), "1").is_err());
    }

    #[test]
    fn what_runs_is_rolled_back_instead() {
        let phase = |phase: &str| refuse_unended("x", &json!({"status": {"phase": phase}}));
        assert!(phase("Succeeded").is_ok() && phase("Aborted").is_ok());
        assert!(phase("Running").unwrap_err().to_string().contains("weir change rollback x"));
        assert!(phase("RolledBack").is_err());
    }
}
