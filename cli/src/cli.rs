//! What can be typed.

use clap::{Args, Parser, Subcommand};

use weir_trust::Trust;

use crate::commands;
use crate::{run, up};

const HELP: &str = "\
{about}

{usage-heading} {usage}

Run
  control     Run the control plane
  run         Run a program with a proxy beside it
  up          Run all of Weir on this machine

Resources
  apply       Create or change resources from files
  get         Show resources
  describe    Show one resource with its conditions and events
  delete      Delete resources
  watch       Follow resources as they change
  diff        Show what apply would change
  wait        Wait until a resource is as it should be

Changes
  change      Plan, follow and report changes; pause, resume, approve, abort, roll back or undo them
  freeze      Forbid changes for a time, or say when they are permitted
  release     Register, list and withdraw versions
  train       Watch and steer a release train
  slo         Print Prometheus rules of objectives
  explain     Say why something waits or was blocked
  simulate    Simulate changes of a fleet
  events      Show what happened, and why

Mesh
  check       Check that everything works
  proxies     Show proxies and the configuration they have acknowledged

Access
  login       Remember a server and a token
  token       Make, list and revoke tokens

Other
  version     Show the versions of this command and of the server
  completion  Print a completion script for a shell

{options}{after-help}";

const AFTER: &str = "\
Examples:
  weir control                        run a control plane on this machine
  weir apply -f mesh/                 apply every file of a folder
  weir get instances -l team=pay      list instances by label
  weir explain change/proxy-1-4       why does it wait?

Exit codes:
  0  done                             3  the control plane cannot be reached
  1  refused, failed, or not so       4  `wait` ran out of time
  2  wrong usage                      5  `diff` found differences

`weir COMMAND --help`, or `weir help COMMAND`, shows examples of each command.";

/// The service mesh that changes itself safely.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    help_template = HELP,
    after_help = AFTER,
    max_term_width = 110,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Which command.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane.
    Control(commands::control::Args),
    /// Run a program with a proxy beside it.
    Run(Box<run::Args>),
    /// Run all of Weir on this machine.
    Up(up::Args),
    /// Simulate changes of a fleet, without a control plane.
    Simulate(commands::simulate::Args),
    /// Print a completion script for a shell.
    Completion(commands::completion::Args),
    /// Those that talk to the API.
    #[command(flatten)]
    Ask(Ask),
}

/// Commands that talk to the API.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Create or change resources from files.
    Apply(commands::apply::Args),
    /// Show resources.
    Get(commands::get::Args),
    /// Show one resource with its conditions and events.
    Describe(commands::describe::Args),
    /// Delete resources.
    Delete(commands::delete::Args),
    /// Follow resources as they change.
    Watch(commands::watch::Args),
    /// Show what apply would change.
    Diff(commands::diff::Args),
    /// Wait until a resource is as it should be.
    Wait(commands::wait::Args),
    /// Plan, follow and report changes; pause, resume, approve, abort, roll back or undo them.
    Change(commands::change::Args),
    /// Forbid changes for a time.
    Freeze(commands::freeze::Args),
    /// Register, list and withdraw versions.
    Release(Box<commands::release::Args>),
    /// Watch and steer a release train.
    Train(commands::train::Args),
    /// Print Prometheus rules of objectives.
    Slo(commands::slo::Args),
    /// Say why something waits or was blocked.
    Explain(commands::explain::Args),
    /// Show what happened, and why.
    Events(commands::events::Args),
    /// Check that everything works.
    Check(commands::check::Args),
    /// Show proxies and the configuration they have acknowledged.
    Proxies(commands::proxies::Args),
    /// Remember a server and a token.
    Login(commands::login::Args),
    /// Make, list and revoke tokens.
    Token(commands::token::Args),
    /// Show the versions of this command and of the server.
    Version(commands::version::Args),
}

/// Which control plane, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// URL of the control plane's API [default: that of `weir login`, else http://127.0.0.1:15000].
    #[arg(long, env = "WEIR_SERVER", value_name = "URL", hide_env_values = true)]
    pub server: Option<String>,
    /// Login token [default: that of `weir login`].
    #[arg(long, env = "WEIR_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// By whom a server at https:// is known: a PEM file, or sha256:HEX as `weir control` prints it [default: that of `weir login`].
    #[arg(long, env = "WEIR_CA", value_name = "FILE|FINGERPRINT")]
    pub ca: Option<Trust>,
    /// File that holds the login token.
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<std::path::PathBuf>,
}

/// How a write is made.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Write")]
pub struct Write {
    /// Why; ends in the audit log.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Check everything, write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_overview_lists_every_command() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let line = format!("\n  {} ", command.get_name());
            assert!(HELP.contains(&line), "{} is missing", command.get_name());
        }
    }
}
