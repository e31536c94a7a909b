//! Writes what the recorded status says, and nothing else.

use weir_model::change::{Action, Batch, BatchPhase, ChangePhase};
use weir_model::instance::BEFORE_CHANGE;
use weir_model::{Author, Change, ChangeSpec, Instance, InstanceSpec, WorkloadSpec};
use weir_store::{Error, Result, Store, typed};

use super::{SOURCE, World, by_hand, publish};
use crate::world::Member;

/// Tries against others who write the same instance (its controller writes its status all the time).
const TRIES: u32 = 8;

/// One instance to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its name.
    pub instance: String,
    /// Versions that its spec may hold for the write to be ours to make.
    pub from: Vec<String>,
    /// The version that its spec is to hold.
    pub to: String,
    /// Why, for the audit log.
    pub reason: String,
}

/// Writes the instances that were let go, then the workloads to `settle`.
pub(super) async fn carry_out(store: &dyn Store, change: &Change, world: &World, settle: &[String]) -> Result<()> {
    for write in writes(change, world) {
        write_instance(store, &change.spec, &write).await?;
    }
    for workload in settle {
        write_workload(store, change, workload).await?;
    }
    publish::carry_out(store, change, world).await
}

/// What follows from the recorded status of `change` alone.
pub fn writes(change: &Change, world: &World) -> Vec<Write> {
    let status = &change.status;
    let mut writes = match status.phase {
        ChangePhase::Running | ChangePhase::Paused => forward(change, world),
        ChangePhase::RollingBack => back(change, world),
        _ => Vec::new(),
    };
    writes.extend(by_hand::back(change, world));
    writes
}

/// Instances of `batch` that were let go, are not back, and still belong to the change.
fn due<'a>(change: &'a Change, batch: &'a Batch, world: &'a World) -> impl Iterator<Item = &'a Member> {
    let due = |m: &&Member| {
        batch.started.contains_key(&*m.name)
            && !batch.done.contains_key(&*m.name)
            && !change.status.left.contains_key(&*m.name)
    };
    world.members.iter().filter(due)
}

fn forward(change: &Change, world: &World) -> Vec<Write> {
    let changing = |b: &&Batch| b.phase == BatchPhase::Changing;
    let Some(batch) = change.status.batches.iter().find(changing) else { return Vec::new() };
    let target = change.spec.target();
    let write = |m: &Member| Write {
        instance: m.name.to_string(),
        from: vec![change.status.previous.get(&*m.name).cloned().unwrap_or_default(), String::new()],
        to: target.to_owned(),
        reason: format!("{} batch {}: {}", change.key(), batch.number, change.spec.action),
    };
    due(change, batch, world).filter(|m| &*m.wanted != target).map(write).collect()
}

fn back(change: &Change, world: &World) -> Vec<Write> {
    let Some(rollback) = &change.status.rollback else { return Vec::new() };
    let write = |m: &Member| {
        let previous = change.status.previous.get(&*m.name).filter(|p| p.as_str() != &*m.wanted)?;
        Some(Write {
            instance: m.name.to_string(),
            from: vec![change.spec.target().to_owned()],
            to: previous.clone(),
            reason: format!("{} rolls back: {} {previous}", change.key(), change.spec.noun()),
        })
    };
    due(change, &rollback.batch, world).filter_map(write).collect()
}

async fn write_instance(store: &dyn Store, action: &ChangeSpec, write: &Write) -> Result<()> {
    let author = Author::new(SOURCE, &write.reason);
    for attempt in 1.. {
        let Some(mut instance) = typed::get::<InstanceSpec>(store, &write.instance).await? else { return Ok(()) };
        if !write.from.iter().any(|from| from == action.wanted_of(&instance.spec)) {
            return Ok(());
        }
        want(action, &mut instance, &write.to);
        match typed::update(store, &instance, &author).await {
            Err(Error::NotFound(_)) => return Ok(()),
            // After that, it is recorded as let go and not written: nobody decides before the next reconcile has written it.
            Err(Error::Conflict { .. }) if attempt < TRIES => {}
            result => return result.map(drop),
        }
    }
    Ok(())
}

fn want(spec: &ChangeSpec, instance: &mut Instance, version: &str) {
    match spec.action {
        Action::ProxyUpgrade { .. } => {
            let before = std::mem::replace(&mut instance.spec.proxy_version, version.to_owned());
            instance.metadata.annotations.insert(BEFORE_CHANGE.to_owned(), before);
        }
        Action::AppRelease { .. } => version.clone_into(&mut instance.spec.app_version),
        Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => {
            version.clone_into(&mut instance.spec.config_revision);
        }
    }
}

/// New instances are to come with the version that the change has brought.
async fn write_workload(store: &dyn Store, change: &Change, name: &str) -> Result<()> {
    let Some(mut workload) = typed::get::<WorkloadSpec>(store, name).await? else { return Ok(()) };
    let target = change.spec.target().to_owned();
    match change.spec.action {
        Action::ProxyUpgrade { .. } => workload.spec.proxy_version = target,
        Action::AppRelease { .. } => workload.spec.app_version = target,
        Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => return Ok(()),
    }
    let author = Author::new(SOURCE, format!("{} has brought {}", change.key(), change.spec.action));
    match typed::update(store, &workload, &author).await {
        Err(Error::Conflict { .. } | Error::NotFound(_)) => Ok(()),
        result => result.map(drop),
    }
}
