//! `weir release`: versions of a component, as CI registers them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_instance::local::sha256;
use weir_model::{API_VERSION, Kind};

use crate::cli::{Connection, Write};
use crate::client::{BASE, Client};
use crate::commands::get;
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{self, Format};
use crate::target::Target;

/// Arguments of `weir release`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir release register 1.5.0-n42 --artifact /opt/weir/1.5.0-n42/weir-proxy --commit \"$SHA\" \\
      --committed-at 2026-11-22T01:30:00Z --build \"$URL\" --passed 812 --commits commits.txt
  weir release list
  weir release withdraw 1.5.0-n42 --reason 'leaks descriptors'

With a token of role ci (`weir token create nightly --role ci`) a pipeline can do this and nothing else.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a version known; a release train takes it from there.
    Register(Box<Register>),
    /// List versions.
    List(List),
    /// Say that a version must not be brought anywhere any more.
    Withdraw(Withdraw),
}

#[derive(Debug, clap::Args)]
struct Register {
    /// The version, unique within its component.
    version: String,
    /// The executable, where the hosts of the instances find it (absolute); its SHA-256 is taken from it.
    #[arg(long, value_name = "FILE")]
    artifact: PathBuf,
    /// SHA-256 of the executable in hex, if the file is not on this machine; compared if it is.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Of an app instead of the proxy.
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Commit it was built from.
    #[arg(long, value_name = "ID")]
    commit: Option<String>,
    /// When that commit was made, e.g. 2026-11-22T01:30:00Z.
    #[arg(long, value_name = "TIME")]
    committed_at: Option<Timestamp>,
    /// The build that made it, e.g. its URL.
    #[arg(long, value_name = "TEXT")]
    build: Option<String>,
    /// File with the commits since the build before, one in a line (`git log --oneline OLD..NEW`).
    #[arg(long, value_name = "FILE")]
    commits: Option<PathBuf>,
    /// Tests that passed.
    #[arg(long, value_name = "N")]
    passed: Option<u32>,
    /// Tests that failed; a version with any never rides a train.
    #[arg(long, value_name = "N", requires = "passed")]
    failed: Option<u32>,
    /// A further argument of the executable; may be repeated.
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct List {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Withdraw {
    /// The version.
    version: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Registers, lists or withdraws.
pub async fn main(args: Args) -> Outcome {
    match args.verb {
        Verb::Register(register) => make(&register).await,
        Verb::List(list) => show(&list).await,
        Verb::Withdraw(withdraw) => end(&withdraw).await,
    }
}

async fn make(register: &Register) -> Outcome {
    let client = Client::new(&register.connection)?;
    let name = name(register.app.as_deref(), &register.version);
    let spec = spec(register)?;
    let body = json!({"apiVersion": API_VERSION, "kind": "Release", "metadata": {"name": name}, "spec": spec});
    let dry = if register.write.dry_run { " (dry run)" } else { "" };
    match client.write(Method::POST, &format!("{BASE}/releases"), &[], Some(&body), &register.write).await {
        Ok(_) => println!("release/{name} registered{dry}"),
        // A pipeline that runs again says the same again.
        Err(failure) if failure.status == Some(409) => match same_facts(&client, &name, &body["spec"]).await? {
            true => println!("release/{name} is registered already, with the same facts"),
            false => return Err(failure.hint("with other facts: give it another version, or withdraw that one")),
        },
        Err(failure) => return Err(failure),
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that `spec` says is stored so; a withdrawal since then is no contradiction.
async fn same_facts(client: &Client, name: &str, spec: &Value) -> Result<bool, Failure> {
    let path = Target { kind: Kind::Release, name: Some(name.to_owned()) }.path();
    let stored = client.get(&path, &[]).await?;
    Ok(agrees(&stored["spec"], spec))
}

fn agrees(stored: &Value, spec: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let same = |field: &str, value: &Value| {
        let (is, both_times) = (&stored[field], time(value).is_some() && time(&stored[field]) == time(value));
        is == value || both_times || empty(is) && empty(value)
    };
    let said = spec.as_object().into_iter().flatten();
    let told =
        stored.as_object().into_iter().flatten().filter(|(field, _)| !["withdrawn", "env"].contains(&field.as_str()));
    said.into_iter().all(|(field, value)| same(field, value))
        && told.into_iter().all(|(field, value)| empty(value) || !spec[field].is_null())
}

fn spec(register: &Register) -> Result<Value, Failure> {
    if !register.artifact.is_absolute() {
        let failure = Failure::new(format!("--artifact {} is not absolute", register.artifact.display()));
        return Err(failure.code(USAGE).hint("give the path under which the hosts of the instances find it"));
    }
    let component = register.app.as_ref().map_or_else(|| json!("proxy"), |app| json!({"app": app}));
    let mut spec = json!({
        "component": component,
        "version": register.version,
        "path": register.artifact.display().to_string(),
        "sha256": checksum(&register.artifact, register.sha256.as_deref())?,
        "args": register.args,
        "commits": commits(register.commits.as_deref())?,
    });
    let known = [
        ("commit", register.commit.as_ref().map(|text| json!(text))),
        ("committedAt", register.committed_at.map(|time| json!(time))),
        ("build", register.build.as_ref().map(|text| json!(text))),
        ("tests", register.passed.map(|passed| json!({"passed": passed, "failed": register.failed.unwrap_or(0)}))),
    ];
    for (field, value) in known {
        if let Some(value) = value {
            spec[field] = value;
        }
    }
    Ok(spec)
}

/// That of the file, if it is here; it must be the one given then.
fn checksum(artifact: &Path, given: Option<&str>) -> Result<String, Failure> {
    let own = match sha256(&artifact.display().to_string()) {
        Ok(own) => Some(own),
        Err(error) if given.is_none() => return Err(unreadable(artifact, &error)),
        Err(_) => None,
    };
    match (own, given) {
        (Some(own), Some(given)) if !own.eq_ignore_ascii_case(given) => {
            Err(Failure::new(format!("{} hashes to {own}, not to --sha256 {given}", artifact.display())))
        }
        (own, given) => Ok(own.or(given.map(str::to_owned)).unwrap_or_default()),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display())).hint("give --sha256 if the file is not on this machine")
}

fn commits(file: Option<&Path>) -> Result<Vec<String>, Failure> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = fs::read_to_string(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// What a Release is called: its component and its version.
pub fn name(app: Option<&str>, version: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let version: String = version.chars().map(legal).collect();
    format!("{}-{version}", app.unwrap_or("proxy"))
}

async fn show(list: &List) -> Outcome {
    let releases = get::list(&Client::new(&list.connection)?, Kind::Release, "", "").await?;
    output::resources(&releases, list.output, false)?;
    Ok(ExitCode::SUCCESS)
}

async fn end(withdraw: &Withdraw) -> Outcome {
    let reason = withdraw.write.reason.clone().filter(|reason| !reason.trim().is_empty());
    let missing = || Failure::new("--reason is missing").code(USAGE).hint("say why, for those who meet the version");
    let reason = reason.ok_or_else(missing)?;
    let client = Client::new(&withdraw.connection)?;
    let found = find(&client, &withdraw.version).await?;
    let path = Target { kind: Kind::Release, name: Some(found.clone()) }.path();
    let patch = json!({"spec": {"withdrawn": reason}});
    let answer = client.write(Method::PATCH, &path, &[], Some(&patch), &withdraw.write).await?;
    println!("release/{found} withdrawn{}", if withdraw.write.dry_run { " (dry run)" } else { "" });
    answer.warn();
    Ok(ExitCode::SUCCESS)
}

/// The Release of a version, by its version or its name.
async fn find(client: &Client, version: &str) -> Result<String, Failure> {
    let releases = get::list(client, Kind::Release, "", "").await?;
    let is = |release: &&Value| release["spec"]["version"] == version || release["metadata"]["name"] == version;
    let named = |release: &Value| release["metadata"]["name"].as_str().map(str::to_owned);
    match releases.iter().filter(is).filter_map(named).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(format!("there is no release of version {version}")).hint("`weir release list`")),
        many => Err(Failure::new(format!("several releases are called {version}: {}", many.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_named_after_component_and_version() {
        assert_eq!(name(None, "1.5.0-n42"), "proxy-1.5.0-n42");
        assert_eq!(name(Some("stock"), "2026/11+A"), "stock-2026-11-a");
    }

    #[test]
    fn the_same_facts_may_be_registered_again() {
        let said = json!({"version": "B", "path": "/p", "commits": [], "committedAt": "2026-01-01T00:00:00Z"});
        let mut stored =
            json!({"version": "B", "path": "/p", "args": [], "env": {}, "committedAt": "2026-01-01T00:00:00+00:00"});
        assert!(agrees(&stored, &said));
        stored["withdrawn"] = json!("leaks");
        assert!(agrees(&stored, &said), "what became of it later contradicts nothing");
        assert!(!agrees(&stored, &json!({"version": "B", "path": "/q"})));
        stored["commit"] = json!("c0c");
        assert!(!agrees(&stored, &said), "it says less than is stored");
    }

    #[test]
    fn the_checksum_is_the_files_own() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("weir-proxy");
        fs::write(&file, "abc").expect("it can be written");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(checksum(&file, None).ok().as_deref(), Some(abc));
        assert_eq!(checksum(&file, Some(&abc.to_uppercase())).ok().as_deref(), Some(abc));
        assert!(checksum(&file, Some(&"0".repeat(64))).is_err());
        let elsewhere = folder.path().join("elsewhere");
        assert!(checksum(&elsewhere, None).is_err());
        assert_eq!(checksum(&elsewhere, Some(abc)).ok().as_deref(), Some(abc));
    }
}
