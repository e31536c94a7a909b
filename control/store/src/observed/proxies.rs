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

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node: &str) -> ProxyView {
        ProxyView {
            node: node.to_owned(),
            app: "orders".to_owned(),
            agent: "weir-proxy 0.1.0".to_owned(),
            protocol: "delta".to_owned(),
            connected_at: Timestamp::UNIX_EPOCH,
            types: BTreeMap::new(),
        }
    }

    #[test]
    fn streams_are_apart_though_they_are_of_one_proxy() {
        let table = ProxyTable::default();
        table.put(1, view("a"));
        table.put(2, view("a"));
        table.update(2, "EDS", |state| state.sent = "7".to_owned());
        table.update(3, "EDS", |state| state.sent = "of a stream that has ended".to_owned());
        let sent: Vec<_> = table.all().iter().map(|v| v.types.get("EDS").map(|state| state.sent.clone())).collect();
        assert_eq!(sent, [None, Some("7".to_owned())]);
        table.remove(1);
        assert_eq!(table.all().len(), 1);
    }
}
