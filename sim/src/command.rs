//! What can be asked for: the arguments of `cargo xtask simulate` and of `weir simulate`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::campaign::{self, Plan};
use crate::figures;
use crate::inventory::Inventory;
use crate::large::{self, Windows};
use crate::peers::Judge;
use crate::report::{self, Doubling, Summary};
use crate::shape::Shape;

/// How much is simulated, and where the results go.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Simulated changes, good and bad ones.
    #[arg(long, default_value_t = 1_000)]
    pub changes: usize,
    /// Seed of all chance: the same seed gives the same results.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads; 0: as many as there are processors.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// The same changes under published judges too: fixed thresholds and a rank test.
    #[arg(long)]
    pub peers: bool,
    /// Changes to a version that doubles the errors, on 300 instances with the default ladder.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub doublings: usize,
    /// Plan a fleet of so many pods to its end, with each app's own windows and at midnight only; 0: do not.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub pods: usize,
    /// Write what was found as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write figures as SVG into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub figures: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    seed: u64,
    judges: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubling: Option<Doubling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<Windows>,
}

/// Simulates, prints, writes.
///
/// # Errors
/// What could not be read or written; invariants that were broken.
pub fn run(options: &Options, inventory: Option<&Path>) -> Result<(), String> {
    let shape = inventory.map(read).transpose()?;
    let judges: &[Judge] = if options.peers { &Judge::ALL } else { &[Judge::Weir] };
    let found = Found {
        seed: options.seed,
        judges: judges.iter().map(|judge| judged(options, *judge, shape.as_ref())).collect(),
        doubling: (options.doublings > 0).then(|| doubled(options)),
        windows: (options.pods > 0).then(|| large::windows(options.pods, options.seed)).transpose()?,
    };
    print(&found);
    write(options, &found)?;
    let violations: usize = found.judges.iter().map(|s| s.violations).sum();
    if violations > 0 { Err(format!("{violations} invariants were broken, see above")) } else { Ok(()) }
}

fn read(file: &Path) -> Result<Shape, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Inventory::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?.shape())
}

fn plan(options: &Options, changes: usize) -> Plan {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { processors } else { options.threads };
    Plan { changes, seed: options.seed, threads }
}

fn judged(options: &Options, judge: Judge, shape: Option<&Shape>) -> Summary {
    let make = |seed| campaign::ordinary(seed, judge, shape);
    let reports = campaign::run_all(plan(options, options.changes), make, progress(judge.words(), options.changes));
    report::summary(judge, &reports)
}

fn doubled(options: &Options) -> Doubling {
    let progress = progress("twice the errors", options.doublings);
    report::doubling(&campaign::run_all(plan(options, options.doublings), campaign::doubling, progress))
}

fn progress(what: &'static str, all: usize) -> impl Fn(usize) + Sync {
    move |done| {
        if done % (all / 20).max(1) == 0 {
            eprintln!("{what}: {done} of {all} changes");
        }
    }
}

fn print(found: &Found) {
    if found.judges.iter().any(|s| s.changes > 0) {
        print!("{}", report::tables(&found.judges));
    }
    for summary in &found.judges {
        summary.violations_listed.iter().for_each(|v| println!("broken under {}: {v}", summary.judge));
    }
    let blocks = found.judges.first().map(|s| s.false_blocks_listed.as_slice()).unwrap_or_default();
    blocks.iter().for_each(|v| println!("good version stopped: {v}"));
    if let Some(doubling) = &found.doubling {
        println!("\n{}", report::doubling_in_words(doubling));
        doubling.late_listed.iter().for_each(|late| println!("found late: {late}"));
    }
    if let Some(windows) = &found.windows {
        println!("\n{}", windows.words());
    }
}

fn write(options: &Options, found: &Found) -> Result<(), String> {
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(found).map_err(|error| error.to_string())?;
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    }
    options.figures.as_deref().map_or(Ok(()), |folder| figures::write(folder, &found.judges))
}
