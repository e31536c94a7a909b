//! What a change would do, before anybody lets it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use weir_model::Change;
use weir_model::check::{Ask, Said, own_code};
use weir_store::observed::Telemetry;
use weir_store::{Result, Store};

use crate::check::{Finding, check};
use crate::defence::{self, Facts, Stage};
use crate::fleet::Fleet;
use crate::plan::{Input, Past, Plan, Planned, Wait, plan};
use crate::report::check_text;
use crate::world::{Member, World, many, nothing_in_scope};

/// How long one instance takes to change where nothing is known (seconds).
pub(crate) const ASSUMED_PACE_SECONDS: u64 = 15;
/// Instances and apps named of a batch.
const NAMED: usize = 20;
/// Reasons to wait that are told.
const MAX_WAITS: usize = 100;

/// The plan of a change that has not begun.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// What it would do.
    pub action: String,
    /// Instances that it is about.
    pub in_scope: usize,
    /// Batches, in order.
    pub batches: Vec<PreviewBatch>,
    /// Who would have to wait, by reason.
    pub deferred: Vec<PreviewWait>,
    /// When the last batch would have been judged, if all goes well.
    pub ends: Option<Timestamp>,
    /// The largest batch: instances newly exposed at once.
    pub largest_instances: usize,
    /// Its share of the scope's traffic weight.
    pub largest_percent: f64,
    /// What else stands in the way.
    pub obstacles: Vec<String>,
}

/// A batch to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewBatch {
    /// From 1.
    pub number: usize,
    /// The rung's percentage; 0: one box.
    pub percent: f64,
    /// How many instances.
    pub instances: usize,
    /// Share of the scope's traffic weight.
    pub weight_percent: f64,
    /// The first of them.
    pub first: Vec<String>,
    /// Why these.
    pub why: String,
    /// When it would begin.
    pub start: Timestamp,
    /// When it would have been judged.
    pub end: Timestamp,
}

/// Instances that have to wait for the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewWait {
    /// What for.
    pub reason: String,
    /// Until when, if that is known.
    pub until: Option<Timestamp>,
    /// How many.
    pub instances: usize,
    /// One of them.
    pub example: String,
}

/// Plans `change` against what is stored now, and writes nothing.
///
/// # Errors
/// Those of the store.
pub async fn preview(store: &dyn Store, change: &Change, now: Timestamp) -> Result<Preview> {
    let mut fleet = Fleet::default();
    fleet.refresh(store).await?;
    Ok(of(change, &fleet.world(change), now))
}

/// Plans `change` in a `world`.
pub fn of(change: &Change, world: &World, now: Timestamp) -> Preview {
    let (spec, past) = (&change.spec, Past::default());
    let input = Input {
        target: spec.target(),
        ladder: &spec.ladder,
        budget: &spec.budget,
        freezes: &world.freezes,
        members: &world.members,
        past: &past,
        pace_seconds: ASSUMED_PACE_SECONDS,
    };
    let plan = plan(&input, now);
    let findings = check(&input, &plan, now);
    let mut obstacles: Vec<String> = findings.iter().map(|f| format!("unsafe: {f}")).collect();
    if !world.released {
        obstacles.push(world.no_release(&spec.action));
    }
    obstacles.extend(world.rival.iter().map(|r| format!("change/{r} goes first: it is about the same instances")));
    if world.in_scope() == 0 && !spec.action.is_configuration() {
        obstacles.push(nothing_in_scope(spec));
    } else if plan.batches.is_empty() && plan.deferred.is_empty() {
        obstacles.push(match spec.action.is_configuration() {
            true => "no proxy is concerned: it would go to the store at once".to_owned(),
            false => "there is nothing to do: no instance in scope has to change".to_owned(),
        });
    }
    obstacles.extend(checks(change, world, (&plan, &findings), now));
    let weights = Weights::new(&world.members);
    let batches: Vec<PreviewBatch> = (1..).zip(&plan.batches).map(|(n, b)| weights.batch(n, b, change)).collect();
    let largest = |of: fn(&PreviewBatch) -> f64| batches.iter().map(of).fold(0.0, f64::max);
    Preview {
        action: spec.action.to_string(),
        in_scope: world.in_scope(),
        deferred: deferred(&plan),
        ends: plan.batches.last().map(|b| b.end),
        largest_instances: largest(|b| b.instances as f64) as usize,
        largest_percent: largest(|b| b.weight_percent),
        obstacles,
        batches,
    }
}

