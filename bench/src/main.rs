//! What a request through Weir's proxy costs, beside nginx, HAProxy and Envoy, in one run on one machine.
//!
//! Numbers taken on different days or machines cannot be compared, so every run measures all of them, in turns:
//! round 1 takes each target once, round 2 again, and so on, and the median over the rounds is reported. Each
//! target has one worker on core 1; the load generator and the upstream share core 0. What is compared first is
//! the processor time that the target itself used for a request, from the kernel's own accounting: unlike
//! throughput it does not depend on how fast the load generator is. `docs/performance.md` tells the method.
//!
//! [`targets`] knows how each is configured and started, [`load`] how requests are sent and counted,
//! [`accounting`] reads /proc, [`rounds`] is the measurement, [`report`] the table and the JSON.

mod accounting;
mod cases;
mod certificate;
mod client;
mod host;
mod latency;
mod load;
mod report;
mod rounds;
mod rpc;
mod serve;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cases::Case;
use crate::targets::Target;

/// Weir's benchmarks.
#[derive(Parser)]
#[command(name = "weir-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Requests through nginx, HAProxy, Envoy and Weir side by side.
    Proxy(Options),
    /// What the targets forward to where nginx cannot; the benchmark starts it.
    #[command(hide = true)]
    Serve(serve::Options),
}

/// What is measured and for how long.
#[derive(Args)]
struct Options {
    /// Rounds; each takes every target once in every case, and the median is reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of measured load for each target, case and round (a quarter as much warms up).
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// One round of a second each: shows that everything works, and no number to quote.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Only these cases and targets, e.g. `h1-small,weir,nginx`.
    #[arg(long, value_delimiter = ',', value_name = "CASE,TARGET")]
    only: Vec<String>,
    /// Write the rows and the host's facts as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The weir-proxy binary, built in release mode.
    #[arg(long, default_value = "target/release/weir-proxy")]
    weir: PathBuf,
    /// The Python environment that has Envoy (`cargo xtask setup` makes it).
    #[arg(long, default_value = "target/peers/venv")]
    venv: PathBuf,
}

fn main() -> ExitCode {
    let options = match Cli::parse().command {
        Command::Proxy(options) => options,
        Command::Serve(options) => return serve::run(&options),
    };
    // The test kit tells failures by panicking; here they are errors for a person at a terminal.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("error: {}", panic.payload_as_str().unwrap_or("unknown"));
    }));
    match proxy(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn proxy(options: &Options) -> Result<(), String> {
    let (cases, targets) = selected(&options.only)?;
    let (rounds, seconds) = if options.quick { (1, 1) } else { (options.rounds, options.seconds) };
    let bench = rounds::Bench {
        rounds,
        seconds,
        cases,
        programs: targets::Programs::find(&targets, &options.weir, &options.venv)?,
        targets,
    };
    let facts = host::facts(&bench)?;
    host::prepare()?;
    let rows = bench.run()?;
    print!("{}", report::table(&rows, &facts));
    match &options.json {
        Some(file) => report::write_json(file, &rows, &facts),
        None => Ok(()),
    }
}

/// Names of cases restrict the cases, names of targets the targets; without any of a sort: all of that sort.
fn selected(only: &[String]) -> Result<(Vec<Case>, Vec<Target>), String> {
    let (mut cases, mut targets) = (Vec::new(), Vec::new());
    for name in only {
        match (Case::named(name), Target::named(name)) {
            (Some(case), _) => cases.push(case),
            (None, Some(target)) => targets.push(target),
            (None, None) => return Err(unknown(name)),
        }
    }
    if cases.is_empty() {
        cases = Case::ALL.map(|(case, _)| case).to_vec();
    }
    if targets.is_empty() {
        targets = Target::ALL.to_vec();
    }
    Ok((cases, targets))
}

fn unknown(name: &str) -> String {
    let cases = Case::ALL.map(|(_, name)| name).join(", ");
    let targets = Target::ALL.map(Target::name).join(", ");
    format!("--only {name}: neither a case ({cases}) nor a target ({targets})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select_cases_and_targets() {
        let only = ["h1-small", "weir", "nginx"].map(str::to_owned);
        let (cases, targets) = selected(&only).unwrap();
        assert_eq!(cases, [Case::H1Small]);
        assert_eq!(targets, [Target::Weir, Target::Nginx]);
        let (cases, _) = selected(&only[1..]).unwrap();
        assert_eq!(cases, Case::ALL.map(|(case, _)| case));
        assert!(selected(&["apache".to_owned()]).unwrap_err().contains("haproxy"));
    }
}
