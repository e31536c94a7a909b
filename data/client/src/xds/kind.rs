//! The five resource types, in the order in which they are asked for: what is referred to comes first.

use crate::convert;

/// A type of xDS resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SDS.
    Secret,
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] = [Kind::Secret, Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes];

    /// As it stands in requests and responses.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Secret => convert::SECRET,
            Kind::Cluster => convert::CLUSTER,
            Kind::Endpoints => convert::ENDPOINTS,
            Kind::Listener => convert::LISTENER,
            Kind::Routes => convert::ROUTES,
        }
    }

    pub(crate) fn from_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// True if all that the control plane has for this proxy is wanted; false if names are asked for.
    pub(crate) fn is_wildcard(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }

    /// What people call one of them.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Cluster => "cluster",
            Kind::Endpoints => "endpoints of",
            Kind::Listener => "listener",
            Kind::Routes => "routes",
        }
    }
}
