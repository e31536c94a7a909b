//! What is stored all the same and is probably not what was meant: it goes with the answer, as `Warning` headers
//! (RFC 7234, section 5.5; `299`, as the Kubernetes API has it).

use std::collections::BTreeSet;

use axum::http::header::{HeaderValue, WARNING};
use axum::response::Response;
use weir_model::change::{Action, Scope};
use weir_model::error::nearest;
use weir_model::{
    AppSpec, Change, Encryption, Freeze, InstanceSpec, Kind, Object, Release, ReleaseTrain, Route, UnitSpec,
    WorkloadSpec,
};
use weir_store::{Store, typed};

use crate::error::Result;
use crate::users;

/// Warnings of one answer.
const MOST: usize = 20;
/// Characters of one.
const LONGEST: usize = 500;

/// Adds to `response` what is to be said about `after`, which was just stored (or would be).
pub(crate) async fn add(store: &dyn Store, before: Option<&Object>, after: &Object, response: &mut Response) {
    // What was written stays written: without a store to look at there is nothing to warn of.
    for warning in of(store, before, after).await.unwrap_or_default().iter().take(MOST) {
        let plain = |c: char| if (c.is_ascii_graphic() || c == ' ') && !['"', '\\'].contains(&c) { c } else { '\'' };
        let text: String = warning.chars().take(LONGEST).map(plain).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 weir \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

async fn of(store: &dyn Store, before: Option<&Object>, after: &Object) -> Result<Vec<String>> {
    let named = named(after)?;
    let mut warnings = Vec::new();
    if !named.apps.is_empty() {
        warnings.extend(unknown("app", &named.apps, &apps(store).await?));
    }
    if !named.units.is_empty() {
        warnings.extend(unknown("unit", &named.units, &units(store).await?));
    }
    if after.kind == Kind::Release {
        warnings.extend(still_running(store, before, after).await?);
    }
    Ok(warnings)
}

/// Names of others in a resource.
#[derive(Debug, Default)]
struct Named {
    apps: BTreeSet<String>,
    units: BTreeSet<String>,
}

impl Named {
    fn scope(&mut self, scope: Scope) {
        self.apps.extend(scope.apps);
        self.units.extend(scope.units);
    }
}

fn named(object: &Object) -> Result<Named> {
    let mut named = Named::default();
    match object.kind {
        Kind::Change => {
            let spec = Change::try_from(object.clone())?.spec;
            if let Action::AppRelease { app, .. } = &spec.action {
                named.apps.insert(app.clone());
            }
            named.scope(spec.scope);
        }
        Kind::ReleaseTrain => {
            let spec = ReleaseTrain::try_from(object.clone())?.spec;
            named.scope(spec.canary.scope);
            named.scope(spec.production.scope);
        }
        Kind::Route => {
            let spec = Route::try_from(object.clone())?.spec;
            named.apps.insert(spec.app);
            let backends = spec.rules.into_iter().flat_map(|rule| rule.backends);
            named.apps.extend(backends.map(|backend| backend.app));
        }
        Kind::Freeze => {
            let spec = Freeze::try_from(object.clone())?.spec;
            named.apps.extend(spec.apps);
            named.units.extend(spec.units);
        }
        Kind::Encryption => drop(named.apps.insert(Encryption::try_from(object.clone())?.spec.app)),
        _ => {}
    }
    Ok(named)
}

fn unknown(what: &str, named: &BTreeSet<String>, known: &BTreeSet<String>) -> Vec<String> {
    let told = |name: &String| {
        let hint = nearest(name, known.iter().map(String::as_str));
        let hint = hint.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
        format!("nothing is known of {what} {name}{hint}")
    };
    named.difference(known).map(told).collect()
}

/// An app that exists only through what runs counts.
async fn apps(store: &dyn Store) -> Result<BTreeSet<String>> {
    let described = typed::list::<AppSpec>(store).await?.0;
    let mut apps: BTreeSet<String> = described.iter().map(|app| app.name().to_owned()).collect();
    apps.extend(typed::list::<InstanceSpec>(store).await?.0.into_iter().map(|instance| instance.spec.app));
    apps.extend(typed::list::<WorkloadSpec>(store).await?.0.into_iter().map(|workload| workload.spec.app));
    Ok(apps)
}

async fn units(store: &dyn Store) -> Result<BTreeSet<String>> {
    let described = typed::list::<UnitSpec>(store).await?.0;
    let mut units: BTreeSet<String> = described.iter().map(|unit| unit.name().to_owned()).collect();
    units.extend(typed::list::<InstanceSpec>(store).await?.0.into_iter().map(|instance| instance.spec.unit));
    units.extend(typed::list::<WorkloadSpec>(store).await?.0.into_iter().map(|workload| workload.spec.unit));
    Ok(units)
}

/// A withdrawn version is brought nowhere any more; it does not leave where it is by that.
async fn still_running(store: &dyn Store, before: Option<&Object>, after: &Object) -> Result<Option<String>> {
    let release = Release::try_from(after.clone())?;
    let known = before.map(|before| Release::try_from(before.clone())).transpose()?;
    if release.spec.withdrawn.is_none() || known.is_some_and(|known| known.spec.withdrawn.is_some()) {
        return Ok(None);
    }
    let running = users::running(store, &release.spec, false).await?;
    let example = running.first().map(|first| format!(" (e.g. {first})")).unwrap_or_default();
    let instances = if running.len() == 1 { "1 instance runs" } else { &format!("{} instances run", running.len()) };
    let advice = "a Change to another version takes it off them";
    Ok((!running.is_empty()).then(|| format!("{instances} it still{example}: {advice}")))
}
