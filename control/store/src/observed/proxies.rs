//! Connected proxies: what each was sent, what it acknowledged, what it rejected.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// State of one xDS resource type on one proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeState {
    /// Version last sent.
    pub sent: String,
    /// Version last acknowledged.
    pub acknowledged: String,
    /// Version last rejected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rejected: String,
    /// Why, in the proxy's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Resources sent.
    pub resources: usize,
}

/// One proxy with an xDS stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyView {
    /// xDS node id: the instance's name.
    pub node: String,
    /// Its app.
    pub app: String,
    /// What it says it is, e.g. `weir-proxy 0.1.0` or `envoy 1.40.0`.
    pub agent: String,
    /// `sotw` or `delta`.
    pub protocol: String,
    /// Since when.
    pub connected_at: Timestamp,
    /// By short type name: LDS, RDS, CDS, EDS.
    pub types: BTreeMap<String, TypeState>,
}

/// All proxies with a stream, by a number that is unique to the stream.
#[derive(Debug, Default)]
pub struct ProxyTable {
    streams: Mutex<BTreeMap<u64, ProxyView>>,
}

impl ProxyTable {
    /// Notes a stream, or what became of it.
    pub fn put(&self, stream: u64, view: ProxyView) {
        self.lock().insert(stream, view);
    }

    /// Changes one type's state on a stream.
    pub fn update(&self, stream: u64, type_name: &str, change: impl FnOnce(&mut TypeState)) {
        if let Some(view) = self.lock().get_mut(&stream) {
            change(view.types.entry(type_name.to_owned()).or_default());
        }
    }

    /// Forgets a stream that has ended.
    pub fn remove(&self, stream: u64) {
        self.lock().remove(&stream);
    }

    /// All streams, in the order they came.
    pub fn all(&self) -> Vec<ProxyView> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, ProxyView>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
