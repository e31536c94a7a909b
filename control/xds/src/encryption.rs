//! When an app's encryption may take its next step: pure.
//!
//! Switching is safe because servers take TLS long before anybody speaks it, and take plaintext until nobody does. So a
//! step that makes servers refuse plaintext waits for every caller to have acknowledged that it is to speak TLS, and the
//! step that makes callers speak plaintext waits for every server to have acknowledged that it takes it. Nobody is given
//! up: to wait is safe, and whoever is waited for is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_model::encryption::{EncryptionMode, MAX_NAMED, Readiness};

use crate::board::Connected;
use crate::names;
use crate::world::AppView;

/// An app, as far as encryption goes.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// What is so.
    pub effective: EncryptionMode,
    /// What is wanted.
    pub wanted: EncryptionMode,
    /// Its published instances.
    pub servers: Vec<Server>,
    /// Everybody who calls it.
    pub callers: Vec<Caller>,
}

/// A published instance.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its proxy can do TLS; true: now.
    pub tls: Option<bool>,
    /// Its proxy has acknowledged its newest listener.
    pub is_up_to_date: bool,
}

/// Somebody who calls the app.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub speech: Speech,
}

/// What a caller will speak to instances that take TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// TLS, by its own acknowledgement.
    Tls,
    /// TLS as soon as it has acknowledged.
    Behind(&'static str),
    /// Plaintext: its proxy can't do TLS.
    Plaintext,
    /// What it was told last; it is not connected.
    Away,
}

/// What is to be done, and who is in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The mode to be in.
    pub next: EncryptionMode,
    /// Who holds the next step up, with the reason.
    pub held_by: BTreeMap<String, String>,
    /// Nobody holds strict up, but connections that were begun before may still be under way.
    pub is_settling: bool,
    /// Instances that hold a certificate in use.
    pub instances: Readiness,
    /// Callers that speak TLS.
    pub callers: Readiness,
}

/// The next step. `has_settled`: for long enough nobody has held strict up.
pub fn decide(standing: &Standing, has_settled: bool) -> Decision {
    use EncryptionMode::{Disabled, Permissive, Strict};
    let step = standing.effective.step_towards(standing.wanted);
    let held_by = match (standing.effective, step) {
        (Permissive, Strict) => against_strict(standing),
        (Permissive, Disabled) => against_disabled(standing),
        _ => BTreeMap::new(),
    };
    let is_settling = step == Strict && standing.effective == Permissive && held_by.is_empty() && !has_settled;
    let next = if held_by.is_empty() && !is_settling { step } else { standing.effective };
    Decision { next, held_by, is_settling, instances: instances(standing), callers: callers(standing) }
}

fn against_strict(standing: &Standing) -> BTreeMap<String, String> {
    let servers = standing.servers.iter().filter_map(|s| Some((s.name.clone(), not_ready(s)?.to_owned())));
    let callers = standing.callers.iter().filter_map(|c| Some((c.name.clone(), not_speaking(c)?.to_owned())));
    servers.chain(callers).collect()
}

fn against_disabled(standing: &Standing) -> BTreeMap<String, String> {
    let behind = standing.servers.iter().filter(|s| s.tls == Some(true) && !s.is_up_to_date);
    behind.map(|s| (s.name.clone(), "has not acknowledged that it takes plaintext again".to_owned())).collect()
}

fn instances(standing: &Standing) -> Readiness {
    let not = standing.servers.iter().filter_map(|s| Some((&s.name, not_ready(s)?)));
    readiness(standing.servers.len(), not)
}

fn callers(standing: &Standing) -> Readiness {
    let not = standing.callers.iter().filter_map(|c| Some((&c.name, not_speaking(c)?)));
    readiness(standing.callers.len(), not)
}

fn readiness<'a>(total: usize, not: impl Iterator<Item = (&'a String, &'a str)>) -> Readiness {
    let not: BTreeMap<String, String> = not.map(|(name, why)| (name.clone(), why.to_owned())).collect();
    Readiness { total, ready: total.saturating_sub(not.len()), not_ready: not.into_iter().take(MAX_NAMED).collect() }
}

fn not_ready(server: &Server) -> Option<&'static str> {
    match server.tls {
        Some(true) => None,
        Some(false) => Some("its proxy has no certificate in use yet"),
        None => Some("its proxy can't do TLS"),
    }
}

fn not_speaking(caller: &Caller) -> Option<&'static str> {
    match caller.speech {
        Speech::Tls => None,
        Speech::Behind(what) => Some(what),
        Speech::Plaintext => Some("its proxy can't do TLS"),
        Speech::Away => Some("is not connected, and may call on as it was told last"),
    }
}

/// What a connected stream will speak to the app's instances; `None`: it does not call the app.
pub fn speech(stream: &Connected, app: &str, view: &AppView) -> Option<Speech> {
    let asked: Vec<(&Arc<str>, u64)> = clusters_of(stream, app).collect();
    if asked.is_empty() && !stream.calls.contains(app) {
        return None;
    }
    if !stream.tls {
        return Some(Speech::Plaintext);
    }
    let needed = |name: &str| view.endpoints.get(names::split_cluster(name).1).map_or(0, |a| a.seq);
    Some(if stream.taken.clusters < view.config_seq {
        Speech::Behind("has not acknowledged the app's clusters")
    } else if asked.is_empty() {
        Speech::Behind("has not asked for the app's endpoints yet")
    } else if asked.iter().any(|(name, seq)| *seq < needed(name)) {
        Speech::Behind("has not acknowledged the app's endpoints")
    } else {
        Speech::Tls
    })
}

fn clusters_of<'a>(stream: &'a Connected, app: &'a str) -> impl Iterator<Item = (&'a Arc<str>, u64)> {
    let of_app = move |name: &str| names::split_cluster(name).0 == app;
    stream.clusters.iter().filter(move |(name, _)| of_app(name)).map(|(name, seq)| (name, *seq))
}

/// Names, of which the first few are told.
pub fn named(who: &BTreeMap<String, String>) -> String {
    const TOLD: usize = 5;
    let told = who.iter().take(TOLD).map(|(name, why)| format!("{name} ({why})")).collect::<Vec<_>>().join(", ");
    match who.len().saturating_sub(TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// Streams by the name of their node; of several the last.
pub fn by_node(streams: &[Connected]) -> BTreeMap<&str, &Connected> {
    streams.iter().map(|stream| (stream.node.as_str(), stream)).collect()
}

/// Nodes that have yet to take the roots of this version: streams that may verify, and instances that are not connected.
pub fn without_roots(
    streams: &[Connected],
    instances: impl Iterator<Item = String>,
    version: &str,
) -> BTreeSet<String> {
    let lacks = |s: &&Connected| s.tls && s.taken.roots.as_deref() != Some(version);
    let connected = by_node(streams);
    let away = instances.filter(|name| !connected.contains_key(name.as_str()));
    streams.iter().filter(lacks).map(|s| s.node.clone()).chain(away).collect()
}

#[cfg(test)]
mod tests;
