//! `weir simulate`: what unattended changes of one's own fleet would come to, without a control plane.

use std::path::PathBuf;
use std::process::ExitCode;

use weir_sim::command::{Options, run};

use crate::failure::{Failure, Outcome};

const EXAMPLES: &str = "\
Examples:
  weir simulate fleet.yaml                        1,000 changes, half of them bad
  weir simulate fleet.yaml --changes 200 --peers  beside fixed thresholds and a rank test
  weir simulate --json found.json --figures out/  made-up fleets; results as JSON and SVG

The file:
  canaryUnit: east
  apps:
  - name: order
    stack: java
    tier: 1
    units: {east: 4, west: 12}
    requestsPerSecond: 40
    errorPercent: 0.2";

/// Simulate changes of a fleet: good and bad versions under the real planner, checker, judge and executor.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An inventory of apps, units and stacks, in YAML or JSON; without it fleets are made up.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Simulates and prints.
pub fn main(args: &Args) -> Outcome {
    run(&args.options, args.file.as_deref()).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
