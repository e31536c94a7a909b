//! `cargo xtask test`: everything that has to hold before a change is merged, from nothing.
//!
//! The compiler is called with the same set of packages throughout (`--workspace`), since cargo unifies features
//! over the packages it is asked for: a narrower call would build the dependencies a second time. For the same
//! reason the binaries that the stories spawn are built together with the stories' own test binary.

use clap::{Args, ValueEnum};

use crate::root;
use crate::setup;
use crate::stage::{self, Outcome, Stages, cargo};

/// What to run; without options: all of it.
#[derive(Args)]
pub struct Options {
    /// Run one part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Run the stories whose name contains NAME, e.g. `house` or `envoy::follows`.
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    story: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// rustfmt finds nothing to change.
    Fmt,
    /// clippy on all targets, warnings denied.
    Clippy,
    /// Unit, property and documentation tests of every crate.
    Unit,
    /// The stories of tests/, with real binaries and real peers.
    Stories,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        match self.story {
            Some(_) => part == Part::Stories,
            None => self.only.is_none_or(|only| only == part),
        }
    }
}

/// Runs the parts in the order in which they fail fastest.
pub fn run(options: &Options) -> Outcome {
    let mut stages = Stages::default();
    if options.wants(Part::Unit) || options.wants(Part::Stories) {
        stages.run("what the tests need", setup::all)?;
    }
    if options.wants(Part::Fmt) || options.wants(Part::Clippy) {
        stages.run("what the lints need", setup::components)?;
    }
    if options.wants(Part::Fmt) {
        stages.run("formatting", formatting)?;
    }
    if options.wants(Part::Clippy) {
        stages.run("clippy", clippy)?;
    }
    if options.wants(Part::Unit) {
        stages.run("unit and property tests", unit)?;
    }
    if options.wants(Part::Stories) {
        stages.run("building for the stories", build)?;
        stages.run("stories", || stories(options.story.as_deref()))?;
    }
    stages.summary();
    Ok(())
}

fn formatting() -> Outcome {
    stage::run(&mut cargo(&["fmt", "--all", "--check"]), "run `cargo fmt --all` and look at what it changed")
}

fn clippy() -> Outcome {
    stage::run(
        &mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        "mend what clippy says; `#[expect(..., reason = \"...\")]` where it is wrong",
    )
}

fn unit() -> Outcome {
    stage::run(
        &mut cargo(&["test", "--workspace", "--exclude", "weir-tests"]),
        "run the failed test alone: cargo test -p CRATE NAME",
    )
}

fn build() -> Outcome {
    stage::run(
        &mut cargo(&["build", "--workspace", "--bins", "--test", "stories"]),
        "mend the build: cargo build --workspace --bins",
    )
}

fn stories(only: Option<&str>) -> Outcome {
    let mut command = cargo(&["test", "--workspace", "--test", "stories"]);
    command.env("WEIR_BIN_DIR", root::target().join("debug"));
    command.env("WEIR_PEERS_DIR", root::peers());
    if let Some(name) = only {
        command.args(["--", name]);
    }
    stage::run(&mut command, "run the failed story alone: cargo xtask test --story NAME")
}
