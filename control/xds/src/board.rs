//! Who has acknowledged which endpoints: the evidence on which an instance counts as unpublished.
//!
//! An instance may stop only when nobody will send it another request. That is so once every caller has acknowledged
//! endpoints without it. Callers are:
//! - streams that ask for endpoints of the instance's app: they must have acknowledged a world that is new enough;
//! - streams that have only just opened: a proxy that reconnects still routes by what it had before, so one that is
//!   known to call the app must first ask for its endpoints, and any other gets a moment to do so;
//! - proxies whose stream has broken, and, after a restart of the control plane, all that the store knows to be alive:
//!   they serve on with what they have, so they are given time to come back. That nothing is heard of one does not tell
//!   that it is gone; that it has said goodbye, or its record is deleted, does.
//!
//! The last is what lets the control plane die in the middle of an upgrade without a failed request. A caller that does
//! not answer, or not come back, holds an upgrade up, but not for ever: then the instance counts as unpublished with a
//! warning that names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::index::Leaving;
use crate::names::{self, SEPARATOR};
use crate::options::Options;

/// Most departed callers remembered.
const MAX_DEPARTED: usize = 100_000;

/// Acknowledgements of all streams.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    callers: HashMap<u64, Caller>,
    departed: Vec<Caller>,
}

/// One caller, connected or departed.
#[derive(Debug, Clone)]
struct Caller {
    node: String,
    sidecar: bool,
    tls: bool,
    taken: Taken,
    /// Connected since, or departed at.
    since: Instant,
    /// Apps it is known to call.
    calls: BTreeSet<String>,
    /// Clusters whose endpoints it asks for, and the world sequence it has acknowledged.
    clusters: BTreeMap<Arc<str>, u64>,
}

/// What a stream has accepted of what is not endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// World up to which it has its clusters.
    pub clusters: u64,
    /// World up to which it has its listeners.
    pub listeners: u64,
    /// World up to which it has its routes.
    pub routes: u64,
    /// It has asked for routes; those of plain TCP have none.
    pub asks_routes: bool,
    /// What it refuses, in its words.
    pub rejected: Option<Arc<str>>,
    /// Version of the roots of trust.
    pub roots: Option<Arc<str>>,
}

impl Taken {
    /// World up to which it has everything but endpoints.
    pub fn all(&self) -> u64 {
        self.clusters.min(self.listeners).min(self.routes)
    }

    fn fall_behind(&mut self, other: &Taken) {
        self.clusters = self.clusters.min(other.clusters);
        self.listeners = self.listeners.min(other.listeners);
        self.routes = self.routes.min(other.routes);
        self.rejected = self.rejected.take().or_else(|| other.rejected.clone());
    }
}

/// A connected stream, as those see it who switch encryption.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Its node.
    pub node: String,
    /// It can do TLS.
    pub tls: bool,
    /// What it has accepted.
    pub taken: Taken,
    /// Apps it is known to call.
    pub calls: BTreeSet<String>,
    /// Clusters whose endpoints it asks for, and the world whose it has accepted.
    pub clusters: BTreeMap<Arc<str>, u64>,
}

/// What is known of an instance that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Some callers may still send it requests.
    Waiting,
    /// None will; so many were asked.
    Acknowledged(usize),
    /// Nobody is waited for any longer, but these have not answered: time is up, or they did not come back.
    TimedOut(Vec<String>),
}

/// The times a verdict depends on.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Now.
    pub now: Instant,
    /// Start of this process.
    pub started: Instant,
    /// When this process first saw the instance leave.
    pub noticed: Instant,
}

impl Board {
    /// A stream has opened. It takes the place of one of the same node that departed.
    pub fn join(&self, stream: u64, node: &str, sidecar: bool, tls: bool, now: Instant) {
        let caller = Caller { sidecar, tls, ..Caller::new(node, now) };
        let mut state = self.lock();
        if let Some(at) = state.departed.iter().position(|d| d.node == node) {
            let before = state.departed.swap_remove(at);
            let caller = Caller { calls: before.calls, ..caller };
            state.callers.insert(stream, caller);
        } else {
            state.callers.insert(stream, caller);
        }
    }

