//! What a campaign found, in numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::flaw::Flaw;
use crate::peers::Judge;
use crate::run::Report;

/// Messages of one sort that are kept.
const LISTED: usize = 20;

/// What a campaign under one judge came to.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Who judged.
    pub judge: String,
    /// Simulated changes.
    pub changes: usize,
    /// Good versions, and those of them that were stopped.
    pub good: Share,
    /// Bad versions, and those of them that were stopped.
    pub bad: Share,
    /// Of the stopped, those that were bad.
    pub precision: f64,
    /// Of the bad, those that were stopped.
    pub recall: f64,
    /// Each way to be bad.
    pub by_flaw: BTreeMap<String, FlawSummary>,
    /// Requests that failed because of a bad version, per bad change.
    pub harmed_per_bad_change: f64,
    /// Median time to completion of good changes, in seconds.
    pub median_seconds_good: i64,
    /// Largest share of traffic weight that a stopped bad version reached, median and 99th percentile.
    pub exposed_when_stopped: [f64; 2],
    /// Times the executor was killed.
    pub kills: u64,
    /// Invariants that were broken.
    pub violations: usize,
    /// The first of them.
    pub violations_listed: Vec<String>,
    /// Why good versions were stopped: the first reasons.
    pub false_blocks_listed: Vec<String>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Share {
    /// All.
    pub all: usize,
    /// Those stopped.
    pub stopped: usize,
}

impl Share {
    /// As a share; 0 of 0 is 0.
    pub fn ratio(self) -> f64 {
        self.stopped as f64 / self.all.max(1) as f64
    }
}

/// One way to be bad.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlawSummary {
    /// How often it was simulated and stopped.
    pub share: Share,
    /// Requests that failed because of it, per change.
    pub harmed: f64,
    /// Median of the largest share of traffic weight exposed.
    pub exposed: f64,
    /// Median time until it was undone (or a person is asked), in seconds.
    pub seconds: i64,
}

/// Sums up.
pub fn summary(judge: Judge, reports: &[Report]) -> Summary {
    let (good, bad): (Vec<&Report>, Vec<&Report>) = reports.iter().partition(|r| r.flaw == Flaw::None);
    let stopped_bad: Vec<&Report> = bad.iter().copied().filter(|r| r.stopped()).collect();
    let (good_share, bad_share) = (share(&good), share(&bad));
    let stopped = (good_share.stopped + bad_share.stopped).max(1);
    let violations: Vec<String> = reports.iter().flat_map(|r| r.violations.clone()).collect();
    Summary {
        judge: judge.words().to_owned(),
        changes: reports.len(),
        good: good_share,
        bad: bad_share,
        precision: bad_share.stopped as f64 / stopped as f64,
        recall: bad_share.ratio(),
        by_flaw: Flaw::BAD.iter().map(|flaw| (flaw.words().to_owned(), of_flaw(*flaw, &bad))).collect(),
        harmed_per_bad_change: mean(bad.iter().map(|r| r.harmed as f64)),
        median_seconds_good: quantile(good.iter().filter(|r| !r.stopped()).map(|r| r.seconds).collect(), 0.5),
        exposed_when_stopped: [0.5, 0.99].map(|q| exposed(&stopped_bad, q)),
        kills: reports.iter().map(|r| u64::from(r.deaths)).sum(),
        violations: violations.len(),
        violations_listed: violations.into_iter().take(LISTED).collect(),
        false_blocks_listed: good.iter().filter(|r| r.stopped()).map(|r| r.message.clone()).take(LISTED).collect(),
    }
}

fn share(reports: &[&Report]) -> Share {
    Share { all: reports.len(), stopped: reports.iter().filter(|r| r.stopped()).count() }
}

fn of_flaw(flaw: Flaw, bad: &[&Report]) -> FlawSummary {
    let of: Vec<&Report> = bad.iter().copied().filter(|r| r.flaw == flaw).collect();
    FlawSummary {
        share: share(&of),
        harmed: mean(of.iter().map(|r| r.harmed as f64)),
        exposed: exposed(&of, 0.5),
        seconds: quantile(of.iter().map(|r| r.seconds).collect(), 0.5),
    }
}

