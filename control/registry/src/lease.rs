//! Leases: who is still there. Pure; `now` is passed in.
//!
//! A lease is renewed by every report and runs out when reports stop, sooner when the stream itself has ended. What has
//! run out is taken out of the endpoints, with two exceptions, because a control plane that can't hear proxies looks
//! just like proxies that have died, and is the likelier of the two when it happens to many at once:
//!
//! - *Self-preservation*, as in Eureka: if more than half of an app's instances would be lost within one window by
//!   lapsed leases alone, none of them is taken out; they are *held*, and people are warned. Callers find out by
//!   themselves which endpoints fail. So an app is never emptied by leases, and one of a single instance never loses it.
//! - A control plane that was itself asleep (suspended, starved) judges nobody by the time it slept.
//!
//! After a restart, instances that the store knows stand for a grace, until their proxies are back.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::options::Options;

/// All leases of one control plane.
#[derive(Debug, Default)]
pub struct Leases {
    by_app: BTreeMap<String, BTreeMap<String, Lease>>,
    app_of: HashMap<String, String>,
    next_session: u64,
    swept: Option<Instant>,
}

/// One instance's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    /// Its newest stream.
    session: Option<u64>,
    /// Which proxy that is, in words.
    holder: String,
    /// It has said goodbye.
    leaving: bool,
    state: State,
}

impl Lease {
    fn without_stream(state: State) -> Lease {
        Lease { session: None, holder: String::new(), leaving: false, state }
    }

    /// Another proxy speaks for the instance, and has done so just now.
    fn is_taken(&self, holder: &str, now: Instant, options: &Options) -> bool {
        let fresh = matches!(self.state, State::Connected { reported } if now < reported + options.stream_grace);
        fresh && !self.leaving && self.holder != holder
    }
}

/// Where one instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Known from the store only, until then.
    ///
    /// Stands => (Connected | Held | Dead)
    Stands { until: Instant },
    /// Reports on a stream.
    ///
    /// Connected => (Connected | Lost | Held | Dead)
    Connected { reported: Instant },
    /// Its stream has ended without a goodbye.
    ///
    /// Lost => (Connected | Held | Dead)
    Lost { since: Instant },
    /// Overdue, but kept.
    ///
    /// Held => (Connected | Dead)
    Held { since: Instant },
    /// Taken out.
    ///
    /// Dead => (Connected | forgotten)
    Dead { since: Instant },
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease goes on.
    Renewed,
    /// The instance had been held or taken out, and is back.
    Revived,
    /// A newer stream speaks for the instance, or it is no longer known: this stream should end.
    Superseded,
}

impl Decision {
    /// Which instance it is about.
    pub fn instance(&self) -> &str {
        match self {
            Decision::Expire { instance, .. } | Decision::Hold { instance, .. } | Decision::Forget { instance } => {
                instance
            }
        }
    }
}

/// What is to be done about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Take it out of the endpoints.
    Expire {
        /// Which.
        instance: String,
        /// Why, in words.
        why: &'static str,
    },
    /// It is overdue, but kept with its siblings: warn.
    Hold {
        /// Which.
        instance: String,
        /// How many of how many instances of the app are overdue.
        overdue: usize,
        /// Instances of the app.
        total: usize,
    },
    /// It has been dead for so long that, if it joined by itself, its record can go.
    Forget {
        /// Which.
        instance: String,
    },
}

const NO_REPORT: &str = "its proxy has stopped reporting";
const NOT_BACK: &str = "its proxy did not register again after the control plane's restart";
const STREAM_ENDED: &str = "its proxy's stream ended without a goodbye and did not come back";

impl Leases {
    /// A stream registers the instance for the proxy `holder`. The number it returns tells this stream from older ones:
    /// a proxy that comes back, or the successor of one that has left or fallen silent, takes over.
    ///
    /// # Errors
    /// Two proxies by the same name would take it from each other for ever: names the one that has it.
    pub fn open(
        &mut self,
        app: &str,
        instance: &str,
        holder: &str,
        now: Instant,
        options: &Options,
    ) -> Result<u64, String> {
        if let Some(other) = self.get_mut(instance).filter(|lease| lease.is_taken(holder, now, options)) {
            return Err(other.holder.clone());
        }
        self.next_session += 1;
        let session = Some(self.next_session);
        let state = State::Connected { reported: now };
        self.set(app, instance, Lease { session, holder: holder.to_owned(), leaving: false, state });
        Ok(self.next_session)
    }

    /// The proxy has said goodbye: another one may take the name.
    pub fn leaves(&mut self, instance: &str, session: u64) {
        if let Some(lease) = self.get_mut(instance).filter(|l| l.session == Some(session)) {
            lease.leaving = true;
        }
    }

    /// A report came.
    pub fn renew(&mut self, instance: &str, session: u64, now: Instant) -> Renewal {
        let Some(lease) = self.get_mut(instance).filter(|l| l.session == Some(session)) else {
            return Renewal::Superseded;
        };
        let before = std::mem::replace(&mut lease.state, State::Connected { reported: now });
        if matches!(before, State::Connected { .. }) { Renewal::Renewed } else { Renewal::Revived }
    }

    /// The stream ended without a goodbye.
    pub fn close(&mut self, instance: &str, session: u64, now: Instant) {
        if let Some(lease) = self.get_mut(instance).filter(|l| l.session == Some(session)) {
            lease.session = None;
            if matches!(lease.state, State::Connected { .. }) {
                lease.state = State::Lost { since: now };
            }
        }
    }