    /// A stream has ended. Its proxy may well serve on.
    pub fn leave(&self, stream: u64, now: Instant) {
        let mut state = self.lock();
        let calls = |c: &Caller| !c.clusters.is_empty() || !c.calls.is_empty();
        let room = state.departed.len() < MAX_DEPARTED;
        if let Some(caller) = state.callers.remove(&stream).filter(|c| room && calls(c)) {
            state.departed.push(Caller { since: now, ..caller });
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Callers that were there before this process: expected back.
    pub fn expect(&self, callers: impl IntoIterator<Item = (String, BTreeSet<String>)>, now: Instant) {
        let mut state = self.lock();
        for (node, calls) in callers {
            let connected = state.callers.values().any(|c| c.node == node);
            if !connected && !calls.is_empty() && state.departed.len() < MAX_DEPARTED {
                state.departed.push(Caller { sidecar: true, calls, ..Caller::new(&node, now) });
            }
        }
    }

    /// Apps that a stream's node is known to call.
    pub fn calls(&self, stream: u64, calls: BTreeSet<String>) {
        if let Some(caller) = self.lock().callers.get_mut(&stream) {
            caller.calls = calls;
        }
    }

    /// What a stream asks for and has acknowledged ([`crate::session::Output::acknowledged`]).
    pub fn acknowledge(&self, stream: u64, clusters: Vec<(Arc<str>, Option<u64>)>) {
        if clusters.is_empty() {
            return;
        }
        if let Some(caller) = self.lock().callers.get_mut(&stream) {
            for (name, seq) in clusters {
                match seq {
                    Some(seq) => drop(caller.clusters.insert(name, seq)),
                    None => drop(caller.clusters.remove(&name)),
                }
            }
        }
        self.changed.notify_one();
    }

    /// What a stream has accepted of other types.
    pub fn take(&self, stream: u64, taken: Taken) {
        if let Some(caller) = self.lock().callers.get_mut(&stream) {
            caller.taken = taken;
        }
        self.changed.notify_one();
    }

    /// What the streams of these nodes have accepted; several streams of one node as the one that is furthest behind.
    pub fn taken<'n>(&self, nodes: impl IntoIterator<Item = &'n str>) -> HashMap<&'n str, Taken> {
        let nodes: BTreeSet<&str> = nodes.into_iter().collect();
        let mut taken: HashMap<&str, Taken> = HashMap::new();
        for caller in self.lock().callers.values() {
            let Some(node) = nodes.get(caller.node.as_str()) else { continue };
            let known = taken.entry(node).or_insert_with(|| caller.taken.clone());
            known.fall_behind(&caller.taken);
        }
        taken
    }

    /// All streams that are connected now, with what they call and ask for of these apps.
    pub fn connected(&self, apps: &BTreeSet<&str>) -> Vec<Connected> {
        let state = self.lock();
        let of_these = |name: &str| apps.contains(names::split_cluster(name).0);
        let connected = |c: &Caller| Connected {
            node: c.node.clone(),
            tls: c.tls,
            taken: c.taken.clone(),
            calls: c.calls.iter().filter(|app| apps.contains(app.as_str())).cloned().collect(),
            clusters: c
                .clusters
                .iter()
                .filter(|(name, _)| of_these(name))
                .map(|(n, seq)| (Arc::clone(n), *seq))
                .collect(),
        };
        state.callers.values().map(connected).collect()
    }

    /// Clients whose streams ended a moment ago: they may well serve on with the endpoints of these clusters.
    pub fn departed(&self, now: Instant, options: &Options) -> Vec<(String, Vec<Arc<str>>)> {
        let state = self.lock();
        let lately = |c: &&Caller| now < c.since + options.reconnect_grace;
        state.departed.iter().filter(lately).map(|c| (c.node.clone(), c.clusters.keys().cloned().collect())).collect()
    }

