//! What `/readyz` asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::timeout;
use weir_api::Probe;
use weir_model::{Key, Kind};
use weir_reconcile::Stats;
use weir_store::SharedStore;

use crate::Base;
use crate::controllers::Loops;

/// A store that takes longer is as good as none.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// The store answers, and the controllers run.
pub(crate) fn all(base: &Base, loops: &Loops) -> Vec<Arc<dyn Probe>> {
    let mut probes: Vec<Arc<dyn Probe>> = vec![Arc::new(StoreProbe(base.store.clone()))];
    for (name, stats) in loops {
        probes.push(Arc::new(LoopProbe { name: format!("controller/{name}"), stats: stats.clone() }));
    }
    probes
}

struct StoreProbe(SharedStore);

#[async_trait]
impl Probe for StoreProbe {
    fn name(&self) -> &str {
        "store"
    }

    async fn probe(&self) -> Result<String, String> {
        let start = Instant::now();
        let key = Key::new(Kind::Token, "admin");
        match timeout(STORE_PATIENCE, self.0.get(&key)).await {
            Ok(Ok(_)) => Ok(format!("answers in {:.1} ms", start.elapsed().as_secs_f64() * 1e3)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {STORE_PATIENCE:?}")),
        }
    }
}

struct LoopProbe {
    name: String,
    stats: Arc<Stats>,
}

#[async_trait]
impl Probe for LoopProbe {
    fn name(&self) -> &str {
        &self.name
    }

    /// A replica that does not lead is ready too.
    async fn probe(&self) -> Result<String, String> {
        let totals = self.stats.totals();
        let role = if totals.leading { "leads" } else { "stands by, another replica leads" };
        Ok(format!("{role}; {} runs, {} failures, {} wait", totals.runs, totals.failures, totals.waiting))
    }
}
