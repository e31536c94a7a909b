//! The kinds of resources and their names.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::nearest;

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A service: what is called by name.
    App,
    /// A deployment unit: a cell of the fleet.
    Unit,
    /// One running copy of an app, with its proxy.
    Instance,
    /// How requests to an app are routed.
    Route,
    /// How many instances of an app run in a unit, and from what.
    Workload,
    /// A protection window: nothing in its scope changes while it is shut.
    Freeze,
    /// An unattended change.
    Change,
    /// How much of a change may happen without a person.
    ChangePolicy,
    /// What a step of a change did; written by the change engine only.
    ChangeRecord,
    /// A version of a component: where its artifact is and what it must hash to.
    Release,
    /// Whether calls of an app are TLS.
    Encryption,
    /// Brings versions from CI through the canary to production.
    ReleaseTrain,
    /// A check of changes of somebody's own.
    Check,
    /// What an app promises its callers.
    Slo,
    /// A login token, stored as a hash.
    Token,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 15] = [
        Kind::App,
        Kind::Unit,
        Kind::Instance,
        Kind::Route,
        Kind::Workload,
        Kind::Freeze,
        Kind::Change,
        Kind::ChangePolicy,
        Kind::ChangeRecord,
        Kind::Release,
        Kind::Encryption,
        Kind::ReleaseTrain,
        Kind::Check,
        Kind::Slo,
        Kind::Token,
    ];

    /// As in `kind:`, e.g. `App`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::App => "App",
            Kind::Unit => "Unit",
            Kind::Instance => "Instance",
            Kind::Route => "Route",
            Kind::Workload => "Workload",
            Kind::Freeze => "Freeze",
            Kind::Change => "Change",
            Kind::ChangePolicy => "ChangePolicy",
            Kind::ChangeRecord => "ChangeRecord",
            Kind::Release => "Release",
            Kind::Encryption => "Encryption",
            Kind::ReleaseTrain => "ReleaseTrain",
            Kind::Check => "Check",
            Kind::Slo => "Slo",
            Kind::Token => "Token",
        }
    }

    /// As in URLs, e.g. `apps`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::App => "apps",
            Kind::Unit => "units",
            Kind::Instance => "instances",
            Kind::Route => "routes",
            Kind::Workload => "workloads",
            Kind::Freeze => "freezes",
            Kind::Change => "changes",
            Kind::ChangePolicy => "changepolicies",
            Kind::ChangeRecord => "changerecords",
            Kind::Release => "releases",
            Kind::Encryption => "encryptions",
            Kind::ReleaseTrain => "releasetrains",
            Kind::Check => "checks",
            Kind::Slo => "slos",
            Kind::Token => "tokens",
        }
    }

    /// Short names for the command line, as kubectl has them.
    pub fn short(self) -> Option<&'static str> {
        match self {
            Kind::Instance => Some("inst"),
            Kind::Workload => Some("wl"),
            Kind::Change => Some("chg"),
            Kind::Release => Some("rel"),
            Kind::Encryption => Some("enc"),
            Kind::ReleaseTrain => Some("train"),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no kind, with the nearest that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {name:?}{}", .nearest.map(|k| format!(", did you mean {k:?}?")).unwrap_or_default())]
pub struct UnknownKind {
    /// What was given.
    pub name: String,
    /// The nearest known name.
    pub nearest: Option<&'static str>,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Accepts the name, the plural and the short name, in any case.
    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        let is = |k: &Kind| {
            lower == k.name().to_ascii_lowercase() || lower == k.plural() || Some(lower.as_str()) == k.short()
        };
        Kind::ALL.into_iter().find(is).ok_or_else(|| UnknownKind {
            name: text.to_owned(),
            nearest: nearest(text, Kind::ALL.iter().map(|k| k.name())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_spelling_is_one_kind() {
        let mut spellings = BTreeSet::new();
        for kind in Kind::ALL {
            let names = [Some(kind.name()), Some(kind.plural()), kind.short()];
            for name in names.into_iter().flatten() {
                assert_eq!(name.parse(), Ok(kind));
                assert_eq!(name.to_ascii_uppercase().parse(), Ok(kind));
                assert!(spellings.insert(name.to_ascii_lowercase()), "{name} is ambiguous");
            }
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name(), "text and JSON agree");
        }
    }

    #[test]
    fn an_unknown_kind_gets_the_nearest() {
        let error = "Instanse".parse::<Kind>().unwrap_err();
        assert_eq!(error.to_string(), "unknown kind \"Instanse\", did you mean \"Instance\"?");
        assert_eq!("zzz".parse::<Kind>().unwrap_err().to_string(), "unknown kind \"zzz\"");
    }
}
