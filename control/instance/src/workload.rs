//! The controller of workloads: as many Instances as are wanted, each with addresses of its own.
//!
//! Instances are numbered from 1, so that doing this twice, or after a crash in the middle, comes out the same. Scaling
//! down retires the highest numbers; the instance controller then unpublishes, drains, stops and deletes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use weir_model::change::Action;
use weir_model::instance::{BEFORE_CHANGE, Instance, InstanceSpec, ManagedBy};
use weir_model::{Author, Change, ChangeSpec, Key, Kind, Object, Workload, WorkloadSpec};
use weir_reconcile::{Context, Controller, Failure, Next};
use weir_store::{Store, typed};

use crate::provider::{Placement, Provider};

/// Label of instances that belong to a workload.
pub const WORKLOAD: &str = "weir.dev/workload";
const ACTOR: &str = "controller/workload";

/// Turns Workloads into Instances.
pub struct WorkloadController {
    provider: Arc<dyn Provider>,
    /// Addresses are chosen one instance at a time: two workloads must not choose the same.
    placing: Mutex<()>,
}

/// What is to be done about a workload's instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scaling {
    /// Numbers to create.
    pub create: Vec<u32>,
    /// Names to retire.
    pub retire: Vec<String>,
}

impl WorkloadController {
    /// A controller on a provider.
    pub fn new(provider: Arc<dyn Provider>) -> WorkloadController {
        WorkloadController { provider, placing: Mutex::default() }
    }

