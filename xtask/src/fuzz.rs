//! `cargo xtask fuzz`: runs the targets of `fuzz/`, a project of its own since it needs a nightly toolchain.

use std::process::{Command, Stdio};

use clap::Args;

use crate::root;
use crate::stage::{self, Outcome, Problem, Stages};

/// What to fuzz and how long.
#[derive(Args)]
pub struct Options {
    /// Each target for 60 seconds (without it: until stopped, so name a target).
    #[arg(long)]
    quick: bool,
    /// One target; without it all of them in turn.
    target: Option<String>,
}

/// Runs the targets, each as its own step.
pub fn run(options: &Options) -> Outcome {
    tools()?;
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None if options.quick => listed()?,
        None => {
            return Err(Problem::new(
                "no target named",
                "add `--quick` or a target's name; `cargo +nightly fuzz list` shows them",
            ));
        }
    };
    let mut stages = Stages::default();
    for target in &targets {
        stages.run(&format!("fuzz {target}"), || fuzz(target, options.quick))?;
    }
    stages.summary();
    Ok(())
}

fn tools() -> Outcome {
    let there = Command::new("cargo")
        .args(["+nightly", "fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Problem::new(
        "fuzzing needs a nightly toolchain and cargo-fuzz; one of them is missing",
        "rustup toolchain install nightly --profile minimal && cargo install cargo-fuzz --locked",
    ))
}

/// `CARGO` of the stable toolchain that runs us would override `+nightly`, so the plain name is used.
fn cargo_fuzz(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz"]).args(arguments);
    command.current_dir(root::checkout().join("fuzz"));
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC"] {
        command.env_remove(name);
    }
    command
}

fn listed() -> Result<Vec<String>, Problem> {
    let output = cargo_fuzz(&["list"])
        .output()
        .map_err(|error| Problem::new(format!("cargo fuzz list: {error}"), "check the fuzz/ folder"))?;
    let targets: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if !output.status.success() || targets.is_empty() {
        return Err(Problem::new("`cargo +nightly fuzz list` names no target", "check fuzz/Cargo.toml"));
    }
    Ok(targets)
}

fn fuzz(target: &str, quick: bool) -> Outcome {
    let mut command = cargo_fuzz(&["run", target]);
    if quick {
        command.args(["--", "-max_total_time=60"]);
    }
    stage::run(&mut command, "the input that broke it is named above; keep it as a test case beside the fix")
}
