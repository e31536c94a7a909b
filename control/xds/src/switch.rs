//! Switches encryption: gathers who stands where, has [`crate::encryption`] decide, and writes what came of it to the
//! status of each Encryption. The effective mode is acted on when it comes back from the store, so what listeners and
//! endpoints say is never ahead of what is stored.
//!
//! It also sees to the roots of trust: a new signer signs once everybody has them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_identity::Authority;
use weir_model::encryption::{
    CALLERS_CAPABLE, EncryptionMode, EncryptionSpec, EncryptionStatus, INSTANCES_READY, InterfaceMode, MODE_EFFECTIVE,
    Readiness,
};
use weir_model::meta::set_condition;
use weir_model::{Condition, ConditionStatus, Encryption, Key, Kind};
use weir_store::{Error, Event, EventType, typed};

use crate::Inner;
use crate::board::Connected;
use crate::build::tls;
use crate::encryption::{self, Caller, Decision, Server, Speech, Standing};
use crate::index::Index;
use crate::names;

/// Looks are at least so far apart: a status is written for many acknowledgements together.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the authority is asked whether its signer or a root has had its time.
const TURN_EVERY: Duration = Duration::from_secs(1);
const SOURCE: &str = "controller/encryption";

/// What is remembered between looks; all of it can be lost.
pub struct Switch {
    inner: Arc<Inner>,
    started: Instant,
    looked_at: Option<Instant>,
    turned_at: Option<Instant>,
    /// Since when nobody has held strict up, by Encryption.
    clear_since: HashMap<String, Instant>,
    /// Roots that are being told, and since when.
    telling: Option<(u64, Instant)>,
}

impl Switch {
    /// Nothing looked at yet.
    pub fn new(inner: Arc<Inner>, started: Instant) -> Switch {
        Switch { inner, started, looked_at: None, turned_at: None, clear_since: HashMap::new(), telling: None }
    }

    /// There is something that time may change.
    pub fn watches(&self, index: &Index) -> bool {
        self.inner.options.authority.is_some() || index.encryptions().next().is_some()
    }

    /// Looks at everything, unless it has a moment ago. `stirred`: something is different since the last time; what the
    /// passing of time alone may change is looked at anyway.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn look(&mut self, index: &Index, stirred: &mut bool, now: Instant) -> Result<(), Error> {
        if !self.watches(index) || self.looked_at.is_some_and(|at| now < at + LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(now);
        let authority = self.inner.options.authority.clone();
        if let Some(authority) = &authority {
            self.turn(authority, now);
        }
        let waits = authority.as_ref().is_some_and(|authority| authority.waits());
        let under_way = index.encryptions().any(|(e, holds)| holds && !e.status.is_as_wanted(&e.spec));
        if !(std::mem::take(stirred) || waits || under_way) {
            return Ok(());
        }
        let apps = index.encryptions().map(|(e, _)| e.spec.app.as_str()).collect();
        let streams = self.inner.board.connected(&apps);
        if let Some(authority) = authority.filter(|_| waits) {
            self.trust(&authority, index, &streams, now);
        }
        self.clear_since.retain(|name, _| index.encryptions().any(|(e, _)| e.metadata.name == *name));
        for (encryption, holds) in index.encryptions() {
            let status = if holds { self.next(encryption, index, &streams, now) } else { self.overruled(encryption) };
            self.write(encryption, status).await?;
        }
        Ok(())
    }

    fn turn(&mut self, authority: &Authority, now: Instant) {
        if self.turned_at.is_some_and(|at| now < at + TURN_EVERY) {
            return;
        }
        self.turned_at = Some(now);
        if let Err(error) = authority.turn((self.inner.clock)()) {
            tracing::error!(%error, "the certificate authority could not be renewed; it is tried again");
        }
    }

