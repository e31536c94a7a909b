//! Which listener serves a connection that was going elsewhere and was turned round to the proxy.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_config::{Cluster, Direction, Endpoint, Listener, ProxyConfig, RouteAction, RouteTable};

/// Label of an endpoint: the port of the application behind it.
const APP_PORT: &str = "appPort";

/// Places of listeners by what they stand for. Empty unless some listener takes such connections.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    /// By the address a listener is bound to, which may be every address with some port.
    bound: HashMap<(Direction, SocketAddr), usize>,
    /// By the endpoints that a listener leads to. Only outbound: what is inbound is going here.
    endpoints: HashMap<SocketAddr, usize>,
}

impl Destinations {
    pub(super) fn compile(config: &ProxyConfig) -> Self {
        let mut all = Destinations::default();
        if !config.listeners.iter().any(|listener| listener.original_destination) {
            return all;
        }
        let tables: HashMap<&str, &RouteTable> =
            config.route_tables.iter().map(|table| (table.name.as_str(), table)).collect();
        let clusters: HashMap<&str, &Cluster> =
            config.clusters.iter().map(|cluster| (cluster.name.as_str(), cluster)).collect();
        let others = config.listeners.iter().enumerate().filter(|(_, listener)| !listener.original_destination);
        for (place, listener) in others {
            all.bound.insert((listener.direction, listener.bind), place);
            if listener.direction == Direction::Outbound {
                let led_to = clusters_of(listener, &tables).into_iter().filter_map(|name| clusters.get(name));
                for endpoint in led_to.flat_map(|cluster| &cluster.endpoints) {
                    for address in std::iter::once(endpoint.address).chain(behind(endpoint)) {
                        all.endpoints.entry(address).or_insert(place);
                    }
                }
            }
        }
        all
    }

    /// The place of the listener that is bound there, to every address with that port, or leads there.
    pub(crate) fn find(&self, direction: Direction, destination: SocketAddr) -> Option<usize> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bound = |address| self.bound.get(&(direction, address));
        let found = bound(destination).or_else(|| bound(SocketAddr::new(any, destination.port())));
        let outbound = direction == Direction::Outbound;
        found.or_else(|| self.endpoints.get(&destination).filter(|_| outbound)).copied()
    }
}

/// Where the application is called that an endpoint is the proxy of: by those who know nothing of the proxy.
fn behind(endpoint: &Endpoint) -> Option<SocketAddr> {
    let port = endpoint.labels.get(APP_PORT)?.parse().ok()?;
    Some(SocketAddr::new(endpoint.address.ip(), port))
}

fn clusters_of<'a>(listener: &'a Listener, tables: &HashMap<&str, &'a RouteTable>) -> Vec<&'a str> {
    let table = tables.get(listener.routes.as_str());
    let routes = table.into_iter().flat_map(|table| &table.hosts).flat_map(|host| &host.routes);
    let forwards = routes.filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(forward),
        RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
    });
    let by_route = forwards.flat_map(|forward| forward.clusters.iter().map(|target| target.cluster.as_str()));
    by_route.chain(listener.passes_to()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
listeners:
- {name: all, bind: '127.0.0.1:15001', protocol: Tcp, routes: passthrough, originalDestination: true}
- {name: stock, bind: '127.0.0.1:8001', routes: stock}
- {name: db, bind: '0.0.0.0:3306', protocol: Tcp, routes: db, bindToPort: false}
- {name: app, bind: '0.0.0.0:80', direction: Inbound, routes: stock, bindToPort: false}
routeTables:
- name: stock
  hosts: [{name: any, domains: ['*'], routes: [{action: {forward: {clusters: [{cluster: stock}]}}}]}]
clusters:
- {name: passthrough, originalDestination: true}
- {name: stock, endpoints: [{address: '10.0.0.1:80'}, {address: '[fd00::1]:80', labels: {appPort: '8080'}}]}
- {name: db, endpoints: [{address: '10.0.0.9:3306'}]}
";

    #[test]
    fn a_destination_is_served_by_who_is_bound_or_leads_there() {
        let config = weir_config::from_yaml(CONFIG).unwrap();
        let all = Destinations::compile(&config);
        let find = |direction, to: &str| {
            all.find(direction, to.parse().unwrap()).map(|place| config.listeners[place].name.as_str())
        };
        for (destination, listener) in [
            ("127.0.0.1:8001", Some("stock")),
            ("10.0.0.1:80", Some("stock")),
            ("[fd00::1]:80", Some("stock")),
            ("10.0.0.7:3306", Some("db")),
            ("[fd00::1]:8080", Some("stock")),
            ("[fd00::1]:3306", None),
            ("10.0.0.2:80", None),
            ("127.0.0.1:15001", None),
        ] {
            assert_eq!(find(Direction::Outbound, destination), listener, "{destination}");
        }
        assert_eq!(find(Direction::Inbound, "10.0.0.2:80"), Some("app"));
        assert_eq!(find(Direction::Inbound, "10.0.0.1:3306"), None);
    }

    #[test]
    fn nothing_is_kept_where_nobody_asks() {
        let config = weir_config::from_yaml(
            &CONFIG.replace(", originalDestination: true}\n- {name: stock, b", "}\n- {name: stock, b"),
        );
        let all = Destinations::compile(&config.unwrap());
        assert!(all.bound.is_empty() && all.endpoints.is_empty());
    }
}
