//! Steps with a heading, a duration, and an error that says what to do next.

use std::fmt;
use std::io::IsTerminal;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::root;

/// Why a command stopped: what was done, what went wrong, what to do.
#[derive(Debug)]
pub struct Problem {
    what: String,
    advice: String,
}

impl Problem {
    /// A problem and its remedy.
    pub fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Problem { what: what.into(), advice: advice.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}\n{} {}", paint("31;1", "failed:"), self.what, paint("1", "what to do:"), self.advice)
    }
}

/// What every step gives.
pub type Outcome = Result<(), Problem>;

/// Runs steps, heads each of them and remembers how long it took.
#[derive(Default)]
pub struct Stages {
    done: Vec<(String, Duration)>,
}

impl Stages {
    /// Runs one step under its heading.
    pub fn run(&mut self, name: &str, step: impl FnOnce() -> Outcome) -> Outcome {
        heading(name);
        let start = Instant::now();
        step()?;
        let took = start.elapsed();
        eprintln!("{} {name} in {}", paint("32;1", "ok:"), seconds(took));
        self.done.push((name.to_owned(), took));
        Ok(())
    }

    /// Prints every step with its duration.
    pub fn summary(&self) {
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        heading("all passed");
        for (name, took) in &self.done {
            eprintln!("  {name:<28} {:>9}", seconds(*took));
        }
        eprintln!("  {:<28} {:>9}", "together", seconds(total));
    }
}

fn heading(name: &str) {
    let rule = "─".repeat(72usize.saturating_sub(name.chars().count()));
    eprintln!("\n{}", paint("36;1", &format!("── {name} {rule}")));
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..60 => format!("{:.1} s", took.as_secs_f64()),
        long => format!("{} min {:02} s", long / 60, long % 60),
    }
}

fn paint(code: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The cargo that runs us, in the checkout.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root::checkout());
    command
}

/// Shows the command, runs it to its end, and turns a failure into a [`Problem`] with `advice`.
pub fn run(command: &mut Command, advice: &str) -> Outcome {
    let line = shown(command);
    eprintln!("$ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Problem::new(format!("`{line}` ({status})"), advice)),
        Err(error) => Err(Problem::new(format!("`{line}`: {error}"), advice)),
    }
}

fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    command.get_args().fold(name, |line, argument| line + " " + &argument.to_string_lossy())
}