    /// Lets a new signer sign once its root is known, or once those who were given time to take it have had it.
    fn trust(&mut self, authority: &Authority, index: &Index, streams: &[Connected], now: Instant) {
        let options = &self.inner.options;
        if now < self.started + options.settle {
            return;
        }
        let bundle = authority.bundle();
        let since = self.telling.filter(|(version, _)| *version == bundle.version).map_or(now, |(_, since)| since);
        self.telling = Some((bundle.version, since));
        let version = Arc::clone(&tls::roots(&bundle).version);
        let missing = encryption::without_roots(streams, index.verifiers().cloned(), &version);
        if !missing.is_empty() && now < since + options.reconnect_grace {
            return;
        }
        if !missing.is_empty() {
            let first: Vec<_> = missing.iter().take(10).collect();
            tracing::warn!(
                count = missing.len(),
                ?first,
                "these have not taken the new roots of trust; going on without"
            );
        }
        if let Err(error) = authority.roots_are_known(bundle.version, (self.inner.clock)()) {
            tracing::error!(%error, "the new signer can't sign yet; it is tried again");
        }
    }

    fn next(&mut self, of: &Encryption, index: &Index, streams: &[Connected], now: Instant) -> EncryptionStatus {
        let standing = self.standing(of, index, streams, now);
        let clear = self.clear_since.get(of.name()).copied();
        let settled = clear.is_some_and(|since| now >= since + self.inner.options.strict_delay);
        let decision = encryption::decide(&standing, settled);
        if decision.is_settling {
            self.clear_since.entry(of.name().to_owned()).or_insert(now);
        } else {
            self.clear_since.remove(of.name());
        }
        status(of, &decision, (self.inner.clock)())
    }

    fn standing(&self, of: &Encryption, index: &Index, streams: &[Connected], now: Instant) -> Standing {
        let app = of.spec.app.as_str();
        let (world, nodes) = (index.world(), encryption::by_node(streams));
        let view = world.app(app);
        let has_all = |s: &Connected| {
            let routes = !s.taken.asks_routes || s.taken.routes >= view.config_seq;
            s.taken.listeners >= view.config_seq && routes
        };
        let is_up_to_date = |name: &str| nodes.get(name).is_some_and(|s| has_all(s));
        let server = |(name, tls): (&String, _)| Server { name: name.clone(), tls, is_up_to_date: is_up_to_date(name) };
        let connected = streams.iter().filter_map(|s| Some((s.node.clone(), encryption::speech(s, app, &view)?)));
        let away =
            index.standing_callers().filter(|(name, calls)| calls.contains(app) && !nodes.contains_key(name.as_str()));
        let departed = self.inner.board.departed(now, &self.inner.options).into_iter();
        let departed = departed.filter(|(name, clusters)| {
            let asked = clusters.iter().any(|c| names::split_cluster(c).0 == app);
            asked && index.has_left(name) != Some(true)
        });
        let callers: BTreeMap<String, Speech> = departed
            .map(|(name, _)| (name, Speech::Away))
            .chain(away.map(|(name, _)| (name.clone(), Speech::Away)))
            .chain(connected)
            .collect();
        Standing {
            effective: of.status.farthest(),
            wanted: next_farthest(of),
            servers: index.servers(app).map(server).collect(),
            callers: callers.into_iter().map(|(name, speech)| Caller { name, speech }).collect(),
        }
    }

    fn overruled(&self, of: &Encryption) -> EncryptionStatus {
        let message = format!("another Encryption of app {:?} holds, the first by name", of.spec.app);
        let mut status = EncryptionStatus { observed_generation: of.metadata.generation, ..of.status.clone() };
        status.effective_mode = EncryptionMode::Disabled;
        status.effective_interfaces.clear();
        let now = (self.inner.clock)();
        set_condition(&mut status.conditions, condition(MODE_EFFECTIVE, false, "Overruled", &message, now));
        status.message = message;
        status
    }

    async fn write(&self, of: &Encryption, status: EncryptionStatus) -> Result<(), Error> {
        if of.status == status {
            return Ok(());
        }
        let generation = of.metadata.generation;
        let mut switched = false;
        let change = |stored: &mut Encryption| {
            // What was decided about an older spec, or from an older mode, is decided anew.
            let was = |status: &EncryptionStatus| (status.effective_mode, status.effective_interfaces.clone());
            let same = stored.metadata.generation == generation && was(&stored.status) == was(&of.status);
            if !same || stored.status == status {
                return false;
            }
            switched = was(&stored.status) != was(&status);
            stored.status = status.clone();
            true
        };
        typed::modify_status::<EncryptionSpec>(&*self.inner.store, of.name(), change).await?;
        if switched { self.tell(of, &status).await } else { Ok(()) }
    }

