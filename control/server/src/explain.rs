//! Each domain's explanations.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_api::Explain;
use weir_model::Kind;

/// Explanations by kind.
pub(crate) fn domains() -> BTreeMap<Kind, Arc<dyn Explain>> {
    BTreeMap::new()
}
