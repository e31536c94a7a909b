//! The controller of instances: reads, lets [`decide`] say the next step, records it, does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::instance::{Instance, InstancePhase, ManagedBy, UNPUBLISHED};
use weir_model::meta::{Condition, ConditionStatus, set_condition};
use weir_model::release::{Component, Release};
use weir_model::{Author, Key, Kind, Object, Workload};
use weir_reconcile::{Context, Controller, Failure, Next};
use weir_store::{Event, EventType, Store, typed};

use crate::decide::{Act, Input, Step, decide};
use crate::provider::{Artifact, Launch, Provider, ProviderError};
use crate::supervisor::Status;

/// Who writes.
const ACTOR: &str = "controller/instance";

/// Makes Instances real and keeps them so.
pub struct InstanceController {
    provider: Arc<dyn Provider>,
}

impl InstanceController {
    /// A controller on a provider.
    pub fn new(provider: Arc<dyn Provider>) -> InstanceController {
        InstanceController { provider }
    }

    async fn walk(&self, instance: Instance, context: &Context) -> Result<Next, Failure> {
        let store = context.store.as_ref();
        let now = context.now();
        let seen = self.provider.observe(instance.name()).await?;
        let release = self.release(store, &instance, seen.as_ref()).await?;
        let usable = release.as_ref().map(|_| ()).map_err(String::as_str);
        let step = decide(Input { instance: &instance, seen: seen.as_ref(), release: usable, now });
        let instance = record(store, instance, &step, seen.as_ref(), now).await?;
        let Some(act) = step.act else { return Ok(Next::After(step.again)) };
        match self.act(store, &instance, act, release).await {
            Ok(()) => Ok(Next::After(step.again)),
            Err(error) => refuse(store, instance, act, error, now).await,
        }
    }

    /// The wanted release, checked; or why it can't be used.
    async fn release(
        &self,
        store: &dyn Store,
        instance: &Instance,
        seen: Option<&Status>,
    ) -> Result<Result<Artifact, String>, Failure> {
        let wanted = &instance.spec.proxy_version;
        let Some(release) = find_release(store, &Component::Proxy, wanted).await? else {
            return Ok(Err(format!("there is no Release of the proxy with version {wanted:?}; create one")));
        };
        let artifact = Artifact::from(&release.spec);
        let already = seen.is_some_and(|seen| seen.proxy.wanted == *wanted);
        if !already && let Err(error) = self.provider.verify(&artifact).await {
            return Ok(Err(error.to_string()));
        }
        Ok(Ok(artifact))
    }

    async fn act(
        &self,
        store: &dyn Store,
        instance: &Instance,
        act: Act,
        release: Result<Artifact, String>,
    ) -> Result<(), Failure> {
        let name = instance.name();
        match act {
            Act::Start => {
                let of = Component::App(instance.spec.app.clone());
                let program = find_release(store, &of, &instance.spec.app_version).await?;
                let program = program.map(|release| Artifact::from(&release.spec));
                if let Some(program) = &program {
                    self.provider.verify(program).await?;
                }
                self.provider.start(&launch(store, instance, release?, program).await?).await?;
            }
            Act::Drain => self.provider.drain(name).await?,
            Act::Swap => self.provider.swap(name, &release?).await?,
            Act::Stop => self.provider.stop(name).await?,
            Act::Remove => self.remove(store, instance).await?,
        }
        Ok(())
    }

