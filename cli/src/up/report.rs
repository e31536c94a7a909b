//! What the demo has shown: for a person, and as JSON for a script.

use std::path::Path;

use serde::Serialize;
use weir_model::change::{Batch, BatchPhase, Change, ChangePhase};

use super::load::Difference;
use super::screen::Screen;

/// The whole report. The field names are an interface: scripts read them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Instances in the mesh, the edge's included.
    pub instances: usize,
    /// Requests per second sent.
    pub rate: u32,
    /// Good change.
    pub good: Good,
    /// Bad change; none if the demo stopped before it.
    pub bad: Option<Bad>,
    /// Why the demo stopped before its end, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// The change to a good version.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Good {
    /// Name of the Change.
    pub change: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
    /// How it ended.
    pub phase: String,
    /// Requests sent from its beginning to its end.
    pub sent: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Batches.
    pub batches: usize,
    /// From its beginning to its end.
    pub seconds: f64,
    /// What the load counted meanwhile.
    pub load: Difference,
}

/// The change to a bad version.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Bad {
    /// Name of the Change.
    pub change: String,
    /// Number of the batch that was found to do harm; 0: none was.
    pub caught_in_batch: u32,
    /// Every instance is back on its version before.
    pub rolled_back: bool,
    /// Requests that failed for users from its beginning to its end.
    pub harmed: u64,
    /// How it ended.
    pub phase: String,
    /// From its beginning to its end.
    pub seconds: f64,
    /// From the moment at which its first instance changed until the verdict.
    pub seconds_to_verdict: f64,
    /// Requests that the changed instances had when they were judged.
    pub seen_requests: u64,
    /// Of those, failed.
    pub seen_errors: u64,
    /// The judge's words.
    pub verdict: String,
    /// What the load counted meanwhile.
    pub load: Difference,
}

impl Good {
    /// Of a change that has ended.
    pub fn of(change: &Change, from: &str, load: Difference) -> Good {
        Good {
            change: change.name().to_owned(),
            from: from.to_owned(),
            to: change.spec.target().to_owned(),
            phase: format!("{:?}", change.status.phase),
            sent: load.sent,
            failed: load.failed,
            batches: change.status.batches.iter().filter(|batch| batch.phase == BatchPhase::Passed).count(),
            seconds: seconds(change),
            load,
        }
    }

    fn kept_its_promise(&self) -> bool {
        self.phase == format!("{:?}", ChangePhase::Succeeded) && self.failed == 0 && self.sent > 0
    }
}

impl Bad {
    /// Of a change that has ended.
    pub fn of(change: &Change, load: Difference) -> Bad {
        let caught = change.status.batches.iter().find(|batch| batch.phase == BatchPhase::Failed);
        let verdict = caught.and_then(|batch| batch.verdict.as_ref());
        Bad {
            change: change.name().to_owned(),
            caught_in_batch: caught.map_or(0, |batch| batch.number),
            rolled_back: change.status.phase == ChangePhase::RolledBack,
            harmed: load.failed,
            phase: format!("{:?}", change.status.phase),
            seconds: seconds(change),
            seconds_to_verdict: caught.map_or(0.0, to_verdict),
            seen_requests: verdict.map_or(0, |verdict| verdict.requests),
            seen_errors: verdict.map_or(0, |verdict| verdict.errors),
            verdict: verdict.map_or_else(String::new, |verdict| verdict.reason.clone()),
            load,
        }
    }
}

impl Report {
    /// Of a demo that begins.
    pub fn of(instances: usize, rate: u32) -> Report {
        Report { instances, rate, ..Report::default() }
    }

    /// The good change lost nothing, and the bad one was rolled back.
    pub fn all_well(&self) -> bool {
        self.good.kept_its_promise() && self.bad.as_ref().is_some_and(|bad| bad.rolled_back) && self.stopped.is_none()
    }

    /// Writes it as JSON.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("--report {}: {error}", path.display()))
    }

    /// Tells it, as far as it got.
    pub fn tell(&self, screen: &mut Screen) {
        if self.good.change.is_empty() {
            return;
        }
        screen.line(&format!("\n{}", screen.paint.bold("Report")));
        self.tell_good(screen);
        if let Some(bad) = &self.bad {
            self.tell_bad(bad, screen);
        }
        let repeated = self.good.load.repeated + self.bad.as_ref().map_or(0, |bad| bad.load.repeated);
        screen.line(&format!(
            "  {repeated} requests met a kept connection that had just been closed and were sent again on a new one"
        ));
    }

    fn tell_good(&self, screen: &mut Screen) {
        let good = &self.good;
        screen.line(&format!(
            "{} {} -> {}: {} batches, {} instances, {:.0} s; {} requests sent, {} failed{}",
            mark(good.kept_its_promise(), screen),
            good.from,
            good.to,
            good.batches,
            self.instances,
            good.seconds,
            good.sent,
            good.failed,
            why(&good.load),
        ));
    }

    fn tell_bad(&self, bad: &Bad, screen: &mut Screen) {
        screen.line(&format!(
            "{} {} -> C: caught in batch {}, rolled back: {}; {} requests sent, {} harmed{}",
            mark(bad.rolled_back, screen),
            self.good.to,
            bad.caught_in_batch,
            if bad.rolled_back { "yes" } else { "no" },
            bad.load.sent,
            bad.harmed,
            why(&bad.load),
        ));
        screen.line(&format!(
            "  seen in C: {} of {} requests failed; verdict {:.1} s after its first instance changed: {}",
            bad.seen_errors, bad.seen_requests, bad.seconds_to_verdict, bad.verdict
        ));
    }
}

fn mark(well: bool, screen: &Screen) -> String {
    if well { screen.paint.green("√") } else { screen.paint.red("×") }
}

fn why(load: &Difference) -> String {
    if load.reasons.is_empty() {
        return String::new();
    }
    let reasons: Vec<String> = load.reasons.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    format!(" ({})", reasons.join(", "))
}

fn seconds(change: &Change) -> f64 {
    match (change.status.started_at, change.status.finished_at) {
        (Some(from), Some(to)) => to.duration_since(from).as_secs_f64(),
        _ => 0.0,
    }
}

fn to_verdict(batch: &Batch) -> f64 {
    match (batch.baking_since.or(batch.started_at), batch.finished_at) {
        (Some(from), Some(to)) => to.duration_since(from).as_secs_f64(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_demo_that_came_to_its_end_went_well() {
        let good = Good { phase: "Succeeded".into(), sent: 9, ..Good::default() };
        let bad = Some(Bad { rolled_back: true, ..Bad::default() });
        let whole = Report { good, bad, ..Report::of(20, 240) };
        assert!(whole.all_well());
        assert!(!Report { stopped: Some("traffic failed".into()), ..whole.clone() }.all_well());
        assert!(!Report { bad: None, ..whole }.all_well());
        assert!(!Report::of(20, 240).all_well());
    }
}
