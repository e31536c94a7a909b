//! What a client has asked for of one type, and what it has.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::version_of;
use crate::names::SEPARATOR;
use crate::resource::Resource;

/// Most responses remembered until they are answered.
const MAX_UNANSWERED: usize = 256;

/// Subscription to one type.
#[derive(Debug, Default)]
pub struct Subscription {
    /// The client has asked for this type at all.
    pub requested: bool,
    /// For everything that is meant for it.
    pub wildcard: bool,
    /// By name.
    pub names: BTreeSet<Arc<str>>,
    /// What it was sent, or said it has.
    pub known: BTreeMap<Arc<str>, Known>,
    /// The client has asked for something and waits for the answer.
    pub answer_due: bool,
    /// Everything must be compared.
    pub dirty_all: bool,
    /// These must be compared.
    pub dirty: BTreeSet<Arc<str>>,
    /// The client came back; what it is found to have already is yet to be noted.
    pub returned: bool,
    /// The client came back with something, but state of the world does not say what.
    pub blind: bool,
    /// There is something to remove once the rest has settled.
    pub removals_held: bool,
    /// Responses that are not answered yet, oldest first.
    pub in_flight: VecDeque<InFlight>,
    /// Nonce of the newest response.
    pub last_nonce: String,
    /// But for secrets and endpoints: the world up to which the client has accepted everything.
    pub taken: u64,
    /// Its last answer was a rejection.
    pub rejected: bool,
}

/// One resource as the client has it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its version; empty: the client was told that there is no such resource.
    pub version: Arc<str>,
    /// The resource, unless all that is known is the version the client said it has.
    pub resource: Option<Arc<Resource>>,
    /// The client has accepted this version.
    pub confirmed: bool,
    /// A world, later than the one it was sent for, that says the same; 0: none was looked at.
    pub holds_up_to: u64,
}

/// A response that is not answered yet.
#[derive(Debug)]
pub struct InFlight {
    /// Its nonce.
    pub nonce: String,
    /// Its version.
    pub version: Arc<str>,
    /// The world it was made from.
    pub seq: u64,
    /// Resources in it.
    pub names: Vec<Arc<str>>,
    /// When it was sent.
    pub sent_at: Instant,
}

impl Known {
    /// True unless the client was told that there is no such resource.
    pub fn exists(&self) -> bool {
        !self.version.is_empty()
    }
}

impl Subscription {
    /// The client has another version of it, or none.
    pub fn differs(&self, resource: &Resource) -> bool {
        self.known.get(&resource.name).is_none_or(|known| known.version != resource.version)
    }

    /// The client was told that there is no such resource.
    pub fn told_absent(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| !known.exists())
    }

    /// Marks a name as perhaps different, if it is asked for.
    pub fn touch(&mut self, name: &str) {
        if let Some(name) = self.names.get(name) {
            self.dirty.insert(Arc::clone(name));
        }
    }

    /// Marks all clusters of an app.
    pub fn touch_app(&mut self, app: &str) {
        self.touch(app);
        let prefix = format!("{app}{SEPARATOR}");
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let groups = self.names.range::<str, _>(from).take_while(|name| name.starts_with(&prefix));
        self.dirty.extend(groups.cloned());
    }

    /// Names to compare now.
    pub fn take_dirty(&mut self) -> Vec<Arc<str>> {
        let some = std::mem::take(&mut self.dirty);
        let all = std::mem::take(&mut self.dirty_all);
        if all { self.names.iter().cloned().collect() } else { some.into_iter().collect() }
    }

    /// Remembers what is being sent.
    pub fn learn(&mut self, changed: &[Arc<Resource>], removed: &[Arc<str>]) {
        for resource in changed {
            let version = Arc::clone(&resource.version);
            let known = Known { version, resource: Some(Arc::clone(resource)), confirmed: false, holds_up_to: 0 };
            self.known.insert(Arc::clone(&resource.name), known);
        }
        for name in removed {
            if self.names.contains(name) {
                let absent = Known { version: "".into(), resource: None, confirmed: false, holds_up_to: 0 };
                self.known.insert(Arc::clone(name), absent);
            } else {
                self.known.remove(name);
            }
        }
    }

    /// Hash over what the client has.
    pub fn version(&self) -> Arc<str> {
        version_of(self.known.iter().filter(|(_, k)| k.exists()).map(|(name, k)| (&**name, &*k.version)))
    }

    /// How many resources the client has.
    pub fn count(&self) -> usize {
        self.known.values().filter(|k| k.exists()).count()
    }

    /// Every resource the client has.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.known.values().filter_map(|k| k.resource.clone()).collect()
    }

    /// Remembers a response until it is answered. A client that asks on and on without answering is bounded too: its
    /// oldest responses count as never answered.
    pub fn sent(&mut self, response: InFlight) {
        if self.in_flight.len() >= MAX_UNANSWERED {
            self.in_flight.pop_front();
        }
        self.last_nonce.clone_from(&response.nonce);
        self.in_flight.push_back(response);
    }

    /// Notes that the client has accepted a response; returns the names it asks for, each with the world up to which it
    /// has them. A name that a later response holds too is not settled by this one: what is known of it is what that
    /// later response says, which the client may not even have read.
    pub fn confirm(&mut self, answered: &InFlight) -> Vec<(Arc<str>, u64)> {
        let later: HashSet<&Arc<str>> = self.in_flight.iter().flat_map(|f| &f.names).collect();
        let mut up_to = Vec::with_capacity(answered.names.len());
        for name in &answered.names {
            let mut seq = answered.seq;
            if let Some(known) = self.known.get_mut(name).filter(|_| !later.contains(name)) {
                known.confirmed = true;
                seq = seq.max(known.holds_up_to);
            }
            if self.names.contains(name) {
                up_to.push((Arc::clone(name), seq));
            }
        }
        up_to
    }

    /// Whether nothing was left to send of this world, and nothing is unanswered or rejected: then it has all of it.
    pub fn note_taken(&mut self, seq: u64) {
        let open =
            self.dirty_all || !self.dirty.is_empty() || self.answer_due || self.rejected || !self.in_flight.is_empty();
        if self.requested && !open {
            self.taken = seq;
        }
    }

    /// Stops asking for a name.
    pub fn forget(&mut self, name: &str) {
        self.names.remove(name);
        self.known.remove(name);
        self.dirty.remove(name);
    }
}
