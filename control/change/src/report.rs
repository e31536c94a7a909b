//! The record of a change for people and programs: what was planned, done and found, by whom and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use weir_model::Change;
use weir_model::change::{Batch, BatchPhase, ChangePhase, EffectiveLevel, Evidence, Level, PlanVersion};
use weir_model::change_record::{ChangeRecordSpec, Fact, Note};
use weir_model::check::{CheckAnswer, Said, Severity, Skip};
use weir_store::{AuditEntry, AuditQuery, Result, Store};

use crate::execute::records;

/// Steps told in a report, the newest.
const MAX_STEPS: usize = 2_000;
/// Comparisons shown of a verdict in words.
const SHOWN: usize = 8;

/// All there is to know of a change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Its name.
    pub name: String,
    /// What it does, in words.
    pub action: String,
    /// Where it is.
    pub phase: ChangePhase,
    /// Why it waits, or how it ended.
    pub message: String,
    /// When the first batch began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How much happens without a person.
    pub level: LevelReport,
    /// Every plan it has followed, oldest first.
    pub plans: Vec<PlanVersion>,
    /// Batches that have begun, each as it was judged.
    pub batches: Vec<Batch>,
    /// What each step said and did, oldest first.
    pub steps: Vec<StepReport>,
    /// Steps before those.
    pub steps_omitted: usize,
    /// What checks have said last.
    pub checks: Vec<CheckAnswer>,
    /// Checks that somebody lets it go on without: who, and why.
    pub skips: BTreeMap<String, Skip>,
    /// Instances that left the change, and why.
    pub left: Vec<(String, String)>,
    /// Who wrote to it, and why.
    pub writes: Vec<AuditEntry>,
}

/// The level of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LevelReport {
    /// The one it runs at.
    pub level: Level,
    /// What that means.
    pub meaning: &'static str,
    /// What kept it from the next one; empty: nothing did.
    pub kept_from_next: Vec<String>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Number of its last record.
    pub record: u64,
    /// When.
    pub at: Timestamp,
    /// What happened, in words.
    pub notes: Vec<Note>,
    /// Instances let go.
    pub let_go: usize,
    /// Instances that came back.
    pub back: usize,
}

/// Reads the report of a stored change.
///
/// # Errors
/// Those of the store.
pub async fn report(store: &dyn Store, change: &Change) -> Result<Report> {
    let records = records(store, change).await?;
    let query = AuditQuery { key: Some(change.key()), limit: weir_store::record::MAX_RECORDS };
    let writes = store.audit(&query).await?;
    let mut report = Report {
        name: change.name().to_owned(),
        action: change.spec.action.to_string(),
        phase: change.status.phase,
        message: change.status.message.clone(),
        started_at: change.status.started_at,
        finished_at: change.status.finished_at,
        level: level(change, &writes),
        plans: Vec::new(),
        batches: change.status.batches.iter().filter(|b| b.phase != BatchPhase::Waiting).cloned().collect(),
        steps: Vec::new(),
        steps_omitted: 0,
        checks: change.status.checks.clone(),
        skips: change.spec.skip_checks.clone(),
        left: Vec::new(),
        writes,
    };
    records.iter().for_each(|record| report.add(record));
    report.steps_omitted = report.steps.len().saturating_sub(MAX_STEPS);
    report.steps.drain(..report.steps_omitted);
    Ok(report)
}

impl Report {
    fn add(&mut self, record: &ChangeRecordSpec) {
        let last = self.steps.last_mut().filter(|s| s.record >= record.first && record.number > record.first);
        let (let_go, back) = counts(&record.facts);
        match last {
            Some(step) => {
                (step.record, step.let_go, step.back) = (record.number, step.let_go + let_go, step.back + back);
            }
            None => {
                self.steps.push(StepReport { record: record.number, at: record.at, notes: Vec::new(), let_go, back })
            }
        }
        for fact in &record.facts {
            if let Fact::Left { reasons } = fact {
                self.left.extend(reasons.iter().map(|(name, why)| (name.clone(), why.clone())));
            }
        }
        let Some(step) = &record.step else { return };
        if let Some(last) = self.steps.last_mut() {
            last.notes.clone_from(&step.notes);
        }
        let plan = step.status.plan.iter();
        let fresh = plan.filter(|p| self.plans.last().is_none_or(|known| known.version != p.version));
        self.plans.extend(fresh.cloned().collect::<Vec<_>>());
        step.status.batches.iter().for_each(|b| self.judged(b));
    }

