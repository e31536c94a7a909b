//! `weir token`: make, list and revoke login tokens.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_model::{API_VERSION, Kind};
use weir_server::login;

use crate::cli::{Connection, Write};
use crate::client::{BASE, Client};
use crate::commands::{get, wait};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::target::Target;

/// Arguments of `weir token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir token create nightly --role ci --expires 720h
  weir token create mesh --role proxy --quiet > proxy.token
  weir token create orders --role proxy --app orders --app 'orders-*'
  weir token list
  weir token revoke ci --reason 'left the team'

A token is made on this machine and shown once; the control plane is given its SHA-256 only.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token and show it once.
    Create(Create),
    /// List the tokens' records.
    List(List),
    /// Revoke a token.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Name of its record.
    name: String,
    /// What it may do.
    #[arg(long, value_enum)]
    role: Role,
    /// Actor that its writes carry in the audit log [default: user/NAME, or proxy/NAME].
    #[arg(long)]
    actor: Option<String>,
    /// App that may join with it, or the beginning of names as in 'orders-*'; repeatable [default: every app].
    #[arg(long = "app", value_name = "APP")]
    apps: Vec<String>,
    /// Valid for so long, e.g. 720h [default: until revoked].
    #[arg(long, value_parser = wait::duration, value_name = "TIME")]
    expires: Option<std::time::Duration>,
    /// Print only the token.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Everything.
    Admin,
    /// Read everything but tokens.
    Viewer,
    /// Join the mesh as a proxy, nothing else.
    Proxy,
    /// Register releases, as CI does, and read them.
    Ci,
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
struct Revoke {
    /// Name of its record.
    name: String,
    /// Also if it is one's own, or the last with which an Admin can come in.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Makes, lists or revokes.
pub async fn main(args: Args) -> Outcome {
    match args.verb {
        Verb::Create(create) => make(&create).await,
        Verb::List(list) => show(&list).await,
        Verb::Revoke(revoke) => end(&revoke).await,
    }
}

async fn make(create: &Create) -> Outcome {
    let client = Client::new(&create.connection)?;
    let token = login::mint()?;
    let (role, prefix) = match create.role {
        Role::Admin => ("Admin", "user"),
        Role::Viewer => ("Viewer", "user"),
        Role::Proxy => ("Proxy", "proxy"),
        Role::Ci => ("Ci", "ci"),
    };
    let actor = create.actor.clone().unwrap_or_else(|| format!("{prefix}/{}", create.name));
    let mut spec = json!({"actor": actor, "role": role, "sha256": login::hash(&token)});
    if !create.apps.is_empty() {
        spec["apps"] = json!(create.apps);
    }
    if let Some(expires) = create.expires {
        let end = Timestamp::now().checked_add(expires).map_err(|error| Failure::new(format!("--expires: {error}")))?;
        spec["expiresAt"] = json!(end);
    }
    let body = json!({"apiVersion": API_VERSION, "kind": "Token", "metadata": {"name": create.name}, "spec": spec});
    client.write(Method::POST, &format!("{BASE}/tokens"), &[], Some(&body), &create.write).await?;
    tell(create, role, &token);
    Ok(ExitCode::SUCCESS)
}

fn tell(create: &Create, role: &str, token: &str) {
    if create.write.dry_run {
        println!("token/{} created (dry run): no token was made", create.name);
    } else if create.quiet {
        println!("{token}");
    } else {
        println!("token/{} created, role {role}. The token, shown this once:\n\n    {token}\n", create.name);
    }
}

async fn show(list: &List) -> Outcome {
    let tokens = get::list(&Client::new(&list.connection)?, Kind::Token, "", "").await?;
    output::resources(&tokens, list.output, false)?;
    Ok(ExitCode::SUCCESS)
}

async fn end(revoke: &Revoke) -> Outcome {
    let client = Client::new(&revoke.connection)?;
    if !revoke.yes && !revoke.write.dry_run {
        refuse_lockout(&get::list(&client, Kind::Token, "", "").await?, &revoke.name, client.token())?;
    }
    let path = Target { kind: Kind::Token, name: Some(revoke.name.clone()) }.path();
    client.write(Method::DELETE, &path, &[], None, &revoke.write).await?;
    println!("token/{} revoked{}", revoke.name, if revoke.write.dry_run { " (dry run)" } else { "" });
    Ok(ExitCode::SUCCESS)
}

/// Whoever revokes the token that is in use, or the last of an Admin, locks the door from outside.
fn refuse_lockout(tokens: &[Value], name: &str, own: Option<&str>) -> Result<(), Failure> {
    let is = |token: &&Value| token["metadata"]["name"] == name;
    let Some(token) = tokens.iter().find(is) else { return Ok(()) };
    let admins = tokens.iter().filter(|token| token["spec"]["role"] == "Admin").count();
    let last = token["spec"]["role"] == "Admin" && admins == 1;
    let used = own.is_some_and(|own| token["spec"]["sha256"] == login::hash(own));
    let what = match (last, used) {
        (true, _) => "is the last token of an Admin: nobody could make another one",
        (false, true) => "is the token that this command uses",
        (false, false) => return Ok(()),
    };
    Err(Failure::new(format!("token/{name} {what}")).hint("with --yes it is revoked all the same"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_locks_the_door_from_outside_by_mistake() {
        let token = |name: &str, role: &str| json!({"metadata": {"name": name}, "spec": {"role": role, "sha256": login::hash(name)}});
        let mut tokens = vec![token("root", "Admin"), token("ci", "Ci")];
        assert!(refuse_lockout(&tokens, "root", None).unwrap_err().to_string().contains("the last token of an Admin"));
        assert!(refuse_lockout(&tokens, "ci", Some("root")).is_ok());
        tokens.push(token("deputy", "Admin"));
        assert!(refuse_lockout(&tokens, "root", Some("deputy")).is_ok());
        assert!(refuse_lockout(&tokens, "root", Some("root")).unwrap_err().to_string().contains("this command uses"));
    }
}
