//! Takes updates into the world and the world into the sink.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::time::Instant;

use envoy_types::pb::google::protobuf::Any;
use weir_config::ProxyConfig;
use zeroize::Zeroize;

use super::kind::Kind;
use super::world::World;
use crate::convert::{self, Resource};

/// Takes configurations: the proxy.
pub trait Sink: Send {
    /// Puts a configuration into force as a whole; resolves once it is in force everywhere.
    fn apply(&mut self, config: ProxyConfig) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// Hears that something was refused (and the control plane told so).
    fn rejected(&mut self, message: &str);
}

/// Why a configuration was not put into force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It cannot be; the one before stays.
    #[error("{message}")]
    Rejected {
        /// Why; the words go to the control plane.
        message: String,
        /// Listeners to blame, if it is them: the rest of the configuration is then applied without them.
        listeners: Vec<String>,
    },
    /// The proxy goes away and takes no more; nothing is to be acknowledged any more.
    #[error("the proxy is stopping")]
    Stopping,
}

/// Most resources of one type; what a proxy of the largest meshes needs stays far below.
const MAX_RESOURCES: usize = 50_000;
/// Problems told in one NACK.
const MAX_PROBLEMS: usize = 8;
/// Longest NACK message in bytes.
const MAX_MESSAGE: usize = 4096;

/// One response of the control plane, in either variant of the protocol.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) kind: Kind,
    pub(crate) resources: Vec<Versioned>,
    pub(crate) removed: Vec<String>,
    /// The resources are all there are: others are removed.
    pub(crate) is_whole: bool,
}

#[derive(Debug)]
pub(crate) struct Versioned {
    /// Name in the envelope, if it has one.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) resource: Any,
}

/// What became of an update.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Rejected(String),
    Stopping,
}

pub(crate) struct Engine<S> {
    pub(crate) world: World,
    sink: S,
    applied: Option<ProxyConfig>,
    /// When what is missing has been missed for too long.
    pub(crate) deadline: Option<Instant>,
}

impl<S: Sink> Engine<S> {
    pub(crate) fn new(sink: S) -> Self {
        Engine { world: World::default(), sink, applied: None, deadline: None }
    }

    /// Takes a response. If some resources are bad, the good ones are taken and the bad ones stay as they were, as Envoy
    /// and gRPC do; if the sink rejects the whole, nothing of the response is kept.
    pub(crate) async fn take(&mut self, update: Update, now: Instant) -> Verdict {
        let before = self.world.clone();
        let mut problems = self.put(update);
        match self.settle_or_restore(before, now).await {
            Ok(refused) => problems.extend(refused),
            Err(ApplyError::Stopping) => return Verdict::Stopping,
            Err(ApplyError::Rejected { message, .. }) => problems = vec![message],
        }
        self.verdict(problems)
    }

    /// Looks again, since time has passed.
    pub(crate) async fn expire(&mut self, now: Instant) -> Result<(), ApplyError> {
        let before = self.world.clone();
        let result = self.settle_or_restore(before, now).await;
        self.report(result)
    }

    /// Takes what a host name resolved to.
    pub(crate) async fn resolved(&mut self, name: String, addresses: Option<Vec<IpAddr>>) -> Result<(), ApplyError> {
        let before = self.world.clone();
        self.world.resolved(name, addresses);
        let result = self.settle_or_restore(before, Instant::now()).await;
        self.report(result)
    }

    /// Outside a response there is no one to answer to: what was refused is only counted.
    fn report(&mut self, result: Result<Option<String>, ApplyError>) -> Result<(), ApplyError> {
        match result {
            Err(ApplyError::Stopping) => Err(ApplyError::Stopping),
            Err(ApplyError::Rejected { message, .. }) | Ok(Some(message)) => {
                self.sink.rejected(&message);
                Ok(())
            }
            Ok(None) => Ok(()),
        }
    }

