//! What the controllers ask of whatever runs processes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use weir_model::instance::{InstanceSpec, Upstream};
use weir_model::release::ReleaseSpec;

use crate::supervisor::Status;

/// A program to run: a proxy's release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Release it runs as.
    pub version: String,
    /// Path of the executable.
    pub path: String,
    /// What the executable must hash to (SHA-256, hex), where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Further arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Further environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl From<&ReleaseSpec> for Artifact {
    fn from(release: &ReleaseSpec) -> Artifact {
        Artifact {
            version: release.version.clone(),
            path: release.path.clone(),
            sha256: release.sha256.clone(),
            args: release.args.clone(),
            env: release.env.clone(),
        }
    }
}

/// Where an instance lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where callers reach it.
    pub address: IpAddr,
    /// Port of the proxy's inbound listener.
    pub port: u16,
    /// Where its application is to listen, if it has one.
    pub application: SocketAddr,
    /// Where it reaches what it calls.
    pub upstreams: Vec<Upstream>,
}

/// An instance to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Its name.
    pub name: String,
    /// What it is to be.
    pub spec: InstanceSpec,
    /// Program and arguments, placeholders replaced; empty: none.
    pub command: Vec<String>,
    /// Environment of the program.
    pub env: BTreeMap<String, String>,
    /// Its first proxy.
    pub proxy: Artifact,
}

/// Why a provider could not do it. The same call may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The artifact is not what its Release says.
    #[error("release {version}: {reason}")]
    Artifact {
        /// The release.
        version: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The instance did not come up.
    #[error("instance {name} did not start: {reason}")]
    Start {
        /// The instance.
        name: String,
        /// Why, as its own log tells.
        reason: String,
    },
    /// It exists but doesn't answer.
    #[error("{0}")]
    Unreachable(String),
    /// No address is left, or the system refuses.
    #[error("{0}")]
    System(String),
}

/// Runs instances. Every call is idempotent: it says what is to be, and may be repeated after any crash.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Finds addresses for an instance that calls `calls`, other than those of `taken`.
    async fn place(&self, name: &str, calls: &[String], taken: &[InstanceSpec]) -> Result<Placement, ProviderError>;

    /// Names of all instances of which anything is there, running or not.
    async fn names(&self) -> Result<Vec<String>, ProviderError>;

    /// What runs of the instance; `None`: nothing does.
    ///
    /// # Errors
    /// [`ProviderError::Unreachable`] if it can't be told.
    async fn observe(&self, name: &str) -> Result<Option<Status>, ProviderError>;

    /// Checks that the artifact is there and is what its Release says.
    async fn verify(&self, proxy: &Artifact) -> Result<(), ProviderError>;

    /// Starts it, after clearing away what an earlier life has left. Returns when it answers [`Provider::observe`].
    async fn start(&self, launch: &Launch) -> Result<(), ProviderError>;

    /// Its proxy finishes what it has and ends; connections wait.
    async fn drain(&self, name: &str) -> Result<(), ProviderError>;

    /// This proxy is to run.
    async fn swap(&self, name: &str, proxy: &Artifact) -> Result<(), ProviderError>;

    /// Proxy and application end, in this order.
    async fn stop(&self, name: &str) -> Result<(), ProviderError>;

    /// Clears away everything that is left of an instance that does not run.
    async fn remove(&self, name: &str) -> Result<(), ProviderError>;
}
