//! What the registry writes to the store: instances that join, live, lapse and leave.

use std::net::SocketAddr;

use jiff::Timestamp;
use weir_model::instance::{ALIVE, InstancePhase, InstanceTls, ManagedBy, UNPUBLISHED};
use weir_model::meta::{holds, set_condition};
use weir_model::{App, AppSpec, Author, Condition, ConditionStatus, Instance, InstanceSpec, Key, Kind, Unit, UnitSpec};
use weir_store::{Error, Event, EventType, SharedStore, typed};

use crate::hello::Hello;

/// Who writes, as events and the audit log say.
pub const SOURCE: &str = "controller/registry";
/// Tries against concurrent writers.
const MAX_TRIES: usize = 16;

/// Why an instance was not registered.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The Hello contradicts what is declared.
    #[error("{0}")]
    Contradiction(String),
    /// The store can't take it now.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Reads and writes registrations.
#[derive(Clone)]
pub struct Records {
    store: SharedStore,
}

impl Records {
    /// Over a store.
    pub fn new(store: SharedStore) -> Records {
        Records { store }
    }

    /// Takes an instance in: declares it if it joins by itself, and notes what its proxy says.
    ///
    /// # Errors
    /// [`Refusal`]; the proxy should try again later.
    pub async fn register(&self, hello: &Hello, actor: &str, now: Timestamp) -> Result<Instance, Refusal> {
        let mut tries = 0;
        loop {
            let declared = match self.declare(hello, actor).await {
                Err(Refusal::Store(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)))
                    if tries < MAX_TRIES =>
                {
                    tries += 1;
                    continue;
                }
                result => result?,
            };
            let note = |instance: &mut Instance| note(instance, hello, now);
            if let Some(instance) = typed::modify_status::<InstanceSpec>(&*self.store, &hello.instance, note).await? {
                self.tell(&declared, hello, now).await;
                return Ok(instance);
            }
            // Deleted in between: declare it again.
            tries += 1;
            if tries >= MAX_TRIES {
                return Err(Refusal::Store(Error::NotFound(declared.key())));
            }
        }
    }

    /// Whether the instance may be taken in, before anything is done for it.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let known = typed::get::<InstanceSpec>(&*self.store, &hello.instance).await?;
        known.map_or(Ok(()), |known| agree(&known.spec, hello))
    }

    /// The instance as it was before this registration, created if it was not there.
    async fn declare(&self, hello: &Hello, actor: &str) -> Result<Instance, Refusal> {
        let Some(known) = typed::get::<InstanceSpec>(&*self.store, &hello.instance).await? else {
            return self.create(hello, actor).await;
        };
        agree(&known.spec, hello)?;
        match known.spec.managed_by {
            ManagedBy::Weir => Ok(known),
            ManagedBy::Itself if known.status.phase == InstancePhase::Terminating => {
                // The record of one that was leaving: this is another one of its name.
                let author = Author::new(SOURCE, "joined anew while its predecessor was leaving");
                self.store.delete(&known.key(), Some(known.metadata.resource_version), &author).await?;
                self.create(hello, actor).await
            }
            ManagedBy::Itself => self.renew(known, hello, actor).await,
        }
    }

    async fn create(&self, hello: &Hello, actor: &str) -> Result<Instance, Refusal> {
        let author = Author::new(actor, "joined by itself");
        self.ensure_app(hello, &author).await?;
        self.ensure_unit(hello, &author).await?;
        let mut instance = Instance::new(&hello.instance, hello.spec.clone());
        instance.metadata.labels.clone_from(&hello.labels);
        Ok(typed::create(&*self.store, &instance, &author).await?)
    }

    /// What joins by itself says itself what it is; what changes want of it stays.
    async fn renew(&self, mut known: Instance, hello: &Hello, actor: &str) -> Result<Instance, Refusal> {
        let config_revision = known.spec.config_revision.clone();
        let spec = InstanceSpec { weight: known.spec.weight, config_revision, ..hello.spec.clone() };
        if known.spec == spec {
            return Ok(known);
        }
        known.spec = spec;
        Ok(typed::update(&*self.store, &known, &Author::new(actor, "joined again with other settings")).await?)
    }

    async fn ensure_app(&self, hello: &Hello, author: &Author) -> Result<(), Error> {
        let default = AppSpec::default();
        let spec = AppSpec { protocol: hello.spec.protocol, tier: hello.tier.unwrap_or(default.tier), ..default };
        let app = App::new(&hello.spec.app, spec);
        if self.create_missing(&app, author).await? {
            let message = format!("declared with defaults because {:?} joined as its instance", hello.instance);
            self.event(app.key(), EventType::Normal, "Declared", message).await;
        }
        Ok(())
    }

    async fn ensure_unit(&self, hello: &Hello, author: &Author) -> Result<(), Error> {
        if hello.spec.unit.is_empty() {
            return Ok(());
        }
        let unit = Unit::new(&hello.spec.unit, UnitSpec::default());
        if self.create_missing(&unit, author).await? {
            let message = format!("declared because {:?} joined in it", hello.instance);
            self.event(unit.key(), EventType::Normal, "Declared", message).await;
        }
        Ok(())
    }

    /// True if it was missing.
    async fn create_missing<S: weir_model::Spec>(
        &self,
        resource: &weir_model::Resource<S>,
        author: &Author,
    ) -> Result<bool, Error> {
        if self.store.get(&resource.key()).await?.is_some() {
            return Ok(false);
        }
        match typed::create(&*self.store, resource, author).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Events for what is new about it, not for every reconnection.
    async fn tell(&self, before: &Instance, hello: &Hello, now: Timestamp) {
        let status = &before.status;
        let key = before.key();
        if !holds(&status.conditions, ALIVE) || status.proxy_version != hello.spec.proxy_version {
            let message = format!("proxy {:?} (build {}) registered", hello.spec.proxy_version, hello.build);
            self.event_at(now, key.clone(), EventType::Normal, "Registered", message).await;
        }
        if !hello.drill.is_empty() && status.drill != hello.drill {
            let message = format!("its proxy is a drill build with the fault {:?}: not for production", hello.drill);
            self.event_at(now, key.clone(), EventType::Warning, "DrillBuild", message).await;
        }
        if hello.restarts > status.proxy_restarts {
            let count = hello.restarts;
            let message =
                format!("its proxy had ended unasked, and its supervisor has started it again ({count} so far)");
            self.event_at(now, key.clone(), EventType::Warning, "ProxyRestarted", message).await;
        }
        let failed = hello.self_check.as_ref().filter(|c| !c.passed);
        if let Some(check) = failed.filter(|c| status.self_check.as_ref() != Some(*c)) {
            let names: Vec<&str> = check.checks.iter().filter(|c| !c.passed).map(|c| c.name.as_str()).collect();
            let message = format!("its proxy's self-check failed: {}", names.join(", "));
            self.event_at(now, key, EventType::Warning, "SelfCheckFailed", message).await;
        }
    }

    /// Requests had not finished when the proxy's time to drain was over, and it cut them.
    pub async fn note_cut(&self, name: &str, app: &str, count: u64, now: Timestamp) {
        let message = format!(
            "its proxy cut {count} requests that had not finished when its time to drain was over; if they may take so \
             long, raise drainMs of app {app}"
        );
        self.event_at(now, Key::new(Kind::Instance, name), EventType::Warning, "RequestsCut", message).await;
    }

    /// The instance's proxy wants to go: out of the endpoints with it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn leave(&self, instance: &str, why: &str, now: Timestamp) -> Result<Option<Instance>, Error> {
        let change = |instance: &mut Instance| {
            let message = format!("its proxy is leaving: {why}");
            let condition = alive(ConditionStatus::False, "Leaving", message, now);
            let noted = set_condition(&mut instance.status.conditions, condition);
            let entered = instance.status.phase == InstancePhase::Serving;
            if entered {
                enter(instance, InstancePhase::Unpublishing, now);
                instance.status.conditions.retain(|c| c.r#type != UNPUBLISHED);
            }
            noted || entered
        };
        typed::modify_status::<InstanceSpec>(&*self.store, instance, change).await
    }

    /// Notes the certificate that the instance's proxy has in use.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn tls(&self, instance: &str, tls: &InstanceTls, now: Timestamp) -> Result<(), Error> {
        let change = |instance: &mut Instance| {
            let before = instance.status.tls.clone();
            instance.status.tls = dated(before.as_ref(), Some(tls), now);
            instance.status.tls != before
        };
        typed::modify_status::<InstanceSpec>(&*self.store, instance, change).await.map(drop)
    }

    /// Notes that the lease has lapsed, if `still` says so when it is written.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn expire(
        &self,
        instance: &str,
        status: ConditionStatus,
        reason: &str,
        message: &str,
        now: Timestamp,
        still: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let mut written = false;
        let change = |instance: &mut Instance| {
            let condition = alive(status, reason, message.to_owned(), now);
            written = still() && set_condition(&mut instance.status.conditions, condition);
            written
        };
        typed::modify_status::<InstanceSpec>(&*self.store, instance, change).await?;
        if written {
            let key = Key::new(Kind::Instance, instance);
            self.event_at(now, key, EventType::Warning, reason, message.to_owned()).await;
        }
        Ok(())
    }

    /// Removes the record of an instance that had joined by itself. One that Weir manages stays. True if removed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(&self, instance: &str, why: &str, still: impl Fn() -> bool) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let Some(known) = typed::get::<InstanceSpec>(&*self.store, instance).await? else { return Ok(false) };
            if known.spec.managed_by != ManagedBy::Itself || !still() {
                return Ok(false);
            }
            let version = Some(known.metadata.resource_version);
            match self.store.delete(&known.key(), version, &Author::new(SOURCE, why)).await {
                Err(Error::Conflict { .. }) => {}
                Err(Error::NotFound(_)) => return Ok(false),
                result => return result.map(|_| true),
            }
        }
        Ok(false)
    }

    async fn event(&self, about: Key, r#type: EventType, reason: &str, message: String) {
        self.event_at(Timestamp::now(), about, r#type, reason, message).await;
    }

    /// Events are told, not relied on: if the store can't take one, the log has it.
    async fn event_at(&self, time: Timestamp, about: Key, r#type: EventType, reason: &str, message: String) {
        tracing::info!(%about, reason, message, "event");
        let event = Event { time, about, r#type, reason: reason.to_owned(), message, source: SOURCE.to_owned() };
        if let Err(error) = self.store.append_event(event).await {
            tracing::warn!(%error, "an event could not be stored");
        }
    }
}

/// What Weir manages is where it is declared to be: whoever speaks for it from elsewhere is somebody else.
fn agree(known: &InstanceSpec, hello: &Hello) -> Result<(), Refusal> {
    if known.app != hello.spec.app {
        return Err(Refusal::Contradiction(format!(
            "instance {:?} is declared as one of app {:?}, but its proxy says {:?}",
            hello.instance, known.app, hello.spec.app
        )));
    }
    let place = |spec: &InstanceSpec| SocketAddr::new(spec.address, spec.port);
    let (declared, said) = (place(known), place(&hello.spec));
    if known.managed_by == ManagedBy::Itself || declared == said {
        return Ok(());
    }
    Err(Refusal::Contradiction(format!(
        "instance {:?} is run by Weir at {declared}, but its proxy says {said}; give a proxy that joins by itself another \
         name",
        hello.instance
    )))
}

/// What the proxy says, as the instance's status. True if anything is new.
fn note(instance: &mut Instance, hello: &Hello, now: Timestamp) -> bool {
    let before = instance.status.clone();
    let status = &mut instance.status;
    status.proxy_version.clone_from(&hello.spec.proxy_version);
    status.app_version.clone_from(&hello.spec.app_version);
    status.drill.clone_from(&hello.drill);
    status.self_check.clone_from(&hello.self_check);
    status.tls = dated(before.tls.as_ref(), hello.tls.as_ref(), now);
    status.proxy_pid = (hello.pid != 0).then_some(hello.pid);
    status.proxy_admin = hello.admin;
    status.proxy_restarts = hello.restarts;
    let registered = alive(ConditionStatus::True, "Registered", "its proxy reports".to_owned(), now);
    set_condition(&mut status.conditions, registered);
    // One that is leaving must not be given to callers again, not even until its goodbye comes.
    if instance.spec.managed_by == ManagedBy::Itself && !hello.leaving {
        serve(instance, hello, now);
    }
    instance.status != before
}

/// The certificate with the time since which it is in use.
fn dated(before: Option<&InstanceTls>, tls: Option<&InstanceTls>, now: Timestamp) -> Option<InstanceTls> {
    let tls = tls?;
    let same = before.filter(|b| b.ready && b.not_after == tls.not_after && b.identity == tls.identity);
    let since = same.map_or(Some(now), |b| b.since).filter(|_| tls.ready);
    Some(InstanceTls { since, ..tls.clone() })
}

/// Nobody else walks an instance that joined by itself through its phases.
fn serve(instance: &mut Instance, hello: &Hello, now: Timestamp) {
    let passed = hello.self_check.as_ref().is_none_or(|check| check.passed);
    let phase = if passed { InstancePhase::Serving } else { InstancePhase::Failed };
    enter(instance, phase, now);
    instance.status.observed_generation = instance.metadata.generation;
    let failed = "its proxy's start-up self-check failed; it gets no traffic";
    instance.status.message = if passed { String::new() } else { failed.to_owned() };
}

fn enter(instance: &mut Instance, phase: InstancePhase, now: Timestamp) {
    if instance.status.phase != phase {
        instance.status.phase = phase;
        instance.status.phase_since = Some(now);
    }
}

fn alive(status: ConditionStatus, reason: &str, message: String, now: Timestamp) -> Condition {
    let reason = reason.to_owned();
    Condition { r#type: ALIVE.to_owned(), status, reason, message, last_transition_time: now }
}
