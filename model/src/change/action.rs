//! What a change does to an instance.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::publication::{self, ConfigName, ConfigResource};
use super::{ChangeSpec, Scope};
use crate::encryption::EncryptionMode;
use crate::instance::InstanceSpec;
use crate::kind::Kind;
use crate::object::Key;
use crate::validate::Validator;

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
    /// Other configuration: each proxy that it concerns is told first, batch by batch; the store holds it when all have
    /// taken it and none was harmed. A roll-back leaves the store as it is.
    ConfigPublish {
        /// What to call it; proxies that have it are told from the others by it.
        revision: String,
        /// Resources as they are to be.
        #[serde(default)]
        resources: Vec<ConfigResource>,
        /// Resources that are to go.
        #[serde(default)]
        delete: Vec<ConfigName>,
    },
    /// Calls of apps are encrypted, or are not any more: caller by caller as configuration is; then the Encryptions named
    /// after the apps are written, and their own acknowledged steps do the rest.
    EncryptionSwitch {
        /// The apps called.
        apps: Vec<String>,
        /// How far to go.
        mode: EncryptionMode,
    },
}

impl Action {
    /// It lays configuration over what is stored, and nothing is restarted for it.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. })
    }

    /// Resources as a configuration wants them.
    pub fn wanted(&self) -> Cow<'_, [ConfigResource]> {
        match self {
            Action::ConfigPublish { resources, .. } => Cow::Borrowed(resources),
            Action::EncryptionSwitch { apps, mode } => {
                let spec = |app: &String| serde_json::json!({"app": app, "mode": mode});
                let of = |app| ConfigResource { kind: Kind::Encryption, name: String::clone(app), spec: spec(app) };
                apps.iter().map(of).collect()
            }
            Action::ProxyUpgrade { .. } | Action::AppRelease { .. } => Cow::Borrowed(&[]),
        }
    }

    /// Resources that a configuration wants gone.
    pub fn unwanted(&self) -> &[ConfigName] {
        match self {
            Action::ConfigPublish { delete, .. } => delete,
            _ => &[],
        }
    }

    /// The resources that a configuration is about, in the order in which they are written.
    pub fn resources(&self) -> Vec<Key> {
        let wanted = self.wanted();
        wanted.iter().map(ConfigResource::key).chain(self.unwanted().iter().map(ConfigName::key)).collect()
    }

    pub(super) fn validate(&self, v: &mut Validator) {
        match self {
            Action::ProxyUpgrade { version } => v.within("proxyUpgrade", |v| {
                v.require(!version.is_empty(), "version", "must name a proxy Release's version");
            }),
            Action::AppRelease { app, version } => v.within("appRelease", |v| {
                v.name("app", app);
                v.require(!version.is_empty(), "version", "must name a version of a Release of the app");
            }),
            Action::ConfigPublish { revision, resources, delete } => v.within("configPublish", |v| {
                publication::validate_revision(v, revision);
                publication::validate_resources(v, resources, delete);
            }),
            Action::EncryptionSwitch { apps, .. } => v.within("encryptionSwitch", |v| {
                publication::validate_apps(v, apps);
            }),
        }
    }
}

impl ChangeSpec {
    /// The version (of configuration: the revision) that instances in scope are to run.
    pub fn target(&self) -> &str {
        match &self.action {
            Action::ProxyUpgrade { version } | Action::AppRelease { version, .. } => version,
            Action::ConfigPublish { revision, .. } => revision,
            Action::EncryptionSwitch { mode, .. } => mode.name(),
        }
    }

    /// What gets another version, in words.
    pub fn noun(&self) -> String {
        match &self.action {
            Action::ProxyUpgrade { .. } => "proxy".to_owned(),
            Action::AppRelease { app, .. } => format!("app {app}"),
            Action::ConfigPublish { .. } => "configuration".to_owned(),
            Action::EncryptionSwitch { .. } => "encryption".to_owned(),
        }
    }

    /// The version of it that an instance is to run; of configuration, empty: what is stored.
    pub fn wanted_of<'i>(&self, instance: &'i InstanceSpec) -> &'i str {
        match &self.action {
            Action::ProxyUpgrade { .. } => &instance.proxy_version,
            Action::AppRelease { .. } => &instance.app_version,
            Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => &instance.config_revision,
        }
    }

    /// What is stored holds for every proxy, so that a part of them can't have it for good.
    pub(super) fn validate_scope(&self, v: &mut Validator) {
        let narrowed = self.action.is_configuration() && self.scope != Scope::default();
        v.require(
            !narrowed,
            "scope",
            "must be left out: configuration is in the end everybody's that it concerns; the ladder says who has it first",
        );
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::ProxyUpgrade { version } => write!(f, "proxy {version}"),
            Action::AppRelease { app, version } => write!(f, "app {app} {version}"),
            Action::ConfigPublish { revision, .. } => write!(f, "configuration {revision}"),
            Action::EncryptionSwitch { apps, mode } => {
                let more = apps.len().saturating_sub(1);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(f, "encryption of {}{more}: {}", apps.first().map_or("", String::as_str), mode.name())
            }
        }
    }
}