fn exposed(reports: &[&Report], q: f64) -> f64 {
    quantile(reports.iter().map(|r| (r.exposed * 1e6) as i64).collect(), q) as f64 / 1e6
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), v| (sum + v, count + 1));
    sum / f64::from(count.max(1))
}

pub(crate) fn quantile(mut values: Vec<i64>, q: f64) -> i64 {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * q).ceil() as usize).copied().unwrap_or(0)
}

/// What the doubling of errors showed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Doubling {
    /// Simulated changes.
    pub changes: usize,
    /// Stopped within 300 errors on changed instances.
    pub within_300_errors: f64,
    /// Stopped before two percent of the traffic weight was exposed.
    pub below_two_percent: f64,
    /// Both.
    pub both: f64,
    /// Errors on changed instances until it was undone, but for outages: median and 99th percentile.
    pub errors: [i64; 2],
    /// What the first of those say that were found later, or not at all.
    pub late_listed: Vec<String>,
}

/// Sums up the runs in which a version doubles the errors.
pub fn doubling(reports: &[Report]) -> Doubling {
    let share = |fits: &dyn Fn(&Report) -> bool| {
        reports.iter().filter(|r| fits(r)).count() as f64 / reports.len().max(1) as f64
    };
    // Of twice the errors, half are the version's: outages of the app's own are not counted as evidence.
    let evidence = |r: &Report| 2 * r.harmed;
    let early = |r: &Report| r.stopped() && evidence(r) <= 300;
    let narrow = |r: &Report| r.stopped() && r.exposed < 0.02;
    Doubling {
        changes: reports.len(),
        within_300_errors: share(&early),
        below_two_percent: share(&narrow),
        both: share(&|r| early(r) && narrow(r)),
        errors: [0.5, 0.99].map(|q| quantile(reports.iter().map(|r| evidence(r) as i64).collect(), q)),
        late_listed: reports
            .iter()
            .filter(|r| !early(r) || !narrow(r))
            .map(|r| format!("{} errors, {:.2} % exposed: {}", evidence(r), 100.0 * r.exposed, r.message))
            .take(LISTED)
            .collect(),
    }
}

/// In a sentence.
pub fn doubling_in_words(found: &Doubling) -> String {
    format!(
        "twice the errors, {} changes: {:.2} % found within 300 errors on changed instances (median {}, 99th percentile {}), \
         {:.2} % before 2 % of the traffic weight was exposed, {:.2} % both",
        found.changes,
        100.0 * found.within_300_errors,
        found.errors[0],
        found.errors[1],
        100.0 * found.below_two_percent,
        100.0 * found.both,
    )
}

/// Tables in Markdown, for people and for the documentation.
pub fn tables(summaries: &[Summary]) -> String {
    let mut out = String::new();
    let _ = judges(&mut out, summaries);
    for summary in summaries {
        let _ = flaws(&mut out, summary);
    }
    out
}

fn judges(out: &mut String, summaries: &[Summary]) -> std::fmt::Result {
    writeln!(
        out,
        "| judge | changes | precision | recall | false blocks of good changes | harmed requests per bad change | median time of a good change | kills | violations |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for s in summaries {
        writeln!(
            out,
            "| {} | {} | {:.2} % | {:.2} % | {:.2} % ({} of {}) | {:.0} | {} min | {} | {} |",
            s.judge,
            s.changes,
            100.0 * s.precision,
            100.0 * s.recall,
            100.0 * s.good.ratio(),
            s.good.stopped,
            s.good.all,
            s.harmed_per_bad_change,
            s.median_seconds_good / 60,
            s.kills,
            s.violations,
        )?;
    }
    writeln!(out)
}

fn flaws(out: &mut String, summary: &Summary) -> std::fmt::Result {
    writeln!(
        out,
        "| {}: bad version | stopped | harmed requests per change | exposed (median) | time (median) |",
        summary.judge
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (flaw, of) in &summary.by_flaw {
        writeln!(
            out,
            "| {flaw} | {:.1} % ({} of {}) | {:.0} | {:.1} % | {} min |",
            100.0 * of.share.ratio(),
            of.share.stopped,
            of.share.all,
            of.harmed,
            100.0 * of.exposed,
            of.seconds / 60,
        )?;
    }
    writeln!(out)
}
