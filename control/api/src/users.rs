//! Who uses a resource: what would miss it must let go of it before it is deleted.

use axum::http::StatusCode;
use weir_model::change::Action;
use weir_model::instance::{BEFORE_CHANGE, InstancePhase, ManagedBy};
use weir_model::release::Component;
use weir_model::{
    App, Change, ChangeSpec, Instance, InstanceSpec, Kind, Object, Release, ReleaseSpec, Workload, WorkloadSpec,
};
use weir_store::{Store, typed};

use crate::error::{ApiError, Result};

/// Users named before "and so on".
const NAMED: usize = 5;

/// Refuses to delete what is in use.
///
/// # Errors
/// 409 with the users and what to do instead; those of the store.
pub(crate) async fn refuse_used(store: &dyn Store, object: &Object) -> Result<()> {
    match object.kind {
        Kind::Release => release(store, &Release::try_from(object.clone())?).await,
        Kind::App => app(store, &App::try_from(object.clone())?).await,
        _ => Ok(()),
    }
}

/// An instance that starts again needs it, and a change under way brings it or goes back to it.
async fn release(store: &dyn Store, release: &Release) -> Result<()> {
    let changes: Vec<Change> = typed::list::<ChangeSpec>(store).await?.0;
    let open: Vec<&Change> = changes.iter().filter(|change| !change.status.phase.ended()).collect();
    let mut users: Vec<String> = running(store, &release.spec, !open.is_empty()).await?;
    let this = (release.spec.component.clone(), release.spec.version.as_str());
    let wanted = |c: &&&Change| brings(&c.spec).as_ref() == Some(&this);
    users.extend(open.iter().filter(wanted).map(|change| change.key().to_string()));
    let workloads: Vec<Workload> = typed::list::<WorkloadSpec>(store).await?.0;
    users.extend(workloads.iter().filter(|w| makes(w, &release.spec)).map(|w| w.key().to_string()));
    let (name, version) = (release.name(), &release.spec.version);
    let advice = format!(
        "so that nobody brings it anywhere any more: `weir release withdraw {version}`; delete it when nothing runs it, \
         or with --force (what runs it then cannot start again)"
    );
    in_use(&format!("release/{name}"), &users, &advice)
}

/// What a change brings a version of, if it does.
fn brings(spec: &ChangeSpec) -> Option<(Component, &str)> {
    let component = match &spec.action {
        Action::AppRelease { app, .. } => Component::App(app.clone()),
        Action::ProxyUpgrade { .. } => Component::Proxy,
        Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => return None,
    };
    Some((component, spec.target()))
}

fn makes(workload: &Workload, release: &ReleaseSpec) -> bool {
    match &release.component {
        Component::Proxy => workload.spec.proxy_version == release.version,
        Component::App(app) => workload.spec.app == *app && workload.spec.app_version == release.version,
    }
}

/// Instances that Weir runs and that run this release, or are to, or (while changes are `open`) may go back to it.
pub(crate) async fn running(store: &dyn Store, release: &ReleaseSpec, open: bool) -> Result<Vec<String>> {
    let instances: Vec<Instance> = typed::list::<InstanceSpec>(store).await?.0;
    let ours = instances.iter().filter(|i| i.spec.managed_by == ManagedBy::Weir && !i.spec.retire);
    let users = ours.filter(|i| runs(i, release) || open && comes_from(i, release));
    Ok(users.map(|instance| instance.key().to_string()).collect())
}

fn runs(instance: &Instance, release: &ReleaseSpec) -> bool {
    let (spec, status, version) = (&instance.spec, &instance.status, &release.version);
    match &release.component {
        Component::Proxy => spec.proxy_version == *version || status.proxy_version == *version,
        Component::App(app) => spec.app == *app && (spec.app_version == *version || status.app_version == *version),
    }
}

fn comes_from(instance: &Instance, release: &ReleaseSpec) -> bool {
    let before = instance.metadata.annotations.get(BEFORE_CHANGE);
    release.component == Component::Proxy && before == Some(&release.version)
}

/// Without it its instances would be called by another protocol and other rules at once.
async fn app(store: &dyn Store, app: &App) -> Result<()> {
    let instances: Vec<Instance> = typed::list::<InstanceSpec>(store).await?.0;
    let workloads: Vec<Workload> = typed::list::<WorkloadSpec>(store).await?.0;
    let kept = |i: &&Instance| match &i.spec.workload {
        Some(name) => workloads.iter().any(|workload| workload.name() == name),
        None => true,
    };
    let live = instances.iter().filter(|i| i.spec.app == app.name() && alive(i)).filter(kept);
    let users: Vec<String> = live.map(|instance| instance.key().to_string()).collect();
    let advice = "without it they are called as if nothing were known of them (http1): stop them first, or use --force";
    in_use(&format!("app/{}", app.name()), &users, advice)
}

fn alive(instance: &Instance) -> bool {
    let phase = instance.status.phase;
    let gone = matches!(phase, InstancePhase::Pending | InstancePhase::Failed | InstancePhase::Terminating);
    let lost = phase == InstancePhase::Serving && !instance.status.published();
    !(gone || lost || instance.spec.retire)
}

fn in_use(what: &str, users: &[String], advice: &str) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let more = users.len().saturating_sub(NAMED);
    let named = users.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(ApiError::new(StatusCode::CONFLICT, "InUse", format!("{what} is in use by {named}{rest}; {advice}")))
}