    /// Settles; a listener that cannot be opened is left out (and told of), anything else puts the world back.
    async fn settle_or_restore(&mut self, before: World, now: Instant) -> Result<Option<String>, ApplyError> {
        let Err(mut error) = self.settle(now).await else { return Ok(None) };
        if let ApplyError::Rejected { message, listeners } = &error
            && !listeners.is_empty()
        {
            let message = message.clone();
            listeners.iter().for_each(|name| self.world.refuse_listener(name, &before));
            match self.settle(now).await {
                Ok(()) => return Ok(Some(message)),
                Err(again) => error = again,
            }
        }
        self.world = before;
        Err(error)
    }

    fn verdict(&mut self, problems: Vec<String>) -> Verdict {
        if problems.is_empty() {
            return Verdict::Accepted;
        }
        let message = message(&problems);
        self.sink.rejected(&message);
        Verdict::Rejected(message)
    }

    /// Puts what is good into the world; returns what is wrong with the rest.
    fn put(&mut self, update: Update) -> Vec<String> {
        let kind = update.kind;
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        self.world.note_received(kind);
        for versioned in update.resources {
            match self.one(kind, versioned) {
                Ok(name) => drop(names.insert(name)),
                Err((name, problem)) => {
                    problems.push(format!("{} `{name}`: {problem}", kind.noun()));
                    names.insert(name);
                }
            }
        }
        if update.is_whole {
            self.world.keep_only(kind, &names);
        }
        update.removed.iter().for_each(|name| self.world.remove(kind, name));
        problems
    }

    fn one(&mut self, kind: Kind, versioned: Versioned) -> Result<String, (String, String)> {
        let envelope = versioned.name;
        let mut any = convert::unwrap(versioned.resource).map_err(|error| (envelope.clone(), error.to_string()))?;
        let converted = convert::resource(&any);
        if kind == Kind::Secret {
            // What was received is wiped; the one copy that is kept wipes itself.
            any.value.zeroize();
        }
        let (name, resource) = converted.map_err(|(name, error)| (name, error.to_string()))?;
        if kind_of(&resource) != kind {
            return Err((name, format!("is of type `{}` in an answer for another", any.type_url)));
        }
        if !envelope.is_empty() && envelope != name {
            return Err((name, format!("comes under another name, `{envelope}`")));
        }
        if self.world.count(kind) >= MAX_RESOURCES {
            return Err((name, format!("there are more than {MAX_RESOURCES}, the most that are taken")));
        }
        self.world.put(name.clone(), versioned.version, resource);
        Ok(name)
    }

    /// Activates what is ready and hands it to the sink if it changed. Nothing is handed over before all that the control
    /// plane told at first is there: a proxy that starts must not serve half of its routes.
    async fn settle(&mut self, now: Instant) -> Result<(), ApplyError> {
        self.deadline = self.world.settle(now);
        if self.applied.is_none() && !self.world.is_complete() {
            return Ok(());
        }
        let config = self.world.config();
        if self.applied.as_ref() == Some(&config) {
            return Ok(());
        }
        self.sink.apply(config.clone()).await?;
        self.applied = Some(config);
        Ok(())
    }
}

fn kind_of(resource: &Resource) -> Kind {
    match resource {
        Resource::Cluster(_) => Kind::Cluster,
        Resource::Endpoints(_) => Kind::Endpoints,
        Resource::Listener(_) => Kind::Listener,
        Resource::Routes(_) => Kind::Routes,
        Resource::Secret(_) => Kind::Secret,
    }
}

fn message(problems: &[String]) -> String {
    let mut text = problems.iter().take(MAX_PROBLEMS).cloned().collect::<Vec<_>>().join("; ");
    if problems.len() > MAX_PROBLEMS {
        text.push_str(&format!("; and {} more", problems.len() - MAX_PROBLEMS));
    }
    let end = (0..=MAX_MESSAGE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
