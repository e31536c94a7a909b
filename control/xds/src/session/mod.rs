//! One ADS stream as a state machine: requests and new worlds in, responses out. No I/O, `now` passed in.
//!
//! State-of-the-world and delta are two ways of saying the same thing, so they share everything but how a request is
//! read ([`Session::sotw`], [`Session::delta`]) and how much a response repeats.
//!
//! What is sent, and when:
//! - What a client asks for is answered at once.
//! - *Changes* are sent make before break: clusters, then endpoints, then listeners, then routes, each once the one
//!   before is acknowledged (or patience has run out); clusters that are no longer used go last.
//! - One response with changes is in flight per type; what changes meanwhile is gathered and sent as one. Only after
//!   patience has run out is another one sent, up to [`MAX_IN_FLIGHT`].
//! - What a client has rejected is not sent again until it changes: changes are told from what was last *sent*.
//! - Versions are hashes of content. A client that comes back, to this process or the next, says what it has, and gets
//!   only what differs.

mod requests;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use requests::{DeltaRequest, SotwRequest};
use state::{InFlight, Subscription};

use crate::names;
use crate::node::Node;
use crate::resource::{Resource, Type, hash};
use crate::world::{Change, World};

/// Most unacknowledged responses per type.
pub const MAX_IN_FLIGHT: usize = 8;

/// Which variant of the protocol a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// A response to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Of what type.
    pub r#type: Type,
    /// Hash over everything the client has of this type once it has taken this.
    pub version: Arc<str>,
    /// To be given back with the acknowledgement.
    pub nonce: String,
    /// What is new or different (state of the world, root types: everything).
    pub resources: Vec<Arc<Resource>>,
    /// Delta only: names of what is gone.
    pub removed: Vec<Arc<str>>,
}

/// What a client did with a type, for the table of proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It was sent a version, of so many resources in all.
    Sent(Arc<str>, usize),
    /// It took a version.
    Acknowledged(Arc<str>),
    /// It refused a version, and why.
    Rejected(Arc<str>, String),
}

/// Everything that came of a step.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent, in this order.
    pub responses: Vec<Response>,
    /// For the table of proxies.
    pub progress: Vec<(Type, Progress)>,
    /// Endpoint subscriptions: the world sequence up to which the client has acknowledged a cluster's endpoints;
    /// `None`: it no longer asks for them.
    pub acknowledged: Vec<(Arc<str>, Option<u64>)>,
}

/// Why a stream can't go on; told to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More names than one stream may ask for.
    #[error("{asked} {of} resource names on one stream, at most {limit} are allowed")]
    TooManyNames {
        /// Names asked for.
        asked: usize,
        /// Of which type.
        of: Type,
        /// The bound.
        limit: usize,
    },
}

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    node: Node,
    mode: Mode,
    world: Arc<World>,
    subscriptions: [Subscription; 5],
    /// The client's own, by name. One that is asked for and not here is not ready yet.
    secrets: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Clusters sent, whose endpoints the client has yet to ask for, and until when that is waited for.
    expected: BTreeSet<Arc<str>>,
    expected_until: Option<Instant>,
    nonce: u64,
    patience: Duration,
    max_names: usize,
    output: Output,
}

impl Session {
    /// A stream that has asked for nothing yet. `patience`: how long an acknowledgement is waited for.
    pub fn new(node: Node, mode: Mode, world: Arc<World>, patience: Duration, max_names: usize) -> Session {
        Session {
            node,
            mode,
            world,
            subscriptions: Default::default(),
            secrets: BTreeMap::new(),
            expected: BTreeSet::new(),
            expected_until: None,
            nonce: 0,
            patience,
            max_names,
            output: Output::default(),
        }
    }

