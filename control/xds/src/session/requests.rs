//! How requests are read: subscriptions, acknowledgements, rejections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::state::Known;
use super::{Progress, Refused, Session, version_of};
use crate::resource::{Resource, Type};

/// Longest rejection message kept.
const MAX_ERROR: usize = 2000;
/// Explicit wildcard.
const ANY: &str = "*";

/// A state-of-the-world request.
#[derive(Debug, Clone, Default)]
pub struct SotwRequest {
    /// All names the client asks for; none: everything meant for it.
    pub names: Vec<String>,
    /// What it has.
    pub version: String,
    /// Of the response this answers.
    pub nonce: String,
    /// Set: the response was rejected, and why.
    pub error: Option<String>,
}

/// A delta request.
#[derive(Debug, Clone, Default)]
pub struct DeltaRequest {
    /// Names asked for from now on.
    pub subscribe: Vec<String>,
    /// Names no longer asked for.
    pub unsubscribe: Vec<String>,
    /// First request of a stream only: what the client has.
    pub initial: BTreeMap<String, String>,
    /// Of the response this answers.
    pub nonce: String,
    /// Set: the response was rejected, and why.
    pub error: Option<String>,
}

impl Session {
    /// Takes a state-of-the-world request.
    ///
    /// # Errors
    /// [`Refused`] if the client asks for more than it may; the stream must end.
    pub fn sotw(&mut self, r#type: Type, request: SotwRequest) -> Result<(), Refused> {
        self.check_count(r#type, request.names.len())?;
        if !self.of(r#type).requested {
            self.of_mut(r#type).requested = true;
            self.of_mut(r#type).wildcard = r#type.is_root() && request.names.is_empty();
            self.set_names(r#type, request.names);
            self.resume(r#type, &request.version);
            return Ok(());
        }
        self.resolve(r#type, &request.nonce, request.error);
        // A request that answers an older response says nothing of what the client wants now (xDS protocol,
        // "Resource updates"): the answer to the newest will.
        if request.nonce == self.of(r#type).last_nonce {
            self.set_names(r#type, request.names);
        }
        Ok(())
    }

    /// Takes a delta request.
    ///
    /// # Errors
    /// [`Refused`] if the client asks for more than it may; the stream must end.
    pub fn delta(&mut self, r#type: Type, request: DeltaRequest) -> Result<(), Refused> {
        let asked = self.of(r#type).names.len() + request.subscribe.len();
        self.check_count(r#type, asked.max(request.initial.len()))?;
        self.resolve(r#type, &request.nonce, request.error);
        let first = !std::mem::replace(&mut self.of_mut(r#type).requested, true);
        if first {
            let subscription = self.of_mut(r#type);
            subscription.wildcard = r#type.is_root() && request.subscribe.is_empty();
            subscription.dirty_all = true;
        }
        for name in request.subscribe {
            self.subscribe(r#type, name, !first);
        }
        for name in &request.unsubscribe {
            self.unsubscribe(r#type, name);
        }
        if first {
            // One that comes back has something to go on with: what it lacks is a change like any other.
            self.of_mut(r#type).answer_due = request.initial.is_empty();
            self.of_mut(r#type).returned = !request.initial.is_empty();
            self.believe(r#type, request.initial);
        }
        Ok(())
    }

    fn check_count(&self, r#type: Type, asked: usize) -> Result<(), Refused> {
        let limit = self.max_names;
        if asked > limit { Err(Refused::TooManyNames { asked, of: r#type, limit }) } else { Ok(()) }
    }

    /// Replaces the names asked for (state of the world).
    fn set_names(&mut self, r#type: Type, names: Vec<String>) {
        let names: BTreeSet<String> = names.into_iter().collect();
        let gone: Vec<Arc<str>> = self.of(r#type).names.iter().filter(|n| !names.contains(&***n)).cloned().collect();
        for name in &gone {
            self.unsubscribe(r#type, name);
        }
        if r#type.is_root() && names.contains(ANY) {
            self.of_mut(r#type).wildcard = true;
        }
        for name in names {
            if !self.of(r#type).names.contains(&*name) {
                self.subscribe(r#type, name, true);
            }
        }
    }

    /// A client that comes back with the version of everything meant for it needs no answer. Where it names what it
    /// wants that can't be told: it may have dropped and asked again for a name since it got that version.
    fn resume(&mut self, r#type: Type, version: &str) {
        let subscription = self.of(r#type);
        let everything = subscription.wildcard && subscription.names.is_empty();
        let wanted = if everything { self.wanted(r#type) } else { BTreeMap::new() };
        let same = everything && *version_of(wanted.iter().map(|(name, r)| (&**name, &*r.version))) == *version;
        let subscription = self.of_mut(r#type);
        subscription.dirty_all = true;
        // One that comes back with another version has something to go on with: what it lacks is a change like any other.
        subscription.answer_due = !same && version.is_empty();
        subscription.returned = !version.is_empty();
        subscription.blind = !same && !version.is_empty();
        if same {
            let accepted = |r: Arc<Resource>| Known { resource: Some(Arc::clone(&r)), ..Known::accepted(&r.version) };
            subscription.known = wanted.into_iter().map(|(name, r)| (name, accepted(r))).collect();
        }
    }

    fn subscribe(&mut self, r#type: Type, name: String, again: bool) {
        if name == ANY && r#type.is_root() {
            let subscription = self.of_mut(r#type);
            subscription.wildcard = true;
            subscription.dirty_all = true;
            subscription.answer_due = true;
            return;
        }
        let name: Arc<str> = name.into();
        let subscription = self.of_mut(r#type);
        subscription.names.insert(Arc::clone(&name));
        if again {
            // Naming it once more says: I have dropped it, send it anew.
            subscription.known.remove(&name);
        }
        subscription.dirty.insert(Arc::clone(&name));
        subscription.dirty_all |= r#type.is_root();
        subscription.answer_due = true;
        if r#type == Type::Endpoints {
            self.expected.remove(&name);
            self.output.acknowledged.push((name, Some(0)));
        }
    }

    fn unsubscribe(&mut self, r#type: Type, name: &str) {
        let subscription = self.of_mut(r#type);
        if name == ANY {
            subscription.wildcard = false;
            subscription.dirty_all = true;
            return;
        }
        subscription.forget(name);
        subscription.dirty_all |= r#type.is_root();
        if r#type == Type::Endpoints {
            self.output.acknowledged.push((name.into(), None));
        }
    }

    /// Takes over what a reconnecting delta client says it has.
    fn believe(&mut self, r#type: Type, initial: BTreeMap<String, String>) {
        let subscription = self.of_mut(r#type);
        for (name, version) in initial {
            if (subscription.wildcard || subscription.names.contains(&*name)) && !version.is_empty() {
                subscription.known.insert(name.into(), Known::accepted(&version.into()));
            }
        }
    }

    /// Notes the answer to a response; an answer to one that is unknown or superseded changes nothing.
    fn resolve(&mut self, r#type: Type, nonce: &str, error: Option<String>) {
        let subscription = self.of_mut(r#type);
        let Some(at) = subscription.in_flight.iter().position(|f| f.nonce == nonce) else { return };
        let Some(answered) = subscription.in_flight.drain(..=at).next_back() else { return };
        if let Some(error) = error {
            let error: String = error.chars().take(MAX_ERROR).collect();
            subscription.rejected = true;
            self.output.progress.push((r#type, Progress::Rejected(answered.version, error)));
            return;
        }
        subscription.rejected = false;
        subscription.taken = subscription.taken.max(answered.seq);
        let up_to = subscription.confirm(&answered);
        if r#type == Type::Endpoints {
            self.output.acknowledged.extend(up_to.into_iter().map(|(name, seq)| (name, Some(seq))));
        }
        self.output.progress.push((r#type, Progress::Acknowledged(answered.version)));
    }
}

impl Known {
    /// A version that the client says it has.
    fn accepted(version: &Arc<str>) -> Known {
        Known { version: Arc::clone(version), resource: None, confirmed: true, holds_up_to: 0 }
    }
}
