//! Leases, events and audit entries.

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