    async fn create(&self, store: &dyn Store, workload: &Workload, number: u32, version: &str) -> Result<(), Failure> {
        let _one_at_a_time = self.placing.lock().await;
        let (all, _) = typed::list::<InstanceSpec>(store).await?;
        let taken: Vec<InstanceSpec> = all.into_iter().map(|instance| instance.spec).collect();
        let name = instance_name(workload, number);
        let placement = self.provider.place(&name, &workload.spec.calls, &taken).await?;
        let protocol = protocol(store, &workload.spec.app).await?;
        let mut instance = Instance::new(name, instance_spec(workload, number, placement, version));
        instance.spec.protocol = protocol;
        instance.metadata.labels = labels(workload);
        let author = Author::new(ACTOR, format!("{} is to have {} replicas", workload.key(), workload.spec.replicas));
        match typed::create(store, &instance, &author).await {
            Ok(_) | Err(weir_store::Error::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Controller for WorkloadController {
    fn name(&self) -> &'static str {
        "workload"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::Workload, Kind::Instance]
    }

    fn concerns(&self, object: &Object) -> Vec<Key> {
        match object.kind {
            Kind::Workload => vec![object.key()],
            _ => object.metadata.labels.get(WORKLOAD).map(|name| Key::new(Kind::Workload, name)).into_iter().collect(),
        }
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure> {
        let store = context.store.as_ref();
        let workload: Option<Workload> = typed::get(store, &key.name).await?;
        let instances = members(store, &key.name).await?;
        let scaling = scale(workload.as_ref(), &instances);
        for name in &scaling.retire {
            retire(store, name, key).await?;
        }
        let Some(workload) = workload else { return Ok(Next::OnChange) };
        if !scaling.create.is_empty() {
            let version = version(&workload.spec, &instances, &open_changes(store).await?);
            for number in &scaling.create {
                self.create(store, &workload, *number, &version).await?;
            }
        }
        report(store, &workload, &instances).await?;
        Ok(if scaling.create.is_empty() { Next::OnChange } else { Next::After(Duration::ZERO) })
    }
}

/// What is missing and what is too much; without the workload, everything is.
pub fn scale(workload: Option<&Workload>, instances: &[Instance]) -> Scaling {
    let replicas = workload.map_or(0, |w| w.spec.replicas);
    let wanted: BTreeMap<String, u32> =
        workload.map(|w| (1..=replicas).map(|n| (instance_name(w, n), n)).collect()).unwrap_or_default();
    let there = |name: &String| instances.iter().any(|instance| instance.name() == name);
    let surplus = |i: &&Instance| !i.spec.retire && !wanted.contains_key(i.name());
    let mut create: Vec<u32> = wanted.iter().filter(|(name, _)| !there(name)).map(|(_, number)| *number).collect();
    create.sort_unstable();
    Scaling { create, retire: instances.iter().filter(surplus).map(|i| i.name().to_owned()).collect() }
}

/// The proxy's release for a new instance, which must not be one that is still on trial: the version that all others
/// have; where they differ the workload's, while anybody has it, or else that of most. A target of a change under way
/// counts as the version before it. Without any others it is the workload's.
fn version(spec: &WorkloadSpec, instances: &[Instance], open: &[Change]) -> String {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances.iter().filter(|instance| !instance.spec.retire) {
        *votes.entry(before(instance, open)).or_default() += 1;
    }
    let on_trial = |version: &str| open.iter().any(|change| change.spec.target() == version);
    if votes.keys().any(|version| !on_trial(version)) {
        votes.retain(|version, _| !on_trial(version));
    }
    if votes.len() > 1 && votes.contains_key(&*spec.proxy_version) {
        return spec.proxy_version.clone();
    }
    let most = votes.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(&*spec.proxy_version, |(version, _)| version).to_owned()
}

/// What the instance is to run, or was before a change under way had touched it.
fn before<'a>(instance: &'a Instance, open: &'a [Change]) -> &'a str {
    let wanted = &*instance.spec.proxy_version;
    let touched = open.iter().any(|change| change.spec.target() == wanted);
    instance.metadata.annotations.get(BEFORE_CHANGE).filter(|_| touched).map_or(wanted, String::as_str)
}

/// Changes of proxies that have not ended.
async fn open_changes(store: &dyn Store) -> Result<Vec<Change>, Failure> {
    let (all, _) = typed::list::<ChangeSpec>(store).await?;
    let of_proxies = |change: &Change| matches!(change.spec.action, Action::ProxyUpgrade { .. });
    Ok(all.into_iter().filter(|change| !change.status.phase.ended() && of_proxies(change)).collect())
}

fn instance_name(workload: &Workload, number: u32) -> String {
    format!("{}-{number}", workload.name())
}

fn labels(workload: &Workload) -> BTreeMap<String, String> {
    let mut labels = workload.metadata.labels.clone();
    labels.insert(WORKLOAD.to_owned(), workload.name().to_owned());
    labels
}

fn instance_spec(workload: &Workload, number: u32, placement: Placement, version: &str) -> InstanceSpec {
    let spec = &workload.spec;
    let zone = spec.zones.get((number as usize - 1) % spec.zones.len().max(1)).cloned().unwrap_or_default();
    InstanceSpec {
        app: spec.app.clone(),
        unit: spec.unit.clone(),
        zone,
        group: spec.group.clone(),
        stack: spec.stack.clone(),
        managed_by: ManagedBy::Weir,
        workload: Some(workload.name().to_owned()),
        address: placement.address,
        port: placement.port,
        app_port: if spec.command.is_empty() { 0 } else { placement.application.port() },
        app_address: (!spec.command.is_empty()).then(|| placement.application.ip()),
        protocol: Default::default(),
        upstreams: placement.upstreams,
        proxy_version: version.to_owned(),
        app_version: spec.app_version.clone(),
        weight: 100,
        config_revision: String::new(),
        retire: false,
    }
}

async fn protocol(store: &dyn Store, app: &str) -> Result<weir_model::app::Protocol, Failure> {
    let app: Option<weir_model::App> = typed::get(store, app).await?;
    Ok(app.map(|app| app.spec.protocol).unwrap_or_default())
}

async fn members(store: &dyn Store, workload: &str) -> Result<Vec<Instance>, Failure> {
    let (all, _) = typed::list::<InstanceSpec>(store).await?;
    Ok(all.into_iter().filter(|i| i.spec.workload.as_deref() == Some(workload)).collect())
}

async fn retire(store: &dyn Store, name: &str, workload: &Key) -> Result<(), Failure> {
    let Some(mut instance) = typed::get::<InstanceSpec>(store, name).await? else { return Ok(()) };
    instance.spec.retire = true;
    let author = Author::new(ACTOR, format!("{workload} has too many replicas, or is gone"));
    typed::update(store, &instance, &author).await?;
    Ok(())
}

async fn report(store: &dyn Store, workload: &Workload, instances: &[Instance]) -> Result<(), Failure> {
    let mut new = workload.clone();
    new.status.observed_generation = workload.metadata.generation;
    new.status.replicas = instances.iter().filter(|i| !i.spec.retire).count() as u32;
    new.status.serving = instances.iter().filter(|i| i.status.published()).count() as u32;
    let wanted = workload.spec.replicas;
    new.status.message = match new.status.serving {
        serving if serving == wanted => String::new(),
        serving => format!("{serving} of {wanted} serve"),
    };
    if new.status != workload.status {
        typed::update_status(store, &new).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;

    fn workload(replicas: u32) -> Workload {
        let spec = WorkloadSpec {
            app: "stock".into(),
            unit: "east".into(),
            zones: vec!["a".into(), "b".into()],
            group: String::new(),
            stack: String::new(),
            replicas,
            command: vec!["demo".into()],
            env: BTreeMap::new(),
            calls: Vec::new(),
            proxy_version: "A".into(),
            app_version: String::new(),
        };
        Workload::new("stock-east", spec)
    }

    fn member(number: u32, version: &str) -> Instance {
        let address = IpAddr::from([127, 16, 0, number as u8]);
        let application = SocketAddr::new(address, 9000);
        let placement = Placement { address, port: 8080, application, upstreams: Vec::new() };
        let workload = workload(3);
        Instance::new(instance_name(&workload, number), instance_spec(&workload, number, placement, version))
    }

    #[test]
    fn missing_numbers_are_filled_and_surplus_is_retired() {
        let there = [member(1, "A"), member(3, "A"), member(4, "A")];
        let scaling = scale(Some(&workload(3)), &there);
        assert_eq!(scaling, Scaling { create: vec![2], retire: vec!["stock-east-4".into()] });
        let done = [member(1, "A"), member(2, "A"), member(3, "A")];
        assert_eq!(scale(Some(&workload(3)), &done), Scaling::default(), "again: nothing to do");
    }

    #[test]
    fn without_its_workload_everything_is_surplus() {
        assert_eq!(scale(None, &[member(1, "A"), member(2, "A")]).retire.len(), 2);
    }

    #[test]
    fn zones_take_turns() {
        let zones: Vec<String> = (1..=4).map(|n| member(n, "A").spec.zone).collect();
        assert_eq!(zones, ["a", "b", "a", "b"]);
    }

    #[test]
    fn new_instances_take_the_version_that_a_change_has_brought() {
        let spec = workload(3).spec;
        assert_eq!(version(&spec, &[], &[]), "A");
        assert_eq!(version(&spec, &[member(1, "B"), member(2, "B")], &[]), "B");
        assert_eq!(version(&spec, &[member(1, "B"), member(2, "B"), member(3, "A")], &[]), "A", "they differ");
        assert_eq!(version(&spec, &[member(1, "B"), member(2, "B"), member(3, "C")], &[]), "B", "nobody has A");
    }

    #[test]
    fn new_instances_never_take_what_a_change_still_tries() {
        let spec = workload(3).spec;
        let open = [Change::new("to-c", ChangeSpec::proxy_upgrade("C"))];
        let member = |number: u32, version: &str| {
            let mut member = member(number, version);
            if (number, version) != (4, "C") {
                member.metadata.annotations.insert(BEFORE_CHANGE.to_owned(), "B".to_owned());
            }
            member
        };
        assert_eq!(version(&spec, &[member(1, "C"), member(2, "C"), member(3, "B")], &open), "B");
        assert_eq!(version(&spec, &[member(1, "C"), member(2, "C")], &open), "B", "all of them are on trial");
        assert_eq!(version(&spec, &[member(1, "C"), member(4, "C")], &open), "B", "one has it from elsewhere");
        assert_eq!(version(&spec, &[member(4, "C")], &open), "C", "there is no other");
    }
}
