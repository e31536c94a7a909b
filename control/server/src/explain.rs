//! Each domain's explanations, and the change engine's plans and reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_api::{ChangeDesk, Explain};
use weir_model::{Encryption, Freeze, Kind, Object};
use weir_store::observed::Observed;
use weir_store::{Error, Result, SharedStore};

/// Explanations by kind.
pub(crate) fn domains() -> BTreeMap<Kind, Arc<dyn Explain>> {
    let change: Arc<dyn Explain> = Arc::new(Changes);
    let encryption: Arc<dyn Explain> = Arc::new(Encryptions);
    let freeze: Arc<dyn Explain> = Arc::new(Freezes);
    BTreeMap::from([(Kind::Change, change), (Kind::Encryption, encryption), (Kind::Freeze, freeze)])
}

/// Plans and reports of changes.
pub(crate) fn desk() -> Arc<dyn ChangeDesk> {
    Arc::new(Changes)
}

#[async_trait]
impl ChangeDesk for Changes {
    async fn report(&self, change: &Object, store: &SharedStore) -> Result<Value> {
        let change = weir_model::Change::try_from(change.clone())?;
        let report = weir_change::report::report(&**store, &change).await?;
        let (markdown, status) = (report.markdown(), report.status_text());
        let (diff, verdict) = (report.diff_text(), report.verdict_text());
        Ok(json!({"report": report, "markdown": markdown, "status": status, "diff": diff, "verdict": verdict}))
    }

    async fn plan(&self, change: &Object, store: &SharedStore, now: Timestamp) -> Result<Value> {
        let change = weir_model::Change::try_from(change.clone())?;
        let preview = weir_change::preview::preview(&**store, &change, now).await?;
        Ok(json!({"text": preview.text(), "plan": preview}))
    }
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

/// Whether it holds, and when next.
struct Freezes;

#[async_trait]
impl Explain for Freezes {
    async fn explain(&self, object: &Object, _: &SharedStore, _: &Observed, now: Timestamp) -> Result<String> {
        Ok(weir_change::windows::explain(&Freeze::try_from(object.clone())?, now))
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
