//! What a change does to an instance.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of the instances in scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Warm upgrade of the proxy to a Release's version.
    ProxyUpgrade {
        /// The version wanted.
        version: String,
    },
    /// Another release of an application: each of its instances ends and starts again, while nobody sends it requests.
    AppRelease {
        /// The app; other apps in scope are left alone.
        app: String,
        /// The version of its Release wanted.
        version: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::ProxyUpgrade { version } => write!(f, "proxy {version}"),
            Action::AppRelease { app, version } => write!(f, "app {app} {version}"),
        }
    }
}
