//! Which cluster gets the bytes of a connection that is passed on as it is.

use weir_config::{Listener, ListenerProtocol};

use super::Index;
use super::hosts::Hosts;

/// What a listener passes on, compiled.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    names: Option<Hosts>,
    /// Places of the clusters in the snapshot: those of server names, then the one for everything else.
    clusters: Vec<usize>,
    rest: Option<usize>,
}

/// A way that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Its place among the listener's, where its connections are counted.
    pub(crate) place: usize,
    /// Place of the cluster in the snapshot.
    pub(crate) cluster: usize,
}

impl Passing {
    pub(super) fn compile(listener: &Listener, clusters: &Index<'_>) -> Self {
        let mut passing = Passing::default();
        for (place, entry) in listener.server_names.iter().enumerate() {
            let names = passing.names.get_or_insert_default();
            entry.names.iter().for_each(|name| names.insert(name, place));
            passing.clusters.push(clusters[entry.cluster.as_str()]);
        }
        let rest = match listener.protocol {
            ListenerProtocol::Tcp => Some(listener.routes.as_str()).filter(|name| !name.is_empty()),
            _ => listener.tcp_cluster.as_deref(),
        };
        if let Some(rest) = rest {
            passing.rest = Some(passing.clusters.len());
            passing.clusters.push(clusters[rest]);
        }
        passing
    }

    /// Different ways there are.
    pub(crate) fn len(&self) -> usize {
        self.clusters.len()
    }

    /// Whether any connection is told by the server it asks for.
    pub(crate) fn looks_at_names(&self) -> bool {
        self.names.is_some()
    }

    /// The way of a TLS connection that asks for this server.
    pub(crate) fn by_name(&self, name: Option<&str>) -> Option<Passage> {
        self.at(self.names.as_ref()?.find(name?)?)
    }

    /// The way of every other connection that is passed on.
    pub(crate) fn rest(&self) -> Option<Passage> {
        self.at(self.rest?)
    }

    fn at(&self, place: usize) -> Option<Passage> {
        Some(Passage { place, cluster: self.clusters[place] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_decides_and_the_rest_has_a_way_of_its_own() {
        let text = "
listeners:
- {name: l, bind: '127.0.0.1:1', protocol: Tcp, routes: rest, serverNames: [{names: ['*.b.c', x.y], cluster: one}, {names: [a.b.c], cluster: two}]}
clusters: [{name: rest}, {name: one}, {name: two}]";
        let config = weir_config::from_yaml(text).unwrap();
        let index = super::super::index(config.clusters.iter().map(|cluster| cluster.name.as_str()));
        let passing = Passing::compile(&config.listeners[0], &index);
        let cluster = |name| passing.by_name(Some(name)).map(|passage| passage.cluster);
        assert_eq!((cluster("a.b.c"), cluster("z.b.c"), cluster("x.y")), (Some(2), Some(1), Some(1)));
        assert_eq!((cluster("b.c"), passing.by_name(None)), (None, None));
        assert_eq!(passing.rest(), Some(Passage { place: 2, cluster: 0 }));
    }
}
