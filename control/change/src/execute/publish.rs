//! Configuration on its way into the store, once every proxy that it concerns has taken it and none was harmed.
//!
//! Until then it is laid over what is stored, for those proxies alone that were let go: their instances name its revision,
//! and the xDS server reads it from the change. What the store held when the change began is recorded
//! ([`Publication::bases`]). Each resource is written only over that, one compare-and-swap each, so a process that
//! dies in between leaves some that are written and some that are not, and the next one goes on with those. When all are
//! stored, the instances name no revision any more: what they are told stays the same.
//!
//! What somebody else has written meanwhile is never overwritten unasked: the change blocks and says so.

use serde_json::Value;
use weir_model::change::publication::{Base, Publication};
use weir_model::change::{BlockReason, ChangePhase};
use weir_model::{Author, Change, InstanceSpec, Kind, Object};
use weir_store::{Error, Result, Store, typed};

use super::step::{LOOK, Walk};
use super::{SOURCE, World};
use crate::world::Stored;

/// Tries against others who write the same instance.
const TRIES: u32 = 8;

impl Walk<'_> {
    /// Remembers what the store holds before the first proxy is told.
    pub(super) fn note_bases(&mut self) {
        if self.change.spec.action.is_configuration() && self.status.publication.is_none() {
            self.status.publication = Some(Publication { bases: bases(self.world), since: None });
        }
    }

    /// Takes what somebody else has written as what is to be written over, since a person wants it so.
    pub(super) fn renew_bases(&mut self) {
        if let Some(publication) = &mut self.status.publication {
            publication.bases = bases(self.world);
        }
    }

    /// It is being written to the store, or was.
    pub(super) fn is_publishing(&self) -> bool {
        self.status.publication.as_ref().is_some_and(|p| p.since.is_some())
    }

    /// Blocks if somebody else has edited what the configuration is about.
    pub(super) fn blocks_on_edits(&mut self) -> bool {
        let Some(publication) = &self.status.publication else { return false };
        let edited = |stored: &&Stored| !stored.as_wanted && !holds(&publication.bases, stored);
        let Some(stored) = self.world.resources.iter().find(edited) else { return false };
        let what = if stored.found.is_some() { "was edited" } else { "was deleted" };
        let hint = match self.is_publishing() {
            true => "retry to write over that, or abort to leave the store as it is",
            false => "roll back and begin again with a change made from it, or retry to write over it in the end",
        };
        let message = format!("{} {what} by somebody else since the change began; {hint}", stored.key);
        self.block(BlockReason::ConfigEdited, message);
        true
    }

    /// Every proxy has it: into the store with it, and then the instances let go of the revision.
    pub(super) fn publish(&mut self) {
        self.note_bases();
        let (now, target, resources) = (self.now, self.target(), &self.world.resources);
        if let Some(publication) = self.status.publication.as_mut().filter(|p| p.since.is_none()) {
            publication.since = Some(now);
            self.status.phase = ChangePhase::Running;
            self.status.started_at.get_or_insert(now);
            let message = format!("every proxy concerned has taken it: {} resources go to the store", resources.len());
            return self.note("Publishing", message, false);
        }
        let (all, written) = (resources.len(), resources.iter().filter(|r| r.as_wanted).count());
        let pinned = self.world.members.iter().filter(|m| &*m.wanted == target).count();
        if written < all {
            self.wait(format!("{written} of {all} resources are stored"), LOOK);
        } else if let Some(why) = resources.iter().find_map(|r| r.unsettled.clone()) {
            self.wait(why, LOOK);
        } else if pinned > 0 {
            self.wait(format!("stored; {pinned} instances are to go by the store again"), LOOK);
        } else {
            self.published();
        }
    }

    fn published(&mut self) {
        let (action, all) = (&self.change.spec.action, self.world.resources.len());
        let proxies = match self.changed_count() {
            0 => "no proxy is concerned".to_owned(),
            changed => format!("{changed} instances have taken it{}", self.left_words()),
        };
        self.end(ChangePhase::Succeeded, "Succeeded", format!("{action}: {all} resources are stored; {proxies}"));
    }
}

