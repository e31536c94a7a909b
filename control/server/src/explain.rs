//! Each domain's explanations.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_api::Explain;
use weir_model::{Encryption, Kind, Object};
use weir_store::observed::Observed;
use weir_store::{Error, Result, SharedStore};

/// Explanations by kind.
pub(crate) fn domains() -> BTreeMap<Kind, Arc<dyn Explain>> {
    let change: Arc<dyn Explain> = Arc::new(Changes);
    let encryption: Arc<dyn Explain> = Arc::new(Encryptions);
    BTreeMap::from([(Kind::Change, change), (Kind::Encryption, encryption)])
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

/// Who can, who can't, and who speaks what to whom.
struct Encryptions;

#[async_trait]
impl Explain for Encryptions {
    async fn explain(&self, object: &Object, _: &SharedStore, observed: &Observed, _: Timestamp) -> Result<String> {
        let encryption = Encryption::try_from(object.clone())?;
        Ok(weir_xds::explain(&encryption, &observed.telemetry.latest()))
    }
}