    async fn remove(&self, store: &dyn Store, instance: &Instance) -> Result<(), Failure> {
        self.provider.remove(instance.name()).await?;
        let author = Author::new(ACTOR, "it was to be retired, and nothing of it is left");
        match store.delete(&instance.key(), None, &author).await {
            Ok(_) | Err(weir_store::Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The resource is not there (any more): what runs under its name ends.
    async fn clear_away(&self, name: &str) -> Result<Next, Failure> {
        match self.provider.observe(name).await? {
            None => {
                self.provider.remove(name).await?;
                Ok(Next::OnChange)
            }
            Some(seen) => {
                if !seen.stopping {
                    tracing::info!(instance = name, "stopping what runs without an Instance");
                    self.provider.stop(name).await?;
                }
                Ok(Next::After(Duration::from_millis(200)))
            }
        }
    }
}

#[async_trait]
impl Controller for InstanceController {
    fn name(&self) -> &'static str {
        "instance"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::Instance]
    }

    fn concerns(&self, object: &Object) -> Vec<Key> {
        vec![object.key()]
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure> {
        match typed::get::<weir_model::InstanceSpec>(context.store.as_ref(), &key.name).await? {
            None => self.clear_away(&key.name).await,
            Some(instance) if instance.spec.managed_by != ManagedBy::Weir => Ok(Next::OnChange),
            Some(instance) => self.walk(instance, context).await,
        }
    }
}

async fn find_release(store: &dyn Store, of: &Component, version: &str) -> Result<Option<Release>, Failure> {
    let (releases, _) = typed::list::<weir_model::ReleaseSpec>(store).await?;
    Ok(releases.into_iter().find(|r| r.spec.component == *of && r.spec.version == version))
}

/// The application's own Release, if there is one of the version wanted, says what to run; or else the Workload does.
async fn launch(
    store: &dyn Store,
    instance: &Instance,
    proxy: Artifact,
    program: Option<Artifact>,
) -> Result<Launch, Failure> {
    let workload: Option<Workload> = match &instance.spec.workload {
        Some(name) => typed::get(store, name).await?,
        None => None,
    };
    let (mut command, mut env) = workload.map(|w| (w.spec.command, w.spec.env)).unwrap_or_default();
    if let Some(program) = program.filter(|_| !command.is_empty()) {
        command[0] = program.path;
        if !program.args.is_empty() {
            command.splice(1.., program.args);
        }
        env.extend(program.env);
    }
    let fill = |text: &String| fill(text, instance);
    Ok(Launch {
        name: instance.name().to_owned(),
        spec: instance.spec.clone(),
        command: command.iter().map(fill).collect(),
        env: env.iter().map(|(key, value)| (key.clone(), fill(value))).collect::<BTreeMap<_, _>>(),
        proxy,
    })
}

/// Replaces the placeholders of a Workload's command.
fn fill(text: &str, instance: &Instance) -> String {
    let spec = &instance.spec;
    let mut text = text.replace("{instance}", instance.name());
    if let Some(application) = spec.application() {
        let (address, port) = (application.ip().to_string(), application.port().to_string());
        text = text.replace("{address}", &address).replace("{port}", &port);
    }
    spec.upstreams.iter().fold(text, |text, upstream| {
        text.replace(&format!("{{upstream:{}}}", upstream.app), &upstream.listen.to_string())
    })
}

/// Writes the phase and what is seen; nothing if nothing is new.
async fn record(
    store: &dyn Store,
    mut instance: Instance,
    step: &Step,
    seen: Option<&Status>,
    now: Timestamp,
) -> Result<Instance, Failure> {
    let before = instance.status.clone();
    enter(&mut instance, step, now);
    let status = &mut instance.status;
    status.observed_generation = instance.metadata.generation;
    if let Some(seen) = seen {
        let runs = seen.app.as_ref().and_then(|app| app.version.clone());
        status.app_version = runs.unwrap_or_else(|| instance.spec.app_version.clone());
    }
    status.app_pid = seen.and_then(|seen| seen.app.as_ref()).map(|app| app.pid);
    status.proxy_pid = seen.and_then(|seen| seen.proxy.pid);
    if instance.status == before {
        return Ok(instance);
    }
    let moved = instance.status.phase != before.phase;
    let instance = typed::update_status(store, &instance).await?;
    if moved {
        store.append_event(event(&instance, before.phase, now)).await?;
    }
    Ok(instance)
}

/// What changes when a phase is entered.
fn enter(instance: &mut Instance, step: &Step, now: Timestamp) {
    let status = &mut instance.status;
    status.message.clone_from(&step.message);
    if status.phase == step.phase {
        return;
    }
    status.phase = step.phase;
    status.phase_since = Some(now);
    match step.phase {
        InstancePhase::Failed => status.failures = status.failures.saturating_add(1),
        InstancePhase::Swapping | InstancePhase::Starting => status.self_check = None,
        InstancePhase::Serving => status.failures = 0,
        _ => {}
    }
    if matches!(step.phase, InstancePhase::Serving | InstancePhase::Unpublishing) {
        // An acknowledgement of an earlier absence must not count for the next one.
        set_condition(&mut status.conditions, published(step.phase, now));
    }
}

fn published(phase: InstancePhase, now: Timestamp) -> Condition {
    let (reason, message) = match phase {
        InstancePhase::Serving => ("Serving", "callers are given this instance"),
        _ => ("Waiting", "callers have yet to acknowledge that it is gone"),
    };
    Condition {
        r#type: UNPUBLISHED.into(),
        status: ConditionStatus::False,
        reason: reason.into(),
        message: message.into(),
        last_transition_time: now,
    }
}

/// The act failed: an instance that does not start has failed; anything else is tried again.
async fn refuse(
    store: &dyn Store,
    instance: Instance,
    act: Act,
    error: Failure,
    now: Timestamp,
) -> Result<Next, Failure> {
    let lost = matches!(
        error.downcast_ref::<ProviderError>(),
        Some(ProviderError::Start { .. } | ProviderError::Artifact { .. })
    );
    if act != Act::Start && !(act == Act::Swap && lost) {
        return Err(error);
    }
    let step =
        Step { phase: InstancePhase::Failed, message: error.to_string(), act: None, again: Duration::from_secs(1) };
    record(store, instance, &step, None, now).await?;
    Ok(Next::After(step.again))
}

fn event(instance: &Instance, before: InstancePhase, now: Timestamp) -> Event {
    let status = &instance.status;
    let failed = status.phase == InstancePhase::Failed;
    let detail = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
    Event {
        time: now,
        about: instance.key(),
        r#type: if failed { EventType::Warning } else { EventType::Normal },
        reason: format!("{:?}", status.phase),
        message: format!("{before:?} -> {:?}{detail}", status.phase),
        source: ACTOR.into(),
    }
}
