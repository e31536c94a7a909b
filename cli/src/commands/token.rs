//! `weir token`: make, list and revoke login tokens.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
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
    let path = Target { kind: Kind::Token, name: Some(revoke.name.clone()) }.path();
    client.write(Method::DELETE, &path, &[], None, &revoke.write).await?;
    println!("token/{} revoked{}", revoke.name, if revoke.write.dry_run { " (dry run)" } else { "" });
    Ok(ExitCode::SUCCESS)
}
