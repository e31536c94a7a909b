//! Names of xDS resources.
//!
//! | type | name | what |
//! |---|---|---|
//! | LDS | `inbound` | traffic to the local application |
//! | LDS | `outbound\|APP` | the local address at which APP is called |
//! | LDS | `intercepted\|inbound`, `intercepted\|outbound` | connections that were turned round to the proxy |
//! | LDS | `inbound\|PORT` | of these, those to the local application; without a socket |
//! | LDS | `APP` | API listener for gRPC's own client, `xds:///APP` |
//! | RDS | `inbound`, `outbound\|APP` | likewise |
//! | SDS | `weir:workload`, `weir:roots` | the node's own certificate and key; what verifies those of others |
//! | CDS | `inbound\|PORT` | the local application |
//! | CDS | `passthrough` | wherever a connection was going |
//! | CDS, EDS | `APP`, `APP\|GROUP` | all instances of APP, or those of one group |

/// Separates the parts; not a legal character of an app's name.
pub const SEPARATOR: char = '|';

/// Name of the inbound listener and its routes.
pub const INBOUND: &str = "inbound";

/// Secret: the node's own certificate and key.
pub const WORKLOAD: &str = "weir:workload";
/// Secret: what verifies the certificates of others.
pub const ROOTS: &str = "weir:roots";

/// Cluster: wherever a connection was going.
pub const PASSTHROUGH: &str = "passthrough";
/// Listener: connections to this host that were turned round.
pub const INTERCEPTED_INBOUND: &str = "intercepted|inbound";
/// Listener: connections from this host that were turned round.
pub const INTERCEPTED_OUTBOUND: &str = "intercepted|outbound";

const OUTBOUND: &str = "outbound|";

/// Listener and routes by which `app` is called.
pub fn outbound(app: &str) -> String {
    format!("{OUTBOUND}{app}")
}

/// Cluster of the local application.
pub fn inbound_cluster(port: u16) -> String {
    format!("{INBOUND}{SEPARATOR}{port}")
}

/// Cluster of `app`, or of one group of it.
pub fn cluster(app: &str, group: &str) -> String {
    if group.is_empty() { app.to_owned() } else { format!("{app}{SEPARATOR}{group}") }
}

/// App and group of a cluster's name.
pub fn split_cluster(name: &str) -> (&str, &str) {
    name.split_once(SEPARATOR).unwrap_or((name, ""))
}

/// The app of a route configuration's name, if it is one by which an app is called.
pub fn outbound_app(name: &str) -> Option<&str> {
    name.strip_prefix(OUTBOUND)
}

/// True if `app` may be the name of an app; anything else is answered as not existing.
pub fn is_app(app: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !app.is_empty() && app.len() <= 253 && app.bytes().all(legal)
}