    /// The client.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Apps whose changes matter to this stream; `None`: all.
    pub fn interests(&self) -> Option<BTreeSet<String>> {
        let clusters = self.of(Type::Cluster);
        if clusters.wildcard && self.node.sidecar.is_none() {
            return None;
        }
        let mut apps = self.node.calls(&self.world);
        apps.insert(self.node.app.clone());
        for r#type in Type::ALL {
            let app_of = |name: &str| match r#type {
                Type::Route => names::outbound_app(name).unwrap_or_default().to_owned(),
                _ => names::split_cluster(name).0.to_owned(),
            };
            apps.extend(self.of(r#type).names.iter().map(|name| app_of(name)));
        }
        Some(apps)
    }

    /// Apps that the client is known to call, whether it has asked for their endpoints yet or not.
    pub fn calls(&self) -> BTreeSet<String> {
        self.node.calls(&self.world)
    }

    /// Takes a secret in the place of the one of the same name.
    pub fn put_secret(&mut self, secret: Arc<Resource>) {
        self.of_mut(Type::Secret).touch(&secret.name);
        self.secrets.insert(Arc::clone(&secret.name), secret);
    }

    /// The version of a secret that the client has accepted.
    pub fn accepted_secret(&self, name: &str) -> Option<Arc<str>> {
        let known = self.of(Type::Secret).known.get(name).filter(|known| known.confirmed)?;
        Some(Arc::clone(&known.version))
    }