    /// A record keeps more of a verdict than the status of a change that has gone on.
    fn judged(&mut self, batch: &Batch) {
        let known = self.batches.iter_mut().find(|b| b.number == batch.number);
        let evidence = |b: &Batch| b.verdict.as_ref().map_or(0, |v| v.evidence.len());
        if let Some(known) = known.filter(|k| evidence(k) < evidence(batch) && k.phase == batch.phase) {
            known.verdict.clone_from(&batch.verdict);
        }
    }

    /// For people, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Change {}\n\n{}: **{:?}**. {}\n\n", self.name, self.action, self.phase, self.message);
        let out = &mut text;
        let time = |at: Option<Timestamp>| at.map_or("not yet".to_owned(), |at| at.to_string());
        line(out, &format!("Began {}, ended {}.", time(self.started_at), time(self.finished_at)));
        line(out, "\n## Level\n");
        out.push_str(&self.status_text());
        line(out, "\n## Plans\n");
        self.plans.iter().for_each(|plan| plan_text(out, plan));
        line(out, "\n## Batches\n");
        self.batches.iter().for_each(|batch| batch_text(out, batch));
        line(out, "\n## Checks\n");
        out.push_str(&self.checks_text(|_| true));
        line(out, "\n## Left the change\n");
        self.left.iter().for_each(|(name, why)| line(out, &format!("- {name}: {why}")));
        line(out, "\n## Steps\n");
        if self.steps_omitted > 0 {
            line(out, &format!("{} earlier steps are not shown.\n", self.steps_omitted));
        }
        self.steps.iter().for_each(|step| step_text(out, step));
        line(out, "\n## Who, and why\n");
        self.writes.iter().for_each(|w| {
            line(out, &format!("- {} {} {}: {}", w.time, w.author.actor, w.verb, w.author.reason));
        });
        text
    }

    /// The level, and what kept it from the next.
    pub fn status_text(&self) -> String {
        let LevelReport { level, meaning, kept_from_next } = &self.level;
        let mut text = format!("{}: {:?}. {}\n{level:?}: {meaning}.\n", self.name, self.phase, self.message);
        if kept_from_next.is_empty() {
            line(&mut text, "Nothing kept it from running by itself.");
        }
        kept_from_next.iter().for_each(|why| line(&mut text, &format!("- {why}")));
        let telling = self.checks_text(|answer| answer.said != Said::Pass);
        text.push_str(if telling.is_empty() { "All checks say yes.\n" } else { &telling });
        text
    }

    /// Answers of checks, and who skips which.
    fn checks_text(&self, shown: impl Fn(&CheckAnswer) -> bool) -> String {
        let mut text = String::new();
        self.checks.iter().filter(|a| shown(a)).for_each(|a| line(&mut text, &check_text(a)));
        for (code, Skip { actor, reason }) in &self.skips {
            line(&mut text, &format!("- {code} is skipped by {actor}: {reason}"));
        }
        text
    }

    /// What the last planning changed.
    pub fn diff_text(&self) -> String {
        let Some(plan) = self.plans.last() else { return "It is not planned yet.\n".to_owned() };
        let mut text = String::new();
        plan_text(&mut text, plan);
        text
    }

    /// Every verdict with its evidence.
    pub fn verdict_text(&self) -> String {
        let mut text = String::new();
        self.batches.iter().for_each(|batch| batch_text(&mut text, batch));
        if text.is_empty() { "No batch has begun.\n".to_owned() } else { text }
    }
}

/// An answer in a line.
pub(crate) fn check_text(answer: &CheckAnswer) -> String {
    let CheckAnswer { code, said, message, .. } = answer;
    let weight = match (answer.said, answer.severity, answer.skipped) {
        (Said::Pass, ..) => "",
        (_, _, true) => " (skipped)",
        (_, Severity::Advisory, _) => " (advice)",
        (_, Severity::Required, _) => "",
    };
    format!("- {code} {said:?}{weight}: {message}")
}

