//! A configuration, compiled once and shared by all workers; never changed afterwards.

use std::sync::Arc;

use weir_config::{ConfigError, ProxyConfig};

/// Why a configuration was not accepted: every problem that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} problem(s): {}", .problems.len(), join(.problems))]
pub struct SnapshotError {
    /// What is wrong and where.
    pub problems: Vec<ConfigError>,
}

fn join(problems: &[ConfigError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A valid configuration in the shape that serving needs.
#[derive(Debug)]
pub struct Snapshot {
    config: ProxyConfig,
}

impl Snapshot {
    /// Validates and compiles.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is applied then.
    pub fn compile(config: ProxyConfig) -> Result<Arc<Snapshot>, SnapshotError> {
        weir_config::validate(&config).map_err(|problems| SnapshotError { problems })?;
        Ok(Arc::new(Snapshot { config }))
    }

    /// A configuration without a listener: what a proxy starts with that gets its own from the control plane.
    pub fn empty() -> Arc<Snapshot> {
        Arc::new(Snapshot { config: ProxyConfig::default() })
    }

    /// What it was compiled from.
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }
}
