//! How long planning takes and how much memory, by the size of the fleet: `cargo xtask bench plan`.
//!
//! Each size runs in a process of its own, so that the peak of its resident memory is its own: the fleet, the plan and
//! the checker's tables together. The first plan, the plan from a half-done state, and the check of each are timed; the
//! checker must find nothing.

use std::process::{Command, ExitCode};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_change::check::check;
use weir_change::plan::{Input, Past, Plan, plan};
use weir_change::world::{Member, Name, State};
use weir_model::FreezeSpec;
use weir_model::change::ChangeSpec;

const SIZES: [usize; 4] = [30_000, 100_000, 300_000, 1_000_000];
const APPS: usize = 5_000;
const STACKS: usize = 6;
const UNITS: usize = 12;
const ZONES: usize = 3;
/// One app in so many has a window that is shut and opens hours later.
const FROZEN_ONE_IN: usize = 10;
/// Runs of which the median is reported.
const RUNS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--pods", pods] => pods.parse().map_or_else(|_| usage(), |pods| finish(measure(pods))),
        [] => finish(all(None)),
        ["--json", file] => finish(all(Some(file))),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: plan_scale [--json FILE | --pods N]");
    ExitCode::FAILURE
}

fn finish(result: Result<(), String>) -> ExitCode {
    let said = result.map_err(|problem| eprintln!("error: {problem}"));
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(file: Option<&str>) -> Result<(), String> {
    let rows = SIZES.iter().map(|pods| in_child(*pods)).collect::<Result<Vec<Value>, String>>()?;
    println!(
        "{:>9} {:>8} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "pods", "batches", "plan", "check", "replan", "check", "peak RSS"
    );
    for row in &rows {
        let ms = |name: &str| format!("{} ms", row[name]);
        println!(
            "{:>9} {:>8} {:>10} {:>10} {:>10} {:>10} {:>6} MB",
            row["pods"],
            row["batches"],
            ms("planMs"),
            ms("checkMs"),
            ms("replanMs"),
            ms("recheckMs"),
            row["peakRssMb"]
        );
    }
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(&json!({"plan": rows})).map_err(|e| e.to_string())?;
    std::fs::write(file, text + "\n").map_err(|e| format!("{file}: {e}"))
}

fn in_child(pods: usize) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(program).args(["--pods", &pods.to_string()]).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("{pods} pods: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{pods} pods: {e}"))
}

/// Facts of a plan and how long it took.
struct Timed {
    plan: Plan,
    plan_ms: u64,
    check_ms: u64,
}

fn measure(pods: usize) -> Result<(), String> {
    let mut members = fleet(pods);
    let fresh = timed(&members, &Past::default())?;
    let half = half_done(&mut members, &fresh.plan);
    let again = timed(&members, &half)?;
    let rss = peak_rss_mb()?;
    println!(
        "{}",
        json!({
            "pods": pods, "batches": fresh.plan.batches.len(), "planMs": fresh.plan_ms, "checkMs": fresh.check_ms,
            "replanMs": again.plan_ms, "recheckMs": again.check_ms, "peakRssMb": rss,
        })
    );
    Ok(())
}

fn timed(members: &[Member], past: &Past) -> Result<Timed, String> {
    let spec = ChangeSpec::proxy_upgrade("b");
    let now = Timestamp::UNIX_EPOCH;
    let freezes = freezes(now);
    let input = Input {
        target: "b",
        ladder: &spec.ladder,
        budget: &spec.budget,
        freezes: &freezes,
        members,
        past,
        pace_seconds: 15,
    };
    let (plan, plan_ms) = median(|| plan(&input, now));
    let (findings, check_ms) = median(|| check(&input, &plan, now));
    let planned: usize = plan.batches.iter().map(|b| b.instances.len()).sum();
    match findings.first() {
        Some(finding) => Err(finding.to_string()),
        None if planned + past.changed.len() != members.len() => Err(format!("{planned} are planned")),
        None => Ok(Timed { plan, plan_ms, check_ms }),
    }
}

/// The last result, and the median of the processor time in milliseconds: unlike the time on the wall it does not depend
/// on what else the machine does. Planning is one thread and waits for nothing.
fn median<T>(run: impl Fn() -> T) -> (T, u64) {
    let once = || {
        let begin = cpu_ms();
        (run(), cpu_ms().saturating_sub(begin))
    };
    let (mut result, first) = once();
    let mut times = vec![first];
    for _ in 1..RUNS {
        let (next, took) = once();
        result = next;
        times.push(took);
    }
    times.sort_unstable();
    (result, times[RUNS / 2])
}

/// Time that this thread has had on a processor, as the kernel counts it (first field of `schedstat`, ns).
fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: u64 = text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    ns / 1_000_000
}

/// Apps of very different sizes, each on one stack, spread over units and zones.
fn fleet(pods: usize) -> Vec<Member> {
    let names = |kind: &str, count: usize| (0..count).map(|n| format!("{kind}-{n:04}").into()).collect::<Vec<Name>>();
    let (apps, stacks, units, zones) =
        (names("app", APPS), names("stack", STACKS), names("unit", UNITS), names("zone", ZONES));
    let (version, empty) = (Name::from("a"), Name::from(""));
    let mut random = fastrand::Rng::with_seed(1);
    let mut member = |n: usize| {
        // A few apps have most of the instances, and every app has one at least.
        let skewed = (random.f64() * random.f64() * APPS as f64) as usize;
        let app = if n < APPS { n } else { skewed };
        let unit = random.usize(..UNITS);
        Member {
            name: format!("{}-{n:07}", apps[app]).into(),
            app: apps[app].clone(),
            line: "".into(),
            unit: units[unit].clone(),
            zone: zones[random.usize(..ZONES)].clone(),
            stack: stacks[app % STACKS].clone(),
            group: empty.clone(),
            tier: 1 + (app % 4) as u8,
            canary: unit == 0,
            weight: 50 * random.u64(1..=4),
            in_scope: true,
            wanted: version.clone(),
            running: version.clone(),
            state: State::Serving,
            checked: true,
            message: empty.clone(),
            since: None,
            workload: None,
        }
    };
    let mut members: Vec<Member> = (0..pods).map(&mut member).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

fn freezes(now: Timestamp) -> Vec<FreezeSpec> {
    let freeze = |app: usize| FreezeSpec {
        until: now.checked_add(SignedDuration::from_hours(1 + (app % 24) as i64)).ok(),
        apps: vec![format!("app-{app:04}")],
        reason: "the app's own window".into(),
        ..FreezeSpec::default()
    };
    (0..APPS).step_by(FROZEN_ONE_IN).map(freeze).collect()
}

/// The first batches have passed, with about half of the instances.
fn half_done(members: &mut [Member], plan: &Plan) -> Past {
    let mut past = Past::default();
    for batch in &plan.batches {
        if past.changed.len() + batch.instances.len() > members.len() / 2 {
            let room = members.len() / 2 - past.changed.len();
            past.changed.extend(batch.instances.iter().take(room).cloned());
            break;
        }
        past.changed.extend(batch.instances.iter().cloned());
    }
    let target = Name::from("b");
    for member in members.iter_mut().filter(|m| past.changed.contains(&m.name)) {
        (member.wanted, member.running) = (target.clone(), target.clone());
    }
    past
}

/// Most memory that was resident at a time, as the kernel counts it.
fn peak_rss_mb() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("VmHWM is not known")?;
    let kb: u64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|_| format!("VmHWM is {line:?}"))?;
    Ok(kb.div_ceil(1024))
}
