//! A fleet of hundreds of thousands: how long a change takes with each app's own windows, and at midnight only.
//!
//! Both plans are made by the planner from the same fleet, ladder and budgets, and pass the checker; they differ in the
//! windows only. Time to completion is the planner's forecast, which counts waves, bakes and windows.

use jiff::Timestamp;
use serde::Serialize;
use weir_change::check::check;
use weir_change::plan::{Input, Past, Plan, plan};
use weir_change::world::Member;
use weir_model::FreezeSpec;
use weir_model::change::ChangeSpec;
use weir_model::freeze::{Effect, Schedule};

use crate::background::Background;
use crate::dice::Dice;
use crate::mesh::{NEW, build, moment};
use crate::shape::Shape;

/// Apps of the large fleet.
const APPS: usize = 5_000;
/// Business lines, each with windows of its own.
const LINES: usize = 8;
/// Seconds that one instance takes to change: a warm upgrade.
const PACE_SECONDS: u64 = 15;
/// The change begins on a Monday at nine.
const BEGINS: i64 = 9 * 3_600;

/// Two plans of the same change.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Windows {
    /// Instances.
    pub pods: usize,
    /// Apps.
    pub apps: usize,
    /// With each business line's own windows.
    pub own_windows: Forecast,
    /// With one window a day, from midnight to five.
    pub midnight_only: Forecast,
}

/// What a plan comes to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// From the beginning to the end of the last bake, in hours.
    pub hours: f64,
    /// Batches.
    pub batches: usize,
    /// Largest share of the traffic weight that becomes newly exposed in one batch.
    pub largest_batch: f64,
    /// Findings of the checker.
    pub findings: usize,
}

impl Windows {
    /// In words.
    pub fn words(&self) -> String {
        let (own, midnight) = (&self.own_windows, &self.midnight_only);
        format!(
            "{} pods of {} apps: {:.1} h with each business line's own windows ({} batches, the largest {:.1} % of the traffic \
             weight, {} findings), {:.1} h at midnight only ({} batches, the largest {:.1} %, {} findings): {:.2} of the time",
            self.pods,
            self.apps,
            own.hours,
            own.batches,
            100.0 * own.largest_batch,
            own.findings,
            midnight.hours,
            midnight.batches,
            100.0 * midnight.largest_batch,
            midnight.findings,
            own.hours / midnight.hours.max(1e-9),
        )
    }
}

/// Plans a change over `pods` instances twice.
///
/// # Errors
/// A plan that leaves someone out.
pub fn windows(pods: usize, seed: u64) -> Result<Windows, String> {
    let mut dice = Dice::new(seed);
    let apps = APPS.min(pods);
    let shape = Shape::large(pods, apps, &mut dice);
    let (mut members, _) = build(&shape, Background::quiet(), &mut dice);
    members.iter_mut().for_each(|m| m.line = line_of(m).into());
    Ok(Windows {
        pods: members.len(),
        apps,
        own_windows: forecast(&members, &own_windows())?,
        midnight_only: forecast(&members, &[permit("0 0 * * *", 5, None, "midnight")])?,
    })
}

/// Apps of a business line are those whose number leaves the same remainder.
fn line_of(member: &Member) -> String {
    let number: usize = member.app.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    format!("line-{}", number % LINES)
}

/// Each business line may change outside its busy hours; the times are the lines' own.
fn own_windows() -> Vec<FreezeSpec> {
    // Beginning and length in hours, UTC.
    let open = [(22, 18), (0, 16), (13, 20), (6, 14), (9, 18), (20, 16), (14, 12), (2, 20)];
    let window = |(line, (hour, hours)): (usize, &(u64, u64))| {
        permit(&format!("0 {hour} * * *"), *hours, Some(format!("line-{line}")), "outside the line's busy hours")
    };
    open.iter().enumerate().map(window).collect()
}

fn permit(cron: &str, hours: u64, line: Option<String>, reason: &str) -> FreezeSpec {
    let schedule = Schedule { cron: cron.into(), duration_seconds: hours * 3_600, ..Schedule::default() };
    FreezeSpec {
        effect: Effect::Permit,
        schedule: Some(schedule),
        lines: line.into_iter().collect(),
        reason: reason.into(),
        ..FreezeSpec::default()
    }
}

fn forecast(members: &[Member], freezes: &[FreezeSpec]) -> Result<Forecast, String> {
    let spec = ChangeSpec::proxy_upgrade(NEW);
    let (past, now) = (Past::default(), moment(BEGINS));
    let input = Input {
        target: NEW,
        ladder: &spec.ladder,
        budget: &spec.budget,
        freezes,
        members,
        past: &past,
        pace_seconds: PACE_SECONDS,
    };
    let plan = plan(&input, now);
    let planned: usize = plan.batches.iter().map(|b| b.instances.len()).sum();
    if planned != members.len() {
        return Err(format!("the plan has {planned} of {} instances", members.len()));
    }
    Ok(Forecast {
        hours: hours(&plan, now),
        batches: plan.batches.len(),
        largest_batch: largest_batch(&plan, members),
        findings: check(&input, &plan, now).len(),
    })
}

fn hours(plan: &Plan, now: Timestamp) -> f64 {
    plan.batches.last().map_or(0.0, |b| b.end.duration_since(now).as_secs_f64() / 3_600.0)
}

fn largest_batch(plan: &Plan, members: &[Member]) -> f64 {
    let weight = |name: &str| {
        let found = members.binary_search_by(|m| (*m.name).cmp(name));
        found.map_or(0, |index| members[index].weight)
    };
    let total: u64 = members.iter().map(|m| m.weight).sum();
    let batches = plan.batches.iter().map(|b| b.instances.iter().map(|n| weight(n)).sum::<u64>());
    batches.max().unwrap_or(0) as f64 / (total as f64).max(1.0)
}