    /// Resolves when a verdict may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// May the instance stop? `has_left` says of a departed caller whether it is in the store (`None`: it is not), and
    /// if so, whether it is known to have left.
    pub fn decide(
        &self,
        leaving: &Leaving,
        times: Times,
        options: &Options,
        has_left: impl Fn(&str) -> Option<bool>,
    ) -> Verdict {
        let Some(need) = &leaving.need else { return Verdict::Waiting };
        let mut state = self.lock();
        state.departed.retain(|d| times.now < d.since + options.reconnect_grace + options.unpublish_timeout);
        if times.now < times.started + options.settle {
            return Verdict::Waiting;
        }
        let (app, now) = (leaving.app.as_str(), times.now);
        let connected = state.callers.values().filter(|c| !c.knows(app, need, now, options));
        let away = state.departed.iter().filter(|d| d.may_call(app, need) && !d.is_gone(&has_left));
        let grace_over = |d: &&Caller| now >= d.since + options.reconnect_grace;
        let (given_up, awaited): (Vec<&Caller>, Vec<&Caller>) = away.partition(grace_over);
        let missing: BTreeSet<&str> = connected.chain(awaited).map(|c| c.node.as_str()).collect();
        if !missing.is_empty() && now < times.noticed + options.unpublish_timeout {
            return Verdict::Waiting;
        }
        // Who had been given up before the instance began to leave was not waited for on its behalf.
        let given_up = given_up.into_iter().filter(|d| times.noticed < d.since + options.reconnect_grace);
        let unanswered: BTreeSet<&str> = missing.into_iter().chain(given_up.map(|d| d.node.as_str())).collect();
        if unanswered.is_empty() {
            return Verdict::Acknowledged(state.callers.values().filter(|c| c.of_app(app).next().is_some()).count());
        }
        Verdict::TimedOut(unanswered.into_iter().map(str::to_owned).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    fn new(node: &str, since: Instant) -> Caller {
        Caller {
            node: node.to_owned(),
            sidecar: false,
            tls: false,
            taken: Taken::default(),
            since,
            calls: BTreeSet::new(),
            clusters: BTreeMap::new(),
        }
    }

    /// The app's clusters it asks for, with what it has acknowledged.
    fn of_app<'a>(&'a self, app: &'a str) -> impl Iterator<Item = (&'a Arc<str>, u64)> + 'a {
        let whole = self.clusters.get_key_value(app).into_iter();
        let prefix = format!("{app}{SEPARATOR}");
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let groups: Vec<_> =
            self.clusters.range::<str, _>(from).take_while(|(name, _)| name.starts_with(&prefix)).collect();
        whole.chain(groups).map(|(name, seq)| (name, *seq))
    }

    fn is_behind(&self, app: &str, need: &BTreeMap<String, u64>) -> bool {
        self.of_app(app).any(|(name, seq)| seq < need.get(&**name).copied().unwrap_or(0))
    }

    /// A connected caller that won't send the instance another request.
    fn knows(&self, app: &str, need: &BTreeMap<String, u64>, now: Instant, options: &Options) -> bool {
        if self.of_app(app).next().is_some() {
            return !self.is_behind(app, need);
        }
        let grace = if self.calls.contains(app) { options.reconnect_grace } else { options.settle };
        now >= self.since + grace
    }

    /// A departed caller that is gone for certain: a proxy that has left, or whose record was deleted.
    fn is_gone(&self, has_left: impl Fn(&str) -> Option<bool>) -> bool {
        has_left(&self.node).unwrap_or(self.sidecar)
    }

    /// A departed caller that may.
    fn may_call(&self, app: &str, need: &BTreeMap<String, u64>) -> bool {
        let asked = self.of_app(app).next().is_some();
        if asked { self.is_behind(app, need) } else { self.calls.contains(app) }
    }
}

#[cfg(test)]
mod tests;
