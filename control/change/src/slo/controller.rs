//! Measures every objective.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use weir_model::slo::{Slo, SloSpec, SloStatus};
use weir_model::{InstanceSpec, Key, Kind, Object};
use weir_reconcile::{Context, Controller, Failure, Next};
use weir_store::observed::{Observed, Telemetry};
use weir_store::{Store, typed};

use super::{Series, count, measure, measures};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(10);
/// A status without news is written once in so long (seconds): what came in since is lost in a crash.
const KEPT_EVERY_SECONDS: i64 = 60;

/// Measures every Slo from what the proxies report.
pub struct SloController {
    observed: Arc<Observed>,
    tracked: Mutex<HashMap<String, Tracked>>,
    apps: tokio::sync::Mutex<HashMap<String, Vec<String>>>,
    /// Instances have come or gone since they were listed.
    stale: AtomicBool,
}

/// What is counted of an objective.
#[derive(Debug, Clone)]
struct Tracked {
    measures: String,
    series: Series,
    /// Reports that arrived before this are counted.
    until: Timestamp,
}

impl SloController {
    /// A controller that counts what is `observed`.
    pub fn new(observed: Arc<Observed>) -> SloController {
        let (tracked, apps) = Default::default();
        SloController { observed, tracked, apps, stale: AtomicBool::new(true) }
    }

    fn tracked(&self) -> MutexGuard<'_, HashMap<String, Tracked>> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what has come in, and measures.
    pub(crate) async fn look(&self, store: &dyn Store, name: &str, now: Timestamp) -> weir_store::Result<bool> {
        let Some(slo) = typed::get::<SloSpec>(store, name).await? else {
            self.tracked().remove(name);
            return Ok(false);
        };
        let instances = self.instances(store, &slo.spec.app).await?;
        let known = self.tracked().remove(name).filter(|t| t.measures == measures(&slo.spec));
        let mut tracked = known.unwrap_or_else(|| begin(&slo, now));
        tracked.read(&slo.spec, &instances, &self.observed.telemetry, now);
        let status = measure(&slo.spec, &tracked.series, &slo.status, now);
        self.tracked().insert(name.to_owned(), tracked);
        if is_news(&slo.status, &status) {
            typed::modify_status(store, name, |stored: &mut Slo| {
                let same = stored.spec == slo.spec;
                if same {
                    stored.status.clone_from(&status);
                }
                same
            })
            .await?;
        }
        Ok(true)
    }

    /// Names of an app's instances.
    async fn instances(&self, store: &dyn Store, app: &str) -> weir_store::Result<Vec<String>> {
        let mut apps = self.apps.lock().await;
        if self.stale.swap(false, Ordering::Relaxed) {
            apps.clear();
            let (all, _) = typed::list::<InstanceSpec>(store).await.inspect_err(|_| {
                self.stale.store(true, Ordering::Relaxed);
            })?;
            for instance in all {
                apps.entry(instance.spec.app.clone()).or_default().push(instance.metadata.name);
            }
        }
        Ok(apps.get(app).cloned().unwrap_or_default())
    }
}

/// From what the status has kept, if that is of the same thing.
fn begin(slo: &Slo, now: Timestamp) -> Tracked {
    let measures = measures(&slo.spec);
    let kept = slo.status.measures == measures;
    let series = if kept { Series::restore(&slo.status.sums) } else { Series::default() };
    Tracked { measures, series, until: whole(now) }
}

impl Tracked {
    /// Reads whole seconds only: reports of the current one still come in.
    fn read(&mut self, spec: &SloSpec, instances: &[String], telemetry: &Telemetry, now: Timestamp) {
        let (from, to) = (self.until, whole(now));
        if to <= from {
            return;
        }
        let since = from.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(from);
        let (mut requests, mut bad) = (0, 0);
        for instance in instances {
            telemetry.visit_windows(instance, since, |timed| {
                if timed.received < to {
                    let (all, of_them) = count(spec.indicator, &timed.window.inbound);
                    (requests, bad) = (requests + all, bad + of_them.min(all));
                }
            });
        }
        self.series.add(from, requests, bad);
        self.until = to;
    }
}

fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Worth a write: an alert that begins or ends, a budget that is spent, or a minute's counts.
fn is_news(before: &SloStatus, after: &SloStatus) -> bool {
    let spent = |s: &SloStatus| s.budget_left.is_some_and(|left| left <= 0.0);
    let kept = before.measured_at.zip(after.measured_at);
    let due = kept.is_none_or(|(then, now)| now.duration_since(then).as_secs() >= KEPT_EVERY_SECONDS);
    let counted = before.sums != after.sums || before.burns != after.burns || before.measured_at.is_none();
    before.alert != after.alert || spent(before) != spent(after) || due && counted
}

#[async_trait]
impl Controller for SloController {
    fn name(&self) -> &'static str {
        "slo"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::Slo, Kind::Instance]
    }

    fn concerns(&self, object: &Object) -> Vec<Key> {
        if object.kind == Kind::Slo {
            return vec![object.key()];
        }
        self.stale.store(true, Ordering::Relaxed);
        Vec::new()
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure> {
        let there = self.look(context.store.as_ref(), &key.name, context.now()).await?;
        Ok(if there { Next::After(PERIOD) } else { Next::OnChange })
    }
}
