//! The measurement: every target in every case, in alternating rounds.

use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::accounting::{Cpu, core_worked, resident_mib};
use crate::cases::Case;
use crate::load::{self, TARGET_CORE};
use crate::report::Row;
use crate::targets::{Programs, Running, Target, upstream};

/// What to measure.
pub struct Bench {
    /// How often each is measured.
    pub rounds: u32,
    /// Measured load each time.
    pub seconds: u32,
    /// In this order.
    pub cases: Vec<Case>,
    /// In this order within a round.
    pub targets: Vec<Target>,
    /// Where the programs are.
    pub programs: Programs,
}

/// One target in one case in one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Processor time per request, microseconds.
    pub cpu_us: f64,
    /// The part in user mode.
    pub user_us: f64,
    /// Answers per second.
    pub rps: f64,
    /// Resident memory after start, MiB.
    pub rss_mib: f64,
    /// Resident memory at the end of the load, MiB.
    pub rss_load_mib: f64,
    /// Share of its core that the target used, 0 to 1.
    pub busy: f64,
    /// Share of that core that went to others, 0 to 1: the machine was not quiet.
    pub others: f64,
}

impl Bench {
    /// Measures everything; gives one row for each case and target.
    ///
    /// # Errors
    /// The first failure of a target or of the load ends the run.
    pub fn run(&self) -> Result<Vec<Row>, String> {
        let (_upstream, address, _folder) = upstream(&self.programs).map_err(|error| format!("upstream: {error}"))?;
        let mut rows = Vec::new();
        for case in &self.cases {
            let mut samples = vec![Vec::new(); self.targets.len()];
            for round in 1..=self.rounds {
                eprintln!("{} round {round} of {}", case.name(), self.rounds);
                for (target, samples) in self.targets.iter().zip(&mut samples) {
                    samples.push(self.sample(*case, *target, address)?);
                }
            }
            let measured = self.targets.iter().zip(samples);
            rows.extend(measured.map(|(target, samples)| Row::median(*case, *target, &samples)));
        }
        Ok(rows)
    }

    /// A fresh process each time: nothing that an earlier case left behind is measured.
    fn sample(&self, case: Case, target: Target, upstream: SocketAddr) -> Result<Sample, String> {
        let failed = |what: String| format!("{} in {}: {what}", target.name(), case.name());
        let unread = |error: io::Error| failed(error.to_string());
        let running = Running::start(&self.programs, target, upstream)?;
        let (pids, address) = (running.pids(), running.address(case));
        let rss_mib = resident_mib(&pids).map_err(unread)?;
        load::run(case, address, self.seconds.div_ceil(4)).map_err(failed)?;
        let before = Reading::take(&pids).map_err(unread)?;
        let counted = load::run(case, address, self.seconds).map_err(failed)?;
        let used = Reading::take(&pids).map_err(unread)?.since(before);
        let cpu_us = used.cpu.total.as_secs_f64() * 1e6 / counted.requests as f64;
        let sample = Sample {
            cpu_us,
            user_us: cpu_us * used.cpu.user_share(),
            rps: counted.rps,
            rss_mib,
            rss_load_mib: resident_mib(&pids).map_err(unread)?,
            busy: used.share(used.cpu.total),
            others: used.share(used.core.saturating_sub(used.cpu.total)),
        };
        eprintln!("  {:<8} {:>7.2} us  {:>8.0} req/s", target.name(), sample.cpu_us, sample.rps);
        Ok(sample)
    }
}

/// What was used up to a moment, or between two.
struct Reading {
    cpu: Cpu,
    core: Duration,
    wall: Duration,
}

impl Reading {
    fn take(pids: &[u32]) -> io::Result<Reading> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Ok(Reading { cpu: Cpu::of(pids)?, core: core_worked(TARGET_CORE)?, wall: START.elapsed() })
    }

    fn since(self, before: Reading) -> Reading {
        Reading { cpu: self.cpu - before.cpu, core: self.core - before.core, wall: self.wall - before.wall }
    }

    fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.wall.as_secs_f64()
    }
}