fn counts(facts: &[Fact]) -> (usize, usize) {
    facts.iter().fold((0, 0), |(gone, back), fact| match fact {
        Fact::LetGo { instances, .. } => (gone + instances.len(), back),
        Fact::Back { instances, .. } => (gone, back + instances.len()),
        _ => (gone, back),
    })
}

fn level(change: &Change, writes: &[AuditEntry]) -> LevelReport {
    let asked = change.spec.level;
    let effective = change.status.level.clone().unwrap_or(EffectiveLevel { level: asked, held_by: String::new() });
    let level = effective.level;
    let mut kept_from_next = Vec::new();
    if !effective.held_by.is_empty() {
        kept_from_next.push(format!("spec.level is {asked:?}, but it is held at {level:?} by {}", effective.held_by));
    } else if level < Level::L4 {
        kept_from_next.push(format!("spec.level is {level:?}"));
    } else if level == Level::L4 {
        kept_from_next.push("a person picked what it brings: at L5 a ReleaseTrain does".to_owned());
    }
    if change.status.phase == ChangePhase::Blocked {
        kept_from_next.push(format!("it is blocked and waits for a person: {}", change.status.message));
    }
    let people = writes.iter().filter(|w| w.verb == "update" && !w.author.actor.starts_with("controller/"));
    kept_from_next.extend(people.map(|w| format!("{} stepped in: {}", w.author.actor, w.author.reason)));
    LevelReport { level, meaning: level.meaning(), kept_from_next }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn plan_text(out: &mut String, plan: &PlanVersion) {
    let time = |at: Option<Timestamp>| at.map_or("unknown".to_owned(), |at| at.to_string());
    line(
        out,
        &format!(
            "Plan {} of {}: {} batches with {} instances, {} wait, largest batch {:.1} % of the traffic weight, ends {}.",
            plan.version,
            time(plan.at),
            plan.batches,
            plan.instances,
            plan.deferred,
            plan.largest_percent,
            time(plan.ends)
        ),
    );
    line(out, &format!("  because: {}", plan.reason));
    plan.differences.iter().for_each(|difference| line(out, &format!("  - {difference}")));
}

fn batch_text(out: &mut String, batch: &Batch) {
    let Batch { number, phase, size, back, why, .. } = batch;
    line(out, &format!("Batch {number}: {phase:?}, {back} of {size} instances changed. {why}."));
    let Some(verdict) = &batch.verdict else { return };
    line(out, &format!("  verdict: {:?}, {}", verdict.outcome, verdict.reason));
    let mut evidence: Vec<&Evidence> = verdict.evidence.iter().collect();
    evidence.sort_by(|a, b| b.log_e.total_cmp(&a.log_e));
    for e in evidence.iter().take(SHOWN) {
        let ten = e.log_e / std::f64::consts::LN_10;
        let (metric, stratum, with) = (&e.metric, &e.stratum, &e.compared_with);
        let treated = format!("{} of {} changed", e.treated_events, e.treated_requests);
        let control = format!("{} of {} compared with ({with})", e.control_events, e.control_requests);
        line(out, &format!("  - {metric} on {stratum}: {treated}, {control}; evidence for harm 10^{ten:.1}"));
    }
    verdict.blame.iter().take(SHOWN).for_each(|b| line(out, &format!("  - blame: {}", crate::explain::blame(b))));
    verdict.excluded.iter().take(SHOWN).for_each(|e| line(out, &format!("  - not compared: {e}")));
    verdict.set_aside.iter().take(SHOWN).for_each(|e| line(out, &format!("  - set aside: {e}")));
}

fn step_text(out: &mut String, step: &StepReport) {
    let said: Vec<&str> = step.notes.iter().map(|n| n.message.as_str()).collect();
    let mut did = Vec::new();
    if step.let_go > 0 {
        did.push(format!("{} let go", step.let_go));
    }
    if step.back > 0 {
        did.push(format!("{} back", step.back));
    }
    let text = [said.join("; "), did.join(", ")].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" · ");
    line(out, &format!("- {} {text}", step.at));
}