/// What checks say of it that is not told already. Nobody else is asked, and nothing is known of what proxies report.
fn checks(change: &Change, world: &World, (plan, findings): (&Plan, &[Finding]), now: Timestamp) -> Vec<String> {
    let told = ["C-CONFLICT", "V-RELEASE", "P-PLAN", "W-WINDOW", "H-BEFORE", "L-APPROVAL", "F-REPORTING"];
    let others = world.checks.iter().filter(|(_, spec)| !matches!(spec.ask, Ask::Cel(_)));
    let left_out: Vec<String> = told.map(str::to_owned).into_iter().chain(others.map(|(n, _)| own_code(n))).collect();
    let stage = Stage::Planned { plan, findings, next: plan.batches.first(), number: 1 };
    let facts = Facts { change, world, telemetry: &Telemetry::default(), now, stage };
    let answers = defence::ask(&facts);
    let telling = answers.iter().filter(|a| a.said != Said::Pass && !left_out.contains(&a.code));
    telling.map(|a| check_text(a).trim_start_matches("- ").to_owned()).collect()
}

struct Weights<'a> {
    of: BTreeMap<&'a str, u64>,
    total: u64,
}

impl<'a> Weights<'a> {
    fn new(members: &'a [Member]) -> Weights<'a> {
        let of: BTreeMap<&str, u64> = members.iter().filter(|m| m.in_scope).map(|m| (&*m.name, m.weight)).collect();
        Weights { total: of.values().sum(), of }
    }

    fn batch(&self, number: usize, planned: &Planned, change: &Change) -> PreviewBatch {
        let weight: u64 = planned.instances.iter().filter_map(|n| self.of.get(&**n)).sum();
        PreviewBatch {
            number,
            percent: change.spec.ladder.get(planned.rung).map_or(100.0, |r| r.percent),
            instances: planned.instances.len(),
            weight_percent: weight as f64 * 100.0 / self.total.max(1) as f64,
            first: planned.instances.iter().take(NAMED).map(ToString::to_string).collect(),
            why: planned.why.clone(),
            start: planned.start,
            end: planned.end,
        }
    }
}

fn deferred(plan: &Plan) -> Vec<PreviewWait> {
    let mut waits: BTreeMap<(String, Option<Timestamp>), (usize, String)> = BTreeMap::new();
    for deferred in &plan.deferred {
        let key = match &deferred.wait {
            Wait::Window { reason, until } => (format!("protection window: {reason}"), *until),
            Wait::Health(why) => (format!("health: {why}"), None),
        };
        let entry = waits.entry(key).or_insert_with(|| (0, deferred.instance.to_string()));
        entry.0 += 1;
    }
    let told = waits.into_iter().take(MAX_WAITS);
    told.map(|((reason, until), (instances, example))| PreviewWait { reason, until, instances, example }).collect()
}

impl Preview {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.action);
        // Writing to a String cannot fail.
        for obstacle in &self.obstacles {
            let _ = writeln!(text, "! {obstacle}");
        }
        for b in &self.batches {
            let _ = writeln!(
                text,
                "batch {}: {}, {:.1} % of the traffic weight, {:.0} to {:.0}\n  {}",
                b.number,
                many(b.instances, "instance", "instances"),
                b.weight_percent,
                b.start,
                b.end,
                b.why
            );
        }
        for w in &self.deferred {
            let until = w.until.map_or("not known to end".to_owned(), |until| format!("until {until:.0}"));
            let _ = writeln!(
                text,
                "deferred: {} (e.g. {}), {}, {until}",
                many(w.instances, "instance", "instances"),
                w.example,
                w.reason
            );
        }
        let ends = self.ends.map_or("nothing would run".to_owned(), |ends| format!("forecast end {ends:.0}"));
        let _ = writeln!(
            text,
            "{ends}; largest blast radius {} instances, {:.1} % of the traffic weight",
            self.largest_instances, self.largest_percent
        );
        text
    }
}
