//! What is asked of a store, and the answers.

use std::collections::BTreeMap;

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use weir_model::{Kind, Object};

use crate::error::Result;

/// Largest page of a list.
pub const MAX_PAGE: usize = 1000;

/// Labels that must be there with these values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    /// True if every label is there with its value.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Which resources to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Of this kind.
    pub kind: Kind,
    /// With these labels.
    pub selector: Selector,
    /// Whose names begin so.
    pub name_prefix: String,
    /// At most so many (1 to [`MAX_PAGE`]).
    pub limit: usize,
    /// Those after this name: [`ListPage::next`] of the page before.
    pub after: Option<String>,
}

impl ListQuery {
    /// The limit that holds.
    pub fn bounded_limit(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE)
    }

    /// Cuts what was read with one item too many to a page; what [`ListPage::next`] is then.
    pub fn cut(&self, items: &mut Vec<Object>) -> Option<String> {
        let more = items.len() > self.bounded_limit();
        items.truncate(self.bounded_limit());
        items.last().filter(|_| more).map(|last| last.metadata.name.clone())
    }

    /// All of a kind, in the largest pages.
    pub fn all(kind: Kind) -> ListQuery {
        ListQuery { kind, selector: Selector::default(), name_prefix: String::new(), limit: MAX_PAGE, after: None }
    }
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// In the order of their names.
    pub items: Vec<Object>,
    /// Watch from here to see what happens after this page was read.
    pub resource_version: u64,
    /// There are more: ask again with [`ListQuery::after`] set to this.
    pub next: Option<String>,
}

/// Which changes to watch.
#[derive(Debug, Clone)]
pub struct WatchQuery {
    /// Of this kind; `None`: of all.
    pub kind: Option<Kind>,
    /// With these labels. A resource that comes to have them is seen as added, one that has them no longer as deleted.
    pub selector: Selector,
    /// Whose names begin so.
    pub name_prefix: String,
    /// Only changes after this resourceVersion.
    pub from: u64,
}

impl WatchQuery {
    /// Everything of a kind after `from`.
    pub fn kind(kind: Kind, from: u64) -> WatchQuery {
        WatchQuery { kind: Some(kind), selector: Selector::default(), name_prefix: String::new(), from }
    }

    /// Everything after `from`.
    pub fn all(from: u64) -> WatchQuery {
        WatchQuery { kind: None, selector: Selector::default(), name_prefix: String::new(), from }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub enum WatchEvent {
    /// Created.
    Added(Object),
    /// Spec, metadata or status changed.
    Modified(Object),
    /// Deleted; as it last was, with the resourceVersion of the deletion. Or changed so that the watch's selector
    /// matches it no longer; then as it is now.
    Deleted(Object),
    /// Nothing else happened up to this resourceVersion.
    Bookmark(u64),
}

/// Changes as they happen; ends after an error.
pub type WatchStream = BoxStream<'static, Result<WatchEvent>>;