    /// The client has asked for something of this type.
    pub fn has_asked(&self, r#type: Type) -> bool {
        self.of(r#type).requested && !self.of(r#type).names.is_empty()
    }

    /// The world up to which the client has accepted everything of a type that is meant for it: clusters, listeners, routes.
    pub fn taken(&self, r#type: Type) -> u64 {
        self.of(r#type).taken
    }

    /// The world up to which the client has accepted every route it asks for. A sidecar that has a listener and has not
    /// asked yet is about to.
    pub fn routes_taken(&self) -> u64 {
        let routes = self.of(Type::Route);
        let none = !routes.requested && self.of(Type::Listener).requested && self.of(Type::Listener).count() == 0;
        if none { self.taken(Type::Listener) } else { routes.taken }
    }

    /// The client has refused what it was sent last of some type.
    pub fn is_rejecting(&self) -> bool {
        self.subscriptions.iter().any(|s| s.rejected)
    }

    /// Takes a newer world, in which `changes` is different as far as this stream is interested.
    pub fn see(&mut self, world: Arc<World>, changes: &BTreeMap<Arc<str>, Change>) {
        self.world = world;
        for (app, change) in changes {
            if change.config {
                self.of_mut(Type::Cluster).dirty_all = true;
                self.of_mut(Type::Listener).dirty_all = true;
                self.of_mut(Type::Route).touch(&names::outbound(app));
                self.of_mut(Type::Route).touch(names::INBOUND);
            }
            if change.endpoints {
                self.of_mut(Type::Endpoints).touch_app(app);
            }
        }
    }

    /// What is to be sent now, and what else came of the steps since the last call.
    pub fn poll(&mut self, now: Instant) -> Output {
        let mut waiting = false;
        for r#type in Type::ALL {
            waiting |= self.advance(r#type, waiting, now);
        }
        if !waiting && Type::ALL.iter().all(|t| self.of(*t).in_flight.is_empty()) {
            self.send(Type::Cluster, true, now);
        }
        for r#type in [Type::Cluster, Type::Listener, Type::Route] {
            let seq = self.world.seq;
            self.of_mut(r#type).note_taken(seq);
        }
        std::mem::take(&mut self.output)
    }

    /// When to poll again though nothing came in.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let sent = self.subscriptions.iter().filter_map(|s| s.in_flight.back()).map(|f| f.sent_at + self.patience);
        sent.chain(self.expected_until).filter(|at| *at > now).min()
    }

    /// Sends what there is of one type: at once if the client asked for it, else when nothing is waited for. True: later
    /// types should wait.
    fn advance(&mut self, r#type: Type, waiting: bool, now: Instant) -> bool {
        let subscription = self.of(r#type);
        if !subscription.requested {
            return false;
        }
        let newest = subscription.in_flight.back();
        let unanswered = newest.is_some_and(|last| now < last.sent_at + self.patience);
        let full = subscription.in_flight.len() >= MAX_IN_FLIGHT;
        if !subscription.answer_due && (waiting || unanswered || full) {
            return unanswered;
        }
        let sent = self.send(r#type, false, now);
        sent || unanswered || (r#type == Type::Endpoints && self.expects_subscriptions(now))
    }

    /// New clusters whose endpoints the client has not asked for yet: routes to them must wait.
    fn expects_subscriptions(&mut self, now: Instant) -> bool {
        if self.expected_until.is_some_and(|until| now >= until) {
            self.expected.clear();
        }
        if self.expected.is_empty() {
            self.expected_until = None;
        }
        self.of(Type::Endpoints).requested && !self.expected.is_empty()
    }

    /// Sends the difference of one type, if there is any. Clusters that are no longer meant for the client are left to
    /// it unless `removing`. True if something was sent.
    fn send(&mut self, r#type: Type, removing: bool, now: Instant) -> bool {
        let (changed, removed) = if r#type.is_root() {
            self.root_difference(r#type, removing || r#type == Type::Listener)
        } else {
            self.leaf_difference(r#type)
        };
        let due = std::mem::take(&mut self.of_mut(r#type).answer_due);
        let returned = std::mem::take(&mut self.of_mut(r#type).returned);
        // Of a root type, "there is nothing" is an answer that clients wait for.
        if changed.is_empty() && removed.is_empty() && !(due && r#type.is_root()) {
            if returned {
                self.note_up_to_date(r#type);
            }
            return false;
        }
        self.note_expected(r#type, &changed, now);
        self.respond(r#type, changed, removed, now);
        true
    }

    fn root_difference(&mut self, r#type: Type, removing: bool) -> (Vec<Arc<Resource>>, Vec<Arc<str>>) {
        let dirty = self.of(r#type).dirty_all || self.of(r#type).removals_held;
        if !dirty {
            return (Vec::new(), Vec::new());
        }
        let wanted = self.wanted(r#type);
        if r#type == Type::Cluster && std::mem::take(&mut self.of_mut(r#type).blind) {
            self.recall(&wanted);
        }
        let subscription = self.of_mut(r#type);
        subscription.dirty_all = false;
        let changed: Vec<_> = wanted.values().filter(|r| subscription.differs(r)).cloned().collect();
        let absent = subscription.names.iter().filter(|n| !wanted.contains_key(*n) && !subscription.told_absent(n));
        let mut removed: Vec<Arc<str>> = absent.cloned().collect();
        let unwanted = subscription.known.iter().filter(|(n, k)| k.exists() && !wanted.contains_key(*n));
        let unwanted: Vec<Arc<str>> = unwanted.map(|(name, _)| Arc::clone(name)).collect();
        subscription.removals_held = !removing && !unwanted.is_empty();
        if removing {
            removed.extend(unwanted);
            removed.sort_unstable();
            removed.dedup();
        }
        subscription.learn(&changed, &removed);
        (changed, removed)
    }

    /// A state-of-the-world client that comes back does not say which clusters it has, but it asks for their endpoints.
    /// Those it may still route to are left to it until its routes have changed.
    fn recall(&mut self, wanted: &BTreeMap<Arc<str>, Arc<Resource>>) {
        let asked = self.of(Type::Endpoints).names.iter().filter(|name| !wanted.contains_key(*name));
        let asked: Vec<Arc<str>> = asked.cloned().collect();
        for name in asked {
            let (app, group) = names::split_cluster(&name);
            if names::is_app(app) {
                let cluster = self.world.app(app).cluster(group, self.node.tls);
                self.of_mut(Type::Cluster).learn(&[cluster], &[]);
            }
        }
    }

    fn wanted(&self, r#type: Type) -> BTreeMap<Arc<str>, Arc<Resource>> {
        let subscription = self.of(r#type);
        let roots = if subscription.wildcard { self.node.roots(&self.world, r#type) } else { Vec::new() };
        let named = subscription.names.iter().filter_map(|name| self.node.named(&self.world, r#type, name));
        roots.into_iter().chain(named).map(|r| (Arc::clone(&r.name), r)).collect()
    }

    fn leaf_difference(&mut self, r#type: Type) -> (Vec<Arc<Resource>>, Vec<Arc<str>>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for name in self.of_mut(r#type).take_dirty() {
            match self.leaf(r#type, &name) {
                Some(resource) if self.of(r#type).differs(&resource) => changed.push(resource),
                Some(resource) => self.keep(r#type, &name, resource),
                None if r#type == Type::Secret || self.of(r#type).told_absent(&name) => {}
                None => removed.push(name),
            }
        }
        self.of_mut(r#type).learn(&changed, &removed);
        (changed, removed)
    }

    fn leaf(&self, r#type: Type, name: &str) -> Option<Arc<Resource>> {
        match r#type {
            Type::Secret => self.secrets.get(name).cloned(),
            _ => self.node.named(&self.world, r#type, name),
        }
    }

    /// The client was sent this content already; its acceptance, past or to come, holds for the present world too.
    fn keep(&mut self, r#type: Type, name: &Arc<str>, resource: Arc<Resource>) {
        let seq = self.world.seq;
        let Some(known) = self.of_mut(r#type).known.get_mut(name) else { return };
        known.resource = Some(resource);
        known.holds_up_to = seq;
        let confirmed = known.confirmed;
        if confirmed && r#type == Type::Endpoints {
            self.output.acknowledged.push((Arc::clone(name), Some(seq)));
        }
    }

    /// A client that came back has everything already.
    fn note_up_to_date(&mut self, r#type: Type) {
        let subscription = self.of(r#type);
        let (version, total) = (subscription.version(), subscription.count());
        self.output.progress.push((r#type, Progress::Sent(Arc::clone(&version), total)));
        self.output.progress.push((r#type, Progress::Acknowledged(version)));
    }

    fn note_expected(&mut self, r#type: Type, changed: &[Arc<Resource>], now: Instant) {
        if r#type != Type::Cluster || !self.of(Type::Cluster).wildcard {
            return;
        }
        let endpoints = &self.subscriptions[Type::Endpoints.index()];
        let has_endpoints = |name: &str| names::split_cluster(name).0 != names::INBOUND;
        let new = changed.iter().map(|r| &r.name).filter(|n| has_endpoints(n) && !endpoints.names.contains(*n));
        self.expected.extend(new.cloned());
        self.expected_until = (!self.expected.is_empty()).then(|| now + self.patience);
    }

    fn respond(&mut self, r#type: Type, changed: Vec<Arc<Resource>>, removed: Vec<Arc<str>>, now: Instant) {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let seq = self.world.seq;
        let whole = self.mode == Mode::Sotw && r#type.is_root();
        let subscription = self.of_mut(r#type);
        let version = subscription.version();
        let names = changed.iter().map(|r| Arc::clone(&r.name)).collect();
        subscription.sent(InFlight { nonce: nonce.clone(), version: Arc::clone(&version), seq, names, sent_at: now });
        let resources = if whole { subscription.all() } else { changed };
        let total = subscription.count();
        self.output.progress.push((r#type, Progress::Sent(Arc::clone(&version), total)));
        let removed = if self.mode == Mode::Delta { removed } else { Vec::new() };
        self.output.responses.push(Response { r#type, version, nonce, resources, removed });
    }

    fn of(&self, r#type: Type) -> &Subscription {
        &self.subscriptions[r#type.index()]
    }

    fn of_mut(&mut self, r#type: Type) -> &mut Subscription {
        &mut self.subscriptions[r#type.index()]
    }
}

/// Hash over names and versions.
fn version_of<'a>(parts: impl Iterator<Item = (&'a str, &'a str)>) -> Arc<str> {
    let parts: Vec<&[u8]> = parts.flat_map(|(name, version)| [name.as_bytes(), version.as_bytes()]).collect();
    hash(parts)
}
