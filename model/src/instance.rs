//! Instance: one running copy of an app, with its proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::Protocol;
use crate::health::SelfCheck;
use crate::kind::Kind;
use crate::meta::{Condition, ConditionStatus};
use crate::object::{Resource, Spec};
use crate::validate::Validator;

/// One running copy of an app.
pub type Instance = Resource<InstanceSpec>;

/// Condition: every subscriber has acknowledged endpoints without this instance.
pub const UNPUBLISHED: &str = "Unpublished";
/// Condition: the control stream is there, or was a moment ago.
pub const ALIVE: &str = "Alive";
/// Reason of [`ALIVE`] being False: nothing is heard of the proxy any more, though it said no goodbye. It may serve on.
pub const LEASE_EXPIRED: &str = "LeaseExpired";

/// Annotation: the version wanted of it before the last change that touched it; written together with the new one.
pub const BEFORE_CHANGE: &str = "weir.dev/before-change";

/// What an instance is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceSpec {
    /// Its app.
    pub app: String,
    /// Its unit.
    #[serde(default)]
    pub unit: String,
    /// Its zone within the unit.
    #[serde(default)]
    pub zone: String,
    /// Its group (gray lanes, isolation); empty: the default one.
    #[serde(default)]
    pub group: String,
    /// Technology stack of the application (`java-sofa`, `nodejs`); a stratum of changes.
    #[serde(default)]
    pub stack: String,
    /// Who runs it.
    #[serde(default)]
    pub managed_by: ManagedBy,
    /// The Workload it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Where callers reach it.
    pub address: IpAddr,
    /// Port of the proxy's inbound listener.
    pub port: u16,
    /// Port of the application behind it; 0: none (a client or a gateway).
    #[serde(default)]
    pub app_port: u16,
    /// Address at which the application listens, where it is not 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_address: Option<IpAddr>,
    /// What the application speaks.
    #[serde(default)]
    pub protocol: Protocol,
    /// Apps it calls, and the local address at which its proxy offers each.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// Release of the proxy wanted. Changes write this.
    #[serde(default)]
    pub proxy_version: String,
    /// Release of the application wanted.
    #[serde(default)]
    pub app_version: String,
    /// Configuration laid over what is stored, for this instance's proxy alone; empty: none. Changes write this.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_revision: String,
    /// Share of traffic relative to others of the app.
    #[serde(default = "hundred")]
    pub weight: u32,
    /// Wanted gone: it is unpublished, drained, stopped, and then deleted. Only for those that Weir runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retire: bool,
}

fn hundred() -> u32 {
    100
}

/// An app called, and where its proxy listens for the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// The app called.
    pub app: String,
    /// Local address, e.g. `127.0.0.1:15001`.
    pub listen: SocketAddr,
}

/// Who starts and stops an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManagedBy {
    /// Somebody else: it joined by itself and is gone when its lease is.
    #[default]
    Itself,
    /// The instance controller.
    Weir,
}

/// What is observed of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InstanceStatus {
    /// Where it is in its life.
    pub phase: InstancePhase,
    /// The spec's generation this was observed of.
    pub observed_generation: u64,
    /// Release its proxy reports.
    pub proxy_version: String,
    /// Release of the application that runs.
    pub app_version: String,
    /// Not empty: the proxy is a drill build, and this is its fault.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub drill: String,
    /// The proxy's start-up self-check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_check: Option<SelfCheck>,
    /// Aspects: [`UNPUBLISHED`], [`ALIVE`].
    pub conditions: Vec<Condition>,
    /// What happens or went wrong, in a sentence.
    pub message: String,
    /// When the phase was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Timestamp>,
    /// Process id of the application, as its supervisor reports; unchanged through a proxy upgrade.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_pid: Option<u32>,
    /// Process id of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_pid: Option<u32>,
    /// Admin endpoint of the proxy, on the machine that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_admin: Option<SocketAddr>,
    /// Times the proxy ended unasked and was started again by its supervisor, since that was started.
    #[serde(skip_serializing_if = "is_zero")]
    pub proxy_restarts: u32,
    /// What its proxy can do in TLS; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<InstanceTls>,
    /// Which configuration its proxy has taken; absent: what is stored, and never another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<InstanceConfig>,
    /// Failed attempts in a row at what the spec wants.
    pub failures: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// TLS of an instance whose proxy can be switched to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InstanceTls {
    /// A certificate is in use: its inbound listener answers TLS.
    pub ready: bool,
    /// The identity in it, a URI.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// When it runs out, unless it is rotated before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Since when this certificate is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Which certificate of its process this is, from 1.
    pub generation: u64,
}

