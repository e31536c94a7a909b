//! `weir login`: remember a server and a token on this machine.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use weir_trust::Trust;

use crate::cli::Connection;
use crate::client::{BASE, Client};
use crate::context::Context;
use crate::failure::{Failure, Outcome, USAGE};

/// Longest token read, in bytes.
const MAX_INPUT: u64 = 4096;

/// Arguments of `weir login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir login                                  asks for the token without showing it
  weir login --server https://mesh.example:15000 --ca sha256:3f... --token-file admin.token
  weir login --forget

The token is tried first, and then kept in ~/.config/weir/login.json, readable by you only: it is the one place where
this command writes a token, because you ask for it. Use WEIR_TOKEN instead to keep nothing.")]
pub struct Args {
    /// Forget what was remembered.
    #[arg(long, conflicts_with_all = ["token", "token_file"])]
    forget: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Remembers or forgets.
pub async fn main(args: Args) -> Outcome {
    if args.forget {
        match Context::forget()? {
            Some(path) => println!("forgotten: {} is removed", path.display()),
            None => println!("nothing was remembered"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut connection = args.connection;
    if connection.token.is_none() && connection.token_file.is_none() {
        connection.token = Some(ask_token()?);
    }
    let client = Client::new(&connection)?;
    let me = client.get(&format!("{BASE}/whoami"), &[]).await?;
    let token = client.token().map(str::to_owned);
    // What the file holds is kept, so that the login does not depend on where the file was.
    let read = |trust: &Trust| trust.read().map_err(|error| Failure::new(error.to_string()));
    let ca = client.trust().map(read).transpose()?.map(|trust| trust.to_string());
    let path = Context { server: Some(client.server().to_owned()), token, ca }.save()?;
    let field = |name: &str| me[name].as_str().unwrap_or("?").to_owned();
    println!("logged in to {} as {} ({}); kept in {}", client.server(), field("actor"), field("role"), path.display());
    Ok(ExitCode::SUCCESS)
}

/// From the terminal without echo, or from a pipe.
fn ask_token() -> Result<String, Failure> {
    let stdin = io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        eprint!("Token: ");
        io::stderr().flush()?;
        let _silence = Silence::begin()?;
        stdin.lock().take(MAX_INPUT).read_line(&mut line)?;
        eprintln!();
    } else {
        stdin.take(MAX_INPUT).read_to_string(&mut line)?;
    }
    let token = line.trim().to_owned();
    if token.is_empty() {
        let hint = "the first one was shown when `weir control` started; an Admin makes more with `weir token create`";
        return Err(Failure::new("no token was given").code(USAGE).hint(hint));
    }
    Ok(token)
}

/// The terminal shows nothing that is typed while this lives.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Silence, Failure> {
        let errno = |error: rustix::io::Errno| Failure::new(format!("cannot hide what is typed: {error}"));
        let before = tcgetattr(io::stdin()).map_err(errno)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).map_err(errno)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // If this fails the terminal is gone.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