    async fn tell(&self, of: &Encryption, now: &EncryptionStatus) -> Result<(), Error> {
        let wanted = words(of.spec.mode, &of.spec.interfaces);
        let now = words(now.effective_mode, &now.effective_interfaces);
        let message = format!("calls of {:?} are now {now}; wanted is {wanted}", of.spec.app);
        tracing::info!(encryption = of.name(), message, "event");
        let about = Key::new(Kind::Encryption, of.name());
        let event = Event {
            time: (self.inner.clock)(),
            about,
            r#type: EventType::Normal,
            reason: "Switched".to_owned(),
            message,
            source: SOURCE.to_owned(),
        };
        self.inner.store.append_event(event).await
    }
}

/// How far to go from here. What is refused now is refused by all servers or by none: to refuse something else, they first
/// refuse nothing.
fn next_farthest(of: &Encryption) -> EncryptionMode {
    let strict = |mode| mode == EncryptionMode::Strict;
    let otherwise = strict(of.status.farthest()) && strict(of.spec.farthest()) && !of.status.is_as_wanted(&of.spec);
    if otherwise { EncryptionMode::Permissive } else { of.spec.farthest() }
}

fn status(of: &Encryption, decision: &Decision, now: Timestamp) -> EncryptionStatus {
    let mut status = of.status.clone();
    status.observed_generation = of.metadata.generation;
    let (mode, interfaces) = match decision.next {
        EncryptionMode::Strict => (of.spec.mode, of.spec.interfaces.clone()),
        other => (other, Vec::new()),
    };
    let changes = (status.effective_mode, &status.effective_interfaces) != (mode, &interfaces);
    if changes || status.effective_since.is_none() {
        status.effective_since = Some(now);
    }
    (status.effective_mode, status.effective_interfaces) = (mode, interfaces);
    status.instances = decision.instances.clone();
    status.callers = decision.callers.clone();
    let (holds, reason, message) = explain(of, decision);
    set_condition(&mut status.conditions, condition(MODE_EFFECTIVE, holds, reason, &message, now));
    for (r#type, who, what) in [
        (INSTANCES_READY, &decision.instances, "hold a certificate in use"),
        (CALLERS_CAPABLE, &decision.callers, "speak TLS to those that take it"),
    ] {
        let (all, message) = counted(who, what);
        let reason = if all { "All" } else { "NotAll" };
        set_condition(&mut status.conditions, condition(r#type, all, reason, &message, now));
    }
    status.message = message;
    status
}

fn explain(of: &Encryption, decision: &Decision) -> (bool, &'static str, String) {
    let (wanted, next) = (of.spec.farthest(), decision.next);
    if wanted == next {
        return (true, "Effective", format!("calls are {}", words(of.spec.mode, &of.spec.interfaces)));
    }
    if decision.is_settling {
        return (false, "Settling", "everybody speaks TLS; connections begun before are given a moment".to_owned());
    }
    if decision.held_by.is_empty() {
        return (false, "Switching", format!("on the way from {} to {}", next.name(), wanted.name()));
    }
    (false, "Held", format!("{} until then, waits for {}", next.name(), encryption::named(&decision.held_by)))
}

/// `strict`, or `permissive (but /pay strict)`.
fn words(mode: EncryptionMode, interfaces: &[InterfaceMode]) -> String {
    let but: Vec<_> = interfaces.iter().map(|i| format!("{} {}", i.path, i.mode.name())).collect();
    let mode = mode.name();
    if but.is_empty() { mode.to_owned() } else { format!("{mode} (but {})", but.join(", ")) }
}

fn counted(who: &Readiness, what: &str) -> (bool, String) {
    let all = who.ready == who.total;
    let lacking = if all { String::new() } else { format!("; not: {}", encryption::named(&who.not_ready)) };
    (all, format!("{} of {} {what}{lacking}", who.ready, who.total))
}

fn condition(r#type: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        r#type: r#type.to_owned(),
        status: if holds { ConditionStatus::True } else { ConditionStatus::False },
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: now,
    }
}