fn bases(world: &World) -> Vec<Base> {
    let base = |stored: &Stored| {
        let (uid, generation) = stored.found.clone().unwrap_or_default();
        Base { kind: stored.key.kind, name: stored.key.name.clone(), uid, generation }
    };
    world.resources.iter().map(base).collect()
}

/// What is stored is what was there at the beginning.
fn holds(bases: &[Base], stored: &Stored) -> bool {
    let (uid, generation) = stored.found.clone().unwrap_or_default();
    bases.iter().any(|base| base.key() == stored.key && base.uid == uid && base.generation == generation)
}

/// Writes what the recorded status says is to be published: first the resources, then the instances.
pub(super) async fn carry_out(store: &dyn Store, change: &Change, world: &World) -> Result<()> {
    let Some(publication) = change.status.publication.as_ref().filter(|p| p.since.is_some()) else { return Ok(()) };
    if change.status.phase != ChangePhase::Running {
        return Ok(());
    }
    let missing = || world.resources.iter().filter(|r| !r.as_wanted);
    for stored in missing() {
        let base = publication.bases.iter().find(|base| base.key() == stored.key);
        write(store, change, stored, base).await?;
    }
    if missing().next().is_some() || world.resources.iter().any(|r| r.unsettled.is_some()) {
        return Ok(());
    }
    let target = change.spec.target();
    for member in world.members.iter().filter(|m| &*m.wanted == target) {
        release(store, &member.name, target, "it is stored").await?;
    }
    Ok(())
}

/// The instance goes by what is stored again.
pub(super) async fn release(store: &dyn Store, instance: &str, revision: &str, why: &str) -> Result<()> {
    let author = Author::new(SOURCE, format!("configuration {revision}: {why}"));
    for _ in 0..TRIES {
        let Some(mut instance) = typed::get::<InstanceSpec>(store, instance).await? else { return Ok(()) };
        if instance.spec.config_revision != revision {
            return Ok(());
        }
        instance.spec.config_revision.clear();
        match typed::update(store, &instance, &author).await {
            Err(Error::Conflict { .. } | Error::NotFound(_)) => {}
            result => return result.map(drop),
        }
    }
    Ok(())
}

/// One resource, over what was there at the beginning and nothing else.
async fn write(store: &dyn Store, change: &Change, wanted: &Stored, base: Option<&Base>) -> Result<()> {
    let author = Author::new(SOURCE, format!("{}: {}", change.key(), change.spec.action));
    let found = store.get(&wanted.key).await?;
    let is_base = |uid: &str, generation| base.is_some_and(|b| (b.uid.as_str(), b.generation) == (uid, generation));
    let written = match (found, object(change, wanted)) {
        (None, Some(object)) if is_base("", 0) => store.create(object, &author).await,
        (Some(found), wanted) if is_base(&found.metadata.uid, found.metadata.generation) => match wanted {
            // Of that name, but about calls of another app.
            Some(wanted) if found.kind == Kind::Encryption && found.spec["app"] != wanted.spec["app"] => return Ok(()),
            Some(wanted) => store.update(Object { spec: over(&found, wanted), ..found }, &author).await,
            None => store.delete(&found.key(), Some(found.metadata.resource_version), &author).await,
        },
        _ => return Ok(()),
    };
    match written {
        // The next look tells what has happened instead.
        Err(Error::Conflict { .. } | Error::NotFound(_) | Error::AlreadyExists(_)) => Ok(()),
        result => result.map(drop),
    }
}

/// Of an Encryption its mode changes, and what else it says stays.
fn over(found: &Object, wanted: Object) -> Value {
    if found.kind != Kind::Encryption {
        return wanted.spec;
    }
    let mut spec = found.spec.clone();
    spec["mode"] = wanted.spec["mode"].clone();
    // Where nothing is encrypted, no interface has a mode of its own.
    if spec["mode"] == "disabled"
        && let Some(fields) = spec.as_object_mut()
    {
        fields.remove("interfaces");
    }
    spec
}

/// What is wanted of a resource; `None`: that it is gone.
fn object(change: &Change, of: &Stored) -> Option<Object> {
    let resources = change.spec.action.wanted();
    let wanted = resources.iter().find(|r| r.key() == of.key)?;
    Some(Object { spec: wanted.canonical().ok()?, ..wanted.object() })
}
