//! Leases, events and audit entries, and how many are kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_model::{Author, Key};

/// Who may act for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What for, e.g. `controller/change`.
    pub name: String,
    /// Who has it.
    pub holder: String,
    /// Grows whenever the holder changes.
    pub fencing: u64,
    /// Not valid from then on, unless renewed.
    pub expires_at: Timestamp,
}

/// Writes with this hold only while the lease is still the one that was acquired: see [`crate::Store::fenced`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Name of the lease.
    pub lease: String,
    /// Its fencing token when it was acquired.
    pub fencing: u64,
}

impl From<&Lease> for Fence {
    fn from(lease: &Lease) -> Fence {
        Fence { lease: lease.name.clone(), fencing: lease.fencing }
    }
}

/// How much of the past a store keeps; the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Changes that a watch can begin before.
    pub changes: usize,
    /// Events.
    pub events: usize,
    /// Audit entries.
    pub audit: usize,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { changes: 8_192, events: 50_000, audit: 200_000 }
    }
}

/// Most events or audit entries in one answer.
pub const MAX_RECORDS: usize = 1_000;
const DEFAULT_RECORDS: usize = 100;

fn bounded(limit: usize) -> usize {
    if limit == 0 { DEFAULT_RECORDS } else { limit.min(MAX_RECORDS) }
}

/// What happened to a resource and why, in a sentence a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To which resource.
    pub about: Key,
    /// Whether it calls for attention.
    pub r#type: EventType,
    /// One CamelCase word for programs.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Who says so, e.g. `controller/instance`.
    pub source: String,
}

/// Whether an event calls for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// Expected.
    Normal,
    /// Calls for attention.
    Warning,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Of this resource only.
    pub about: Option<Key>,
    /// The newest so many (default 100 where 0, at most 1,000).
    pub limit: usize,
}

impl EventQuery {
    /// The limit that holds.
    pub fn bounded_limit(&self) -> usize {
        bounded(self.limit)
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    pub time: Timestamp,
    /// Who, and why.
    pub author: Author,
    /// `create`, `update` or `delete`.
    pub verb: String,
    /// What was written.
    pub key: Key,
    /// The write's resourceVersion.
    pub resource_version: u64,
}

/// Which audit entries.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Of this resource only.
    pub key: Option<Key>,
    /// The newest so many (default 100 where 0, at most 1,000).
    pub limit: usize,
}

impl AuditQuery {
    /// The limit that holds.
    pub fn bounded_limit(&self) -> usize {
        bounded(self.limit)
    }
}