/// Configuration that a proxy was told of alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InstanceConfig {
    /// The revision that its proxy has acknowledged whole; empty: what is stored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// What the proxy refused of the revision that is wanted, in its words; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rejected: String,
}

/// Life of an instance. A warm upgrade walks Serving -> Unpublishing -> Draining -> Swapping -> Serving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum InstancePhase {
    /// Wanted, nothing made yet.
    #[default]
    Pending,
    /// Processes are being started.
    Starting,
    /// Registered, self-check passed, published to callers.
    Serving,
    /// Taken out of the endpoints; callers have yet to acknowledge.
    Unpublishing,
    /// Callers know; what is in flight finishes.
    Draining,
    /// The proxy is replaced and checks itself.
    Swapping,
    /// Something failed; the message says what.
    Failed,
    /// Being stopped for good.
    Terminating,
}

impl InstancePhase {
    /// The legal transitions.
    pub fn may_become(self, next: InstancePhase) -> bool {
        use InstancePhase::*;
        match self {
            _ if self == next => true,
            Terminating => false,
            Pending => matches!(next, Starting | Serving | Failed | Terminating),
            Starting => matches!(next, Serving | Failed | Terminating),
            Serving => matches!(next, Unpublishing | Failed | Terminating),
            Unpublishing => matches!(next, Draining | Serving | Failed | Terminating),
            Draining => matches!(next, Swapping | Failed | Terminating),
            Swapping => matches!(next, Serving | Failed | Terminating),
            Failed => matches!(next, Starting | Unpublishing | Draining | Swapping | Serving | Terminating),
        }
    }
}

impl InstanceSpec {
    /// Where the application listens, if there is one.
    pub fn application(&self) -> Option<SocketAddr> {
        let address = self.app_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (self.app_port != 0).then(|| SocketAddr::new(address, self.app_port))
    }
}

impl InstanceStatus {
    /// True if callers should be given this instance: it serves and is not known to be dead.
    pub fn published(&self) -> bool {
        let dead = self.conditions.iter().any(|c| c.r#type == ALIVE && c.status == ConditionStatus::False);
        self.phase == InstancePhase::Serving && !dead
    }

    /// True if callers have acknowledged that the instance is gone, *since* it entered its phase: an answer to an
    /// earlier unpublishing that nobody has cleared yet doesn't count.
    pub fn unpublished(&self) -> bool {
        let since = self.phase_since.unwrap_or(Timestamp::MIN);
        let gone = |c: &Condition| c.status == ConditionStatus::True && c.last_transition_time >= since;
        self.conditions.iter().any(|c| c.r#type == UNPUBLISHED && gone(c))
    }
}

impl Spec for InstanceSpec {
    const KIND: Kind = Kind::Instance;
    type Status = InstanceStatus;

    fn validate(&self, v: &mut Validator) {
        v.name("app", &self.app);
        v.range("weight", self.weight, 1, 10_000);
        v.require(
            !self.address.is_unspecified(),
            "address",
            "must be an address that callers can reach, not the unspecified one",
        );
        v.each("upstreams", &self.upstreams, |v, upstream| v.name("app", &upstream.app));
    }
}