    /// The instance has left in order, or is no longer in the store. With a session: only if that is still its stream.
    /// True if it was there.
    pub fn remove(&mut self, instance: &str, session: Option<u64>) -> bool {
        let current = self.get_mut(instance).is_some_and(|l| session.is_none() || l.session == session);
        if current {
            self.forget(instance);
        }
        current
    }

    /// Known from the store after a start: stands until its proxy is back, or until then.
    pub fn stand(&mut self, app: &str, instance: &str, until: Instant) {
        if self.get_mut(instance).is_none() {
            self.set(app, instance, Lease::without_stream(State::Stands { until }));
        }
    }

    /// Known from the store to be dead.
    pub fn bury(&mut self, app: &str, instance: &str, now: Instant) {
        if self.get_mut(instance).is_none() {
            self.set(app, instance, Lease::without_stream(State::Dead { since: now }));
        }
    }

    /// True unless a stream has brought the instance back since it was declared dead or held.
    pub fn is_overdue(&self, instance: &str) -> bool {
        let lease = self.app_of.get(instance).and_then(|app| self.by_app.get(app)?.get(instance));
        lease.is_none_or(|l| matches!(l.state, State::Held { .. } | State::Dead { .. }))
    }

    /// True if there is a lease, whatever its state.
    pub fn is_known(&self, instance: &str) -> bool {
        self.app_of.contains_key(instance)
    }

    /// Who is overdue now, and what is to be done. To be called about every [`Options::sweep_every`].
    pub fn sweep(&mut self, now: Instant, options: &Options) -> Vec<Decision> {
        let asleep = self.swept.replace(now).is_some_and(|last| now > last + options.lease / 2);
        if asleep {
            self.excuse(now, options);
            return Vec::new();
        }
        let mut decisions = Vec::new();
        for instances in self.by_app.values_mut() {
            sweep_app(instances, now, options, &mut decisions);
        }
        for decision in &decisions {
            if let Decision::Forget { instance } = decision {
                self.forget(instance);
            }
        }
        decisions
    }

    /// Renews everything: the time that has passed was slept through.
    fn excuse(&mut self, now: Instant, options: &Options) {
        for lease in self.by_app.values_mut().flat_map(BTreeMap::values_mut) {
            match &mut lease.state {
                State::Connected { reported } => *reported = now,
                State::Lost { since } => *since = now,
                State::Stands { until } => *until = now + options.restart_grace,
                State::Held { .. } | State::Dead { .. } => {}
            }
        }
    }

    fn set(&mut self, app: &str, instance: &str, lease: Lease) {
        if self.app_of.get(instance).is_some_and(|known| known != app) {
            self.forget(instance);
        }
        self.app_of.insert(instance.to_owned(), app.to_owned());
        self.by_app.entry(app.to_owned()).or_default().insert(instance.to_owned(), lease);
    }

    fn get_mut(&mut self, instance: &str) -> Option<&mut Lease> {
        let app = self.app_of.get(instance)?;
        self.by_app.get_mut(app)?.get_mut(instance)
    }

    fn forget(&mut self, instance: &str) {
        let Some(app) = self.app_of.remove(instance) else { return };
        if let Some(instances) = self.by_app.get_mut(&app) {
            instances.remove(instance);
            if instances.is_empty() {
                self.by_app.remove(&app);
            }
        }
    }
}

/// Decides about the instances of one app together.
fn sweep_app(instances: &mut BTreeMap<String, Lease>, now: Instant, options: &Options, decisions: &mut Vec<Decision>) {
    let overdue: Vec<(String, &'static str)> =
        instances.iter().filter_map(|(name, l)| Some((name.clone(), l.state.overdue(now, options)?))).collect();
    let died_lately = |l: &&Lease| matches!(l.state, State::Dead { since } if now < since + options.panic_window);
    let lost = instances.values().filter(died_lately).count();
    let total = instances.values().filter(|l| !l.state.is_dead()).count() + lost;
    let counted = overdue.len() + lost;
    let hold = counted * 2 > total;
    for (instance, why) in overdue {
        let Some(Lease { state, .. }) = instances.get_mut(&instance) else { continue };
        if !hold || state.held_too_long(now, options) {
            *state = State::Dead { since: now };
            decisions.push(Decision::Expire { instance, why });
        } else if !matches!(state, State::Held { .. }) {
            *state = State::Held { since: now };
            decisions.push(Decision::Hold { instance, overdue: counted, total });
        }
    }
    let forgettable = |s: &State| matches!(s, State::Dead { since } if now >= *since + options.forget_after);
    let forget = instances.iter().filter(|(_, l)| forgettable(&l.state)).map(|(name, _)| name.clone());
    decisions.extend(forget.map(|instance| Decision::Forget { instance }));
}

impl State {
    fn is_dead(&self) -> bool {
        matches!(self, State::Dead { .. })
    }

    fn held_too_long(&self, now: Instant, options: &Options) -> bool {
        matches!(self, State::Held { since } if now >= *since + options.hold_limit)
    }

    /// Why the instance is overdue, if it is.
    fn overdue(&self, now: Instant, options: &Options) -> Option<&'static str> {
        let (until, why): (Instant, &'static str) = match self {
            State::Stands { until } => (*until, NOT_BACK),
            State::Connected { reported } => (*reported + options.lease, NO_REPORT),
            State::Lost { since } => (*since + options.stream_grace, STREAM_ENDED),
            State::Held { since } => (*since, NO_REPORT),
            State::Dead { .. } => return None,
        };
        (now >= until).then_some(why)
    }
}

/// How long a lease is, as proxies are told: in whole seconds, at least one.
pub fn lease_seconds(lease: Duration) -> u32 {
    u32::try_from(lease.as_secs()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
