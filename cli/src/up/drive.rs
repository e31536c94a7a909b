//! Watching one change from its beginning to its end.

use std::time::Duration;

use weir_model::change::{Batch, BatchPhase, Change, ChangePhase, ChangeSpec, Rung};

use super::api::Api;
use super::load::{Counts, Load};
use super::screen::Screen;

/// A change that takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at the change.
const LOOK: Duration = Duration::from_millis(250);

/// A change of the whole mesh, in steps short enough to watch.
pub fn change(name: &str, version: &str) -> Change {
    let rung = |percent, bake_seconds| Rung { percent, bake_seconds, min_requests: 100 };
    let mut spec = ChangeSpec::proxy_upgrade(version);
    spec.ladder = vec![rung(0.0, 5), rung(20.0, 4), rung(50.0, 3), rung(100.0, 3)];
    spec.judge.patience_seconds = 60;
    spec.instance_timeout_seconds = 60;
    Change::new(name, spec)
}

/// Follows a change and tells what happens.
pub struct Drive<'a> {
    api: &'a Api,
    screen: &'a mut Screen,
    /// Phases that were told, per batch.
    told: Vec<BatchPhase>,
    told_phase: ChangePhase,
}

impl<'a> Drive<'a> {
    /// For one change.
    pub fn new(api: &'a Api, screen: &'a mut Screen) -> Drive<'a> {
        Drive { api, screen, told: Vec::new(), told_phase: ChangePhase::Pending }
    }

    /// Until the change has ended or stands still for good. The load's counts are shown beside it.
    pub async fn follow(mut self, name: &str, load: &Load, before: &Counts) -> Result<Change, String> {
        let watched = async {
            loop {
                let change: Option<Change> = self.api.get(name).await?;
                let change = change.ok_or_else(|| format!("change/{name} has been deleted"))?;
                self.tell(&change, load, before);
                if change.status.phase.ended() || change.status.phase == ChangePhase::Blocked {
                    return Ok(change);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late =
            format!("change/{name} has not ended after {} s: see `weir explain change/{name}`", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, watched).await.unwrap_or(Err(late))
    }

    fn tell(&mut self, change: &Change, load: &Load, before: &Counts) {
        let batches = &change.status.batches;
        self.told.resize(batches.len().max(self.told.len()), BatchPhase::Waiting);
        for (index, batch) in batches.iter().enumerate() {
            if self.told[index] != batch.phase {
                self.told[index] = batch.phase;
                self.batch(batch, batches.len());
            }
        }
        self.phase(change);
        let counts = load.counts();
        let seen = counts.since(before);
        let progress = &change.status.progress;
        self.screen.now(&format!(
            "    {:?} · {}/{} instances · {} changing · {}/s · {} sent, {} failed · p99 {:.1} ms · {}",
            change.status.phase,
            progress.done,
            progress.total,
            progress.in_flight,
            counts.answered,
            seen.sent,
            seen.failed,
            counts.p99_us as f64 / 1000.0,
            doing(batches),
        ));
    }

    fn batch(&mut self, batch: &Batch, of: usize) {
        let paint = self.screen.paint;
        let number = format!("batch {}/{of}", batch.number);
        let text = match batch.phase {
            BatchPhase::Waiting => return,
            BatchPhase::Changing => {
                format!("  {number}  {}: {}", count(batch.size as usize), batch.why)
            }
            BatchPhase::Baking => format!("  {number}  all changed, now watched"),
            BatchPhase::Passed => format!("  {number}  {} {}", paint.green("√ passed:"), verdict(batch)),
            BatchPhase::Failed => format!("  {number}  {} {}", paint.red("× failed:"), verdict(batch)),
            BatchPhase::Skipped => format!("  {number}  {}", paint.red("passed over")),
        };
        self.screen.line(&text);
    }

    fn phase(&mut self, change: &Change) {
        let phase = change.status.phase;
        if phase == self.told_phase {
            return;
        }
        self.told_phase = phase;
        let paint = self.screen.paint;
        let words = &change.status.message;
        match phase {
            ChangePhase::Succeeded => self.screen.line(&format!("  {} {words}", paint.green("succeeded:"))),
            ChangePhase::RollingBack => self.screen.line(&format!("  {}", paint.yellow("rolling back by itself"))),
            ChangePhase::RolledBack => {
                self.screen.line(&format!("  {} every instance is back", paint.green("rolled back:")))
            }
            ChangePhase::Blocked => self.screen.line(&format!("  {} {words}", paint.red("blocked:"))),
            ChangePhase::Pending | ChangePhase::Running => {}
            ChangePhase::Paused | ChangePhase::Aborted => self.screen.line(&format!("  {phase:?}: {words}")),
        }
    }
}

fn doing(batches: &[Batch]) -> String {
    let current = batches.iter().find(|batch| matches!(batch.phase, BatchPhase::Changing | BatchPhase::Baking));
    let Some(batch) = current else { return String::new() };
    match (batch.phase, &batch.verdict) {
        (BatchPhase::Baking, Some(verdict)) => format!("batch {}: {}", batch.number, verdict.reason),
        (BatchPhase::Baking, None) => format!("batch {} is watched", batch.number),
        _ => format!("batch {} changes", batch.number),
    }
}

fn verdict(batch: &Batch) -> &str {
    batch.verdict.as_ref().map_or("no verdict", |verdict| &verdict.reason)
}

fn count(instances: usize) -> String {
    if instances == 1 { "1 instance".to_owned() } else { format!("{instances} instances") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_changes_are_valid() {
        change("demo-1", "B").to_object().validate().unwrap();
    }
}
