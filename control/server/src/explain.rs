//! Each domain's explanations.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_api::Explain;
use weir_model::{Kind, Object};
use weir_store::observed::Observed;
use weir_store::{Error, Result, SharedStore};

/// Explanations by kind.
pub(crate) fn domains() -> BTreeMap<Kind, Arc<dyn Explain>> {
    let change: Arc<dyn Explain> = Arc::new(Changes);
    BTreeMap::from([(Kind::Change, change)])
}

/// In the words of the change engine.
struct Changes;

#[async_trait]
impl Explain for Changes {
    async fn explain(&self, object: &Object, store: &SharedStore, _: &Observed, now: Timestamp) -> Result<String> {
        let told = weir_change::explain::explain_stored(&**store, &object.metadata.name, now).await?;
        told.ok_or_else(|| Error::NotFound(object.key()))
    }
}
