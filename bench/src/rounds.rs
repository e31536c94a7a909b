//! The measurement: every target in every case, in alternating rounds.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::accounting::{Cpu, core_worked, resident_mib};
use crate::cases::{Case, Idle};
use crate::client;
use crate::latency::{self, Percentiles};
use crate::load::{self, TARGET_CORE};
use crate::report::Row;
use crate::rpc;
use crate::targets::{Programs, Running, Target, Upstreams};

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

/// One target in one case in one round: what was measured of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Under load.
    pub cost: Option<Cost>,
    /// At a fixed rate, more than direct.
    pub added: Option<Percentiles>,
    /// With idle connections.
    pub idle: Option<IdleMemory>,
}

/// What requests (or handshakes) cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
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

/// What idle connections hold.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IdleMemory {
    /// Resident memory per connection, KiB.
    pub kib_per_conn: f64,
    /// The share of it that is still there after they have gone, 0 to 1.
    pub kept: f64,
}

/// Warm-ups before a target is given up as too slow.
const WARM_UPS: usize = 30;
/// Idle connections at a time.
const IDLE: usize = 5_000;
/// Connections before that, one after the other, so that what is made once is there.
const FIRST: usize = 200;
/// What a target does after some time (giving memory back) it does within this.
const SETTLING: Duration = Duration::from_secs(2);

impl Bench {
    /// Measures everything; gives one row for each case and target.
    ///
    /// # Errors
    /// The first failure of a target or of the load ends the run.
    pub fn run(&self) -> Result<Vec<Row>, String> {
        let upstreams = Upstreams::start(&self.programs)?;
        let mut rows = Vec::new();
        for case in &self.cases {
            let targets: Vec<_> = self.targets.iter().filter(|target| case.is_for(**target)).collect();
            let mut samples = vec![Vec::new(); targets.len()];
            for round in 1..=self.rounds {
                eprintln!("{} round {round} of {}", case.name(), self.rounds);
                for (target, samples) in targets.iter().zip(&mut samples) {
                    let failed = |what| format!("{} in {}: {what}", target.name(), case.name());
                    let sample = self.sample(*case, **target, &upstreams).map_err(failed)?;
                    eprintln!("  {:<8} {sample}", target.name());
                    samples.push(sample);
                }
            }
            rows.extend(targets.iter().zip(samples).map(|(target, samples)| Row::median(*case, **target, &samples)));
        }
        Ok(rows)
    }

    /// A fresh process each time: nothing that an earlier case left behind is measured.
    fn sample(&self, case: Case, target: Target, upstreams: &Upstreams) -> Result<Sample, String> {
        let running = Running::start(&self.programs, target, case, upstreams)?;
        let address = running.address(case);
        Ok(match case {
            Case::Latency => Sample { added: Some(self.added(address, upstreams.h1)?), ..Sample::default() },
            Case::EdsUpdate => Sample { added: Some(self.added(address, upstreams.many(1)[0])?), ..Sample::default() },
            Case::Idle(kind) => Sample { idle: Some(idle(kind, &running, address, upstreams)?), ..Sample::default() },
            _ => Sample { cost: Some(self.cost(case, &running, address, upstreams)?), ..Sample::default() },
        })
    }

    /// Direct first, then through the target, within seconds of each other.
    fn added(&self, address: SocketAddr, direct: SocketAddr) -> Result<Percentiles, String> {
        let warm_up = self.seconds.div_ceil(4);
        latency::measure(direct, warm_up)?;
        let direct = latency::measure(direct, self.seconds)?;
        latency::measure(address, warm_up)?;
        Ok(latency::measure(address, self.seconds)?.added_to(direct))
    }

    fn cost(&self, case: Case, running: &Running, address: SocketAddr, upstreams: &Upstreams) -> Result<Cost, String> {
        let (pids, unread) = (running.pids(), |error: io::Error| error.to_string());
        let load = |seconds| match case {
            Case::TlsHandshake => {
                let requests = client::shake_hands(address, &upstreams.certificate.client()?, seconds)?;
                Ok(load::Counted { requests, rps: requests as f64 / f64::from(seconds) })
            }
            Case::Rpc(protocol) => rpc::run(protocol, address, seconds),
            _ => load::run(case, address, seconds, &upstreams.message),
        };
        let rss_mib = resident_mib(&pids).map_err(unread)?;
        warm_up(case, || load(self.seconds.div_ceil(4)))?;
        let before = Reading::take(&pids).map_err(unread)?;
        let counted = load(self.seconds)?;
        let used = Reading::take(&pids).map_err(unread)?.since(before);
        let cpu_us = used.cpu.total.as_secs_f64() * 1e6 / counted.requests.max(1) as f64;
        Ok(Cost {
            cpu_us,
            user_us: cpu_us * used.cpu.user_share(),
            rps: counted.rps,
            rss_mib,
            rss_load_mib: resident_mib(&pids).map_err(unread)?,
            busy: used.share(used.cpu.total),
            others: used.share(used.core.saturating_sub(used.cpu.total)),
        })
    }
}

/// Loads until every endpoint has had its turn, or what is measured is connecting.
fn warm_up(case: Case, load: impl Fn() -> Result<load::Counted, String>) -> Result<(), String> {
    let (mut requests, wanted) = (0, case.endpoints() as u64 * 2);
    for _ in 0..WARM_UPS {
        requests += load()?.requests;
        if requests >= wanted {
            return Ok(());
        }
    }
    Err(format!("{requests} requests in {WARM_UPS} warm-ups; {wanted} are needed"))
}

/// Opens the connections one after the other, each with its request, and weighs the target before, with them, and after.
fn idle(kind: Idle, running: &Running, address: SocketAddr, upstreams: &Upstreams) -> Result<IdleMemory, String> {
    let (pids, unread) = (running.pids(), |error: io::Error| error.to_string());
    let (tls, settled) = (upstreams.certificate.client()?, || std::thread::sleep(SETTLING));
    for _ in 0..FIRST {
        client::one(kind, address, &tls).map_err(unread)?;
    }
    settled();
    let before = resident_mib(&pids).map_err(unread)?;
    let kept = (0..IDLE).map(|_| client::one(kind, address, &tls)).collect::<io::Result<Vec<_>>>().map_err(unread)?;
    settled();
    let with = resident_mib(&pids).map_err(unread)? - before;
    drop(kept);
    settled();
    let after = resident_mib(&pids).map_err(unread)? - before;
    Ok(IdleMemory { kib_per_conn: with * 1024.0 / IDLE as f64, kept: after / with })
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cost) = self.cost {
            write!(out, "{:>8.2} us  {:>8.0} per second", cost.cpu_us, cost.rps)?;
        }
        if let Some(Percentiles { p50_us, p99_us, p999_us }) = self.added {
            write!(out, "p50 +{p50_us:.0} us  p99 +{p99_us:.0} us  p99.9 +{p999_us:.0} us")?;
        }
        if let Some(IdleMemory { kib_per_conn, kept }) = self.idle {
            write!(out, "{kib_per_conn:.2} KiB per connection, {:.0} % kept afterwards", kept * 100.0)?;
        }
        Ok(())
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
