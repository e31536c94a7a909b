//! Reads what a change depends on.

use jiff::Timestamp;
use weir_model::change::ChangeSpec;
use weir_model::release::Component;
use weir_model::{AppSpec, Change, FreezeSpec, Instance, InstanceSpec, ReleaseSpec, UnitSpec, Workload, WorkloadSpec};
use weir_store::{Store, typed};

use crate::world::{Member, members};

/// Everything outside the change that its next step depends on.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The fleet, by name.
    pub members: Vec<Member>,
    /// Protection windows.
    pub freezes: Vec<FreezeSpec>,
    /// There is a proxy Release of the version wanted.
    pub released: bool,
    /// A change that this one has to wait for, since they share instances.
    pub rival: Option<String>,
    /// Workloads whose instances are all in scope and that make new instances with another version.
    pub unsettled: Vec<String>,
}

/// Reads the world as `change` sees it.
///
/// # Errors
/// Those of the store.
pub async fn load(store: &dyn Store, change: &Change) -> weir_store::Result<World> {
    let instances = typed::list::<InstanceSpec>(store).await?.0;
    let apps = typed::list::<AppSpec>(store).await?.0;
    let units = typed::list::<UnitSpec>(store).await?.0;
    let members = members(&instances, &apps, &units, &change.spec.scope);
    let freezes = typed::list::<FreezeSpec>(store).await?.0.into_iter().map(|f| f.spec).collect();
    let released = typed::list::<ReleaseSpec>(store)
        .await?
        .0
        .iter()
        .any(|r| r.spec.component == Component::Proxy && r.spec.version == change.spec.target());
    let rival = if change.status.started_at.is_none() { rival(store, change, &instances).await? } else { None };
    let workloads = typed::list::<WorkloadSpec>(store).await?.0;
    let unsettled = unsettled(&members, &workloads, change.spec.target());
    Ok(World { rival, members, freezes, released, unsettled })
}

/// The change that goes first, of those that share instances with `change`, which has not begun: one that has begun, or
/// else the older one.
async fn rival(store: &dyn Store, change: &Change, instances: &[Instance]) -> weir_store::Result<Option<String>> {
    let others = typed::list::<ChangeSpec>(store).await?.0;
    let goes_first = |other: &&Change| {
        let begun = other.status.started_at.is_some();
        other.name() != change.name() && !other.status.phase.ended() && (begun || age(other) < age(change))
    };
    let shares = |other: &&Change| {
        let both = |i: &&Instance| {
            let labels = &i.metadata.labels;
            other.spec.scope.matches(&i.spec, labels) && change.spec.scope.matches(&i.spec, labels)
        };
        instances.iter().any(|i| both(&i))
    };
    let first = others.iter().filter(goes_first).filter(shares).min_by_key(|o| age(o));
    Ok(first.map(|o| o.name().to_owned()))
}

fn age(change: &Change) -> (Timestamp, &str) {
    (change.metadata.created_at.unwrap_or(Timestamp::MAX), change.name())
}

fn unsettled(members: &[Member], workloads: &[Workload], target: &str) -> Vec<String> {
    let owned = |name: &str| members.iter().filter(|m| m.workload.as_deref() == Some(name)).collect::<Vec<_>>();
    let stale = |w: &&Workload| {
        let mut members = owned(w.name());
        members.retain(|m| m.state != crate::world::State::Leaving);
        w.spec.proxy_version != target
            && !members.is_empty()
            && members.iter().all(|m| m.in_scope && &*m.wanted == target)
    };
    workloads.iter().filter(stale).map(|w| w.name().to_owned()).collect()
}
