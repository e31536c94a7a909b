//! On what, with what, and how long was measured: a number without it is hearsay.

use std::fmt;
use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use crate::load::LOAD_CORE;
use crate::rounds::Bench;

/// Facts of the host and the run.
pub struct Facts {
    processor: String,
    cores: usize,
    kernel: String,
    rounds: u32,
    seconds: u32,
    versions: Vec<(&'static str, String)>,
}

/// Gathers them.
///
/// # Errors
/// If the machine has fewer than two cores, or a target does not tell its version.
pub fn facts(bench: &Bench) -> Result<Facts, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("two cores are needed: one for the target, one for the load".to_owned());
    }
    let version = |target: &crate::targets::Target| Ok((target.name(), bench.programs.version(*target)?));
    Ok(Facts {
        processor: processor(&read("/proc/cpuinfo")),
        cores,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        rounds: bench.rounds,
        seconds: bench.seconds,
        versions: bench.targets.iter().map(version).collect::<Result<_, String>>()?,
    })
}

/// The benchmark itself stays on the load's core, and may open as many files as the machine lets it; so may what it starts.
///
/// # Errors
/// If there is no such core.
pub fn prepare() -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, the cases with thousands of connections say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE.parse().expect("the name of a core is its number"));
    sched_setaffinity(None, &cores).map_err(|error| format!("core {LOAD_CORE} for the load: {error}"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn processor(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(": "));
    name.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

impl Facts {
    /// For the JSON document.
    pub fn json(&self) -> Value {
        let versions: serde_json::Map<_, _> =
            self.versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "kernel": self.kernel,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "versions": versions,
        })
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}, {} cores, Linux {}", self.processor, self.cores, self.kernel)?;
        writeln!(out, "medians of {} rounds of {} s", self.rounds, self.seconds)?;
        for (name, version) in &self.versions {
            writeln!(out, "{name:<8} {version}")?;
        }
        Ok(())
    }
}
