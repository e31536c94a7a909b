//! The loop around [`super::step`].

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::instance::ManagedBy;
use weir_model::train::{ReleaseTrainSpec, RiderState};
use weir_model::{
    Author, Change, ChangeSpec, Instance, InstanceSpec, Key, Kind, Object, Release, ReleaseSpec, ReleaseTrain,
};
use weir_reconcile::{Context, Controller, Failure, Next};
use weir_store::{Error, Event, EventType, Result, Store, typed};

use super::{Note, World, departure, step};

/// Source of events and author of writes.
pub const SOURCE: &str = "controller/train";
/// A train looks at its calendar at least so often.
const LOOK: Duration = Duration::from_secs(10);

/// Moves release trains.
#[derive(Debug, Default)]
pub struct TrainController;

#[async_trait]
impl Controller for TrainController {
    fn name(&self) -> &'static str {
        "train"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::ReleaseTrain]
    }

    fn concerns(&self, object: &Object) -> Vec<Key> {
        vec![object.key()]
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> std::result::Result<Next, Failure> {
        let there = reconcile(context.store.as_ref(), &key.name, context.now()).await?;
        Ok(if there { Next::After(LOOK) } else { Next::OnChange })
    }
}

/// One reconcile of the train `name`; false: it is gone.
///
/// # Errors
/// Those of the store.
pub async fn reconcile(store: &dyn Store, name: &str, now: Timestamp) -> Result<bool> {
    let Some(train) = typed::get::<ReleaseTrainSpec>(store, name).await? else { return Ok(false) };
    let releases = releases(store, &train).await?;
    let changes = changes(store).await?;
    let instances = typed::list::<InstanceSpec>(store).await?.0;
    let running = running(&instances);
    let decided = step(&train, World { releases: &releases, changes: &changes, running: &running }, now);
    let mut next = train.clone();
    next.status = decided.status;
    let recorded = if next.status == train.status { next } else { typed::update_status(store, &next).await? };
    for note in &decided.notes {
        store.append_event(event(&train, note, now)).await?;
    }
    carry_out(store, &recorded, &releases, &instances).await?;
    Ok(true)
}

async fn releases(store: &dyn Store, train: &ReleaseTrain) -> Result<Vec<Release>> {
    let mut releases = typed::list::<ReleaseSpec>(store).await?.0;
    releases.retain(|release| release.spec.component == train.spec.component);
    Ok(releases)
}

async fn changes(store: &dyn Store) -> Result<BTreeMap<String, Change>> {
    let changes = typed::list::<ChangeSpec>(store).await?.0;
    Ok(changes.into_iter().map(|change| (change.name().to_owned(), change)).collect())
}

fn running(instances: &[Instance]) -> BTreeMap<String, usize> {
    let mut running = BTreeMap::new();
    for instance in instances.iter().filter(|instance| !instance.spec.retire) {
        *running.entry(instance.spec.proxy_version.clone()).or_default() += 1;
    }
    running
}

/// Instances of the canary that the version on trial has yet to reach.
fn canaries(train: &ReleaseTrain, instances: &[Instance]) -> usize {
    let scope = &train.spec.canary.scope;
    let version = train.status.canary.as_ref().map(|leg| leg.version.as_str());
    let ours = instances.iter().filter(|i| i.spec.managed_by == ManagedBy::Weir && !i.spec.retire);
    let within = ours.filter(|i| scope.matches(&i.spec, &i.metadata.labels));
    within.filter(|i| Some(i.spec.proxy_version.as_str()) != version).count()
}

/// Does what the recorded status says and has not been done.
async fn carry_out(
    store: &dyn Store,
    train: &ReleaseTrain,
    releases: &[Release],
    instances: &[Instance],
) -> Result<()> {
    for release in releases {
        mark(store, train, release).await?;
    }
    for change in departure::changes(train, canaries(train, instances)) {
        let author = Author::new(SOURCE, format!("{} brings {}", train.key(), change.spec.target()));
        match typed::create(store, &change, &author).await {
            // Made before the process died.
            Err(Error::AlreadyExists(_)) => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// Marks the Release of a version that was withdrawn, so that nobody brings it anywhere any more.
async fn mark(store: &dyn Store, train: &ReleaseTrain, release: &Release) -> Result<()> {
    let rider = train.status.riders.get(&release.spec.version);
    let Some(rider) = rider.filter(|rider| rider.state == RiderState::Withdrawn) else { return Ok(()) };
    if release.spec.withdrawn.is_some() {
        return Ok(());
    }
    let mut marked = release.clone();
    marked.spec.withdrawn = Some(rider.why.clone());
    match typed::update(store, &marked, &Author::new(SOURCE, &rider.why)).await {
        // Written or deleted by somebody else meanwhile: the next look marks it, if it is there.
        Err(Error::Conflict { .. } | Error::NotFound(_)) => Ok(()),
        result => result.map(drop),
    }
}

fn event(train: &ReleaseTrain, note: &Note, now: Timestamp) -> Event {
    Event {
        time: now,
        about: train.key(),
        r#type: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.to_owned(),
        message: note.message.clone(),
        source: SOURCE.to_owned(),
    }
}
