//! Who is at the other end of a stream, and which resources are meant for it.
//!
//! A sidecar says in its node metadata, under `weir`, where it stands:
//! `{app, unit, address, port, appPort, upstreams: [{app, listen}], tls}`; `appAddress` too where the application is not on
//! 127.0.0.1, and `interceptInbound`, `interceptOutbound` (addresses) where connections are turned round to it. Its wildcard subscriptions are then answered with its own listeners and the clusters its routes lead to.
//! A node without that metadata whose id is the name of an Instance gets what the Instance's spec says.
//!
//! Any other node is a client or a gateway with listeners of its own (a plain Envoy, a gRPC program): its wildcard LDS
//! is empty, its wildcard CDS holds every app's clusters, and by name it is given any app's `xds:///APP` listener,
//! `outbound|APP` routes, clusters and endpoints.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::google::protobuf::{ListValue, Struct, value::Kind};
use weir_model::InstanceSpec;

use crate::build;
use crate::build::listener::{Serves, Takes};
use crate::names;
use crate::resource::{Resource, Type};
use crate::world::World;

/// Most upstreams one sidecar may declare.
const MAX_UPSTREAMS: usize = 1000;
/// Longest node id, cluster or agent name taken; the rest is cut off.
const MAX_TEXT: usize = 256;

/// A client of the xDS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Node id; for a sidecar its instance's name.
    pub id: String,
    /// Node cluster: its app.
    pub app: String,
    /// Its unit.
    pub unit: String,
    /// What it says it is.
    pub agent: String,
    /// It can do TLS, and may be given secrets.
    pub tls: bool,
    /// Where it stands, if it is a sidecar.
    pub sidecar: Option<Sidecar>,
}

/// A proxy beside an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Where its inbound listener binds.
    pub inbound: Option<SocketAddr>,
    /// Where the application is.
    pub application: SocketAddr,
    /// Apps that the application calls, and where each is offered to it.
    pub upstreams: Vec<(String, SocketAddr)>,
    /// Where connections from other hosts are turned round to.
    pub intercept_inbound: Option<SocketAddr>,
    /// Where connections to other hosts are turned round to.
    pub intercept_outbound: Option<SocketAddr>,
}

impl Node {
    /// Reads what a client says of itself.
    ///
    /// # Errors
    /// In words for the client: which part of `node.metadata.weir` can't be understood.
    pub fn read(node: &core::Node) -> Result<Node, String> {
        let weir = node.metadata.as_ref().and_then(|m| field(m, "weir"));
        let sidecar = match weir {
            Some(Kind::StructValue(weir)) => Some(sidecar(weir).map_err(|e| format!("node.metadata.weir: {e}"))?),
            Some(_) => return Err("node.metadata.weir: is no object".to_owned()),
            None => None,
        };
        let said = |name| weir.and_then(|w| if let Kind::StructValue(s) = w { text(s, name) } else { None });
        let tls = weir.is_some_and(|w| matches!(w, Kind::StructValue(s) if flag(s, "tls")));
        Ok(Node {
            id: cut(&node.id),
            app: cut(said("app").unwrap_or(&node.cluster)),
            unit: cut(said("unit").unwrap_or_default()),
            agent: cut(&agent(node)),
            tls,
            sidecar,
        })
    }

    /// Its app and unit are such as may stand in an identity.
    pub fn has_identity(&self) -> bool {
        names::is_app(&self.app) && (self.unit.is_empty() || names::is_app(&self.unit))
    }

    /// The part of an Instance's spec that its proxy is told by.
    pub fn sidecar_of(spec: &InstanceSpec) -> Sidecar {
        Sidecar {
            inbound: (spec.app_port != 0).then(|| SocketAddr::new(spec.address, spec.port)),
            application: SocketAddr::new(spec.app_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), spec.app_port),
            upstreams: spec.upstreams.iter().map(|u| (u.app.clone(), u.listen)).collect(),
            intercept_inbound: None,
            intercept_outbound: None,
        }
    }

    /// Everything of a type that is meant for this node, in no particular order.
    pub fn roots(&self, world: &World, r#type: Type) -> Vec<Arc<Resource>> {
        match (r#type, &self.sidecar) {
            (Type::Cluster, Some(sidecar)) => self.clusters(sidecar, world),
            (Type::Cluster, None) => {
                world.apps.values().filter(|a| a.exists).flat_map(|a| a.clusters(self.tls)).collect()
            }
            (Type::Listener, Some(sidecar)) => self.listeners(sidecar, world),
            (Type::Listener, None) | (Type::Secret | Type::Endpoints | Type::Route, _) => Vec::new(),
        }
    }

    /// One resource by its name, if there is such a one for this node. Secrets are not of the world: each stream has its
    /// own.
    pub fn named(&self, world: &World, r#type: Type, name: &str) -> Option<Arc<Resource>> {
        match r#type {
            Type::Endpoints => {
                let (app, group) = names::split_cluster(name);
                names::is_app(app).then(|| world.app(app).assignment(group))
            }
            Type::Secret => None,
            Type::Route => self.route(world, name),
            Type::Cluster | Type::Listener => {
                let own = self.own(world, r#type).into_iter().find(|r| *r.name == *name);
                own.or_else(|| self.shared(world, r#type, name))
            }
        }
    }

    /// Apps whose endpoints this node is expected to ask for: those it declares, and those their Routes lead to.
    pub fn calls(&self, world: &World) -> BTreeSet<String> {
        let declared = self.sidecar.iter().flat_map(|s| &s.upstreams).map(|(app, _)| app.as_str());
        calls(world, declared)
    }

    fn route(&self, world: &World, name: &str) -> Option<Arc<Resource>> {
        if let Some(app) = names::outbound_app(name) {
            return names::is_app(app).then(|| Arc::clone(&world.app(app).route));
        }
        let sidecar = self.sidecar.as_ref().filter(|s| name == names::INBOUND && s.inbound.is_some())?;
        let view = world.app(&self.app);
        let refusal = Some(&view.refusal).filter(|refusal| self.tls && refusal.is_partial());
        Some(build::route::inbound(sidecar.application.port(), refusal))
    }

    fn own(&self, world: &World, r#type: Type) -> Vec<Arc<Resource>> {
        if self.sidecar.is_some() { self.roots(world, r#type) } else { Vec::new() }
    }

    fn listeners(&self, sidecar: &Sidecar, world: &World) -> Vec<Arc<Resource>> {
        let serves = |app: &str| {
            let view = world.app(app);
            Serves { protocol: view.spec.protocol, drain_ms: view.drain_ms }
        };
        let (to, takes) = (sidecar.application.port(), self.takes(world));
        let inbound = sidecar.inbound.map(|bind| build::listener::inbound(bind, to, serves(&self.app), takes));
        let outbound = sidecar.upstreams.iter().map(|(app, bind)| build::listener::outbound(app, *bind, serves(app)));
        let intercepting = Self::intercepting(sidecar, serves(&self.app), takes);
        inbound.into_iter().chain(outbound).chain(intercepting).collect()
    }

    /// Listeners for connections that are turned round to the proxy.
    fn intercepting(sidecar: &Sidecar, serves: Serves, takes: Takes) -> Vec<Arc<Resource>> {
        let (inbound, outbound, port) =
            (sidecar.intercept_inbound, sidecar.intercept_outbound, sidecar.application.port());
        let own = inbound.and(sidecar.inbound).filter(|own| own.port() != port);
        let application = own.map(|own| build::listener::application(own.ip(), port, serves, takes));
        let one = |name, bind, direction| build::listener::intercepted(name, bind, direction, serves.drain_ms);
        let inbound = inbound.map(|bind| one(names::INTERCEPTED_INBOUND, bind, TrafficDirection::Inbound));
        let outbound = outbound.map(|bind| one(names::INTERCEPTED_OUTBOUND, bind, TrafficDirection::Outbound));
        [inbound, outbound, application].into_iter().flatten().collect()
    }

    /// What it is to take from callers: TLS whenever it can, so that no switch of its app races with callers; plaintext
    /// unless that is refused.
    fn takes(&self, world: &World) -> Takes {
        match (self.tls, world.app(&self.app).refusal.is_whole()) {
            (false, _) => Takes::Plaintext,
            (true, true) => Takes::Tls,
            (true, false) => Takes::Both,
        }
    }

    fn shared(&self, world: &World, r#type: Type, name: &str) -> Option<Arc<Resource>> {
        let (app, group) = names::split_cluster(name);
        let view = world.apps.get(app).filter(|view| view.exists)?;
        match r#type {
            Type::Cluster => Some(view.cluster(group, self.tls)),
            Type::Listener => group.is_empty().then(|| Arc::clone(&view.api)),
            Type::Secret | Type::Endpoints | Type::Route => None,
        }
    }

    fn clusters(&self, sidecar: &Sidecar, world: &World) -> Vec<Arc<Resource>> {
        let protocol = || world.app(&self.app).spec.protocol;
        let application = sidecar.application;
        let local = sidecar.inbound.map(|_| build::cluster::local(application.ip(), application.port(), protocol()));
        let used: BTreeSet<String> =
            sidecar.upstreams.iter().flat_map(|(app, _)| world.app(app).used.clone()).collect();
        let shared = used.iter().map(|name| {
            let (app, group) = names::split_cluster(name);
            world.app(app).cluster(group, self.tls)
        });
        let intercepts = sidecar.intercept_inbound.or(sidecar.intercept_outbound);
        let passthrough = intercepts.map(|_| build::cluster::passthrough());
        local.into_iter().chain(shared).chain(passthrough).collect()
    }
}

/// The apps that calls of `declared` may end at.
pub fn calls<'a>(world: &World, declared: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let used = |app: &str| world.app(app).used.iter().map(|c| names::split_cluster(c).0.to_owned()).collect::<Vec<_>>();
    declared.into_iter().flat_map(used).collect()
}

fn sidecar(weir: &Struct) -> Result<Sidecar, String> {
    let port = port(weir, "port")?;
    let app_port = self::port(weir, "appPort")?;
    let ip = |name: &str, default: Ipv4Addr| match text(weir, name) {
        None => Ok(IpAddr::V4(default)),
        Some(t) => t.parse().map_err(|_| format!("{name}: {t:?} is no IP address")),
    };
    let address = ip("address", Ipv4Addr::LOCALHOST)?;
    let application = SocketAddr::new(ip("appAddress", Ipv4Addr::LOCALHOST)?, app_port);
    let inbound = (app_port != 0 && port != 0).then(|| SocketAddr::new(address, port));
    Ok(Sidecar {
        inbound,
        application,
        upstreams: upstreams(weir)?,
        intercept_inbound: socket(weir, "interceptInbound")?,
        intercept_outbound: socket(weir, "interceptOutbound")?,
    })
}

fn upstreams(weir: &Struct) -> Result<Vec<(String, SocketAddr)>, String> {
    let list = match field(weir, "upstreams") {
        None => return Ok(Vec::new()),
        Some(Kind::ListValue(ListValue { values })) => values,
        Some(_) => return Err("upstreams: is no list".to_owned()),
    };
    if list.len() > MAX_UPSTREAMS {
        return Err(format!("upstreams: {} are declared, at most {MAX_UPSTREAMS} are allowed", list.len()));
    }
    let mut upstreams = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let Some(Kind::StructValue(upstream)) = &value.kind else {
            return Err(format!("upstreams[{index}]: is no object"));
        };
        upstreams.push(self::upstream(upstream).map_err(|e| format!("upstreams[{index}].{e}"))?);
    }
    Ok(upstreams)
}

fn upstream(upstream: &Struct) -> Result<(String, SocketAddr), String> {
    let app = text(upstream, "app").filter(|app| names::is_app(app)).ok_or("app: is missing or no app's name")?;
    let listen = text(upstream, "listen").ok_or("listen: is missing")?;
    let listen = listen.parse().map_err(|_| format!("listen: {listen:?} is no address like 127.0.0.1:15001"))?;
    Ok((app.to_owned(), listen))
}

fn socket(weir: &Struct, name: &str) -> Result<Option<SocketAddr>, String> {
    let parse = |t: &str| t.parse().map_err(|_| format!("{name}: {t:?} is no address like 0.0.0.0:15001"));
    text(weir, name).map(parse).transpose()
}

/// A port as a number, or as text, since some bootstrap tools quote everything.
fn port(weir: &Struct, name: &str) -> Result<u16, String> {
    let wrong = || format!("{name}: must be a whole number from 0 to 65535");
    match field(weir, name) {
        None => Ok(0),
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && (0.0..=65535.0).contains(n) => Ok(*n as u16),
        Some(Kind::StringValue(s)) => s.parse().map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}

/// A yes, also as text, like [`port`].
fn flag(weir: &Struct, name: &str) -> bool {
    match field(weir, name) {
        Some(Kind::BoolValue(yes)) => *yes,
        Some(Kind::StringValue(text)) => text == "true",
        _ => false,
    }
}

fn field<'a>(of: &'a Struct, name: &str) -> Option<&'a Kind> {
    of.fields.get(name).and_then(|v| v.kind.as_ref()).filter(|k| !matches!(k, Kind::NullValue(_)))
}

fn text<'a>(of: &'a Struct, name: &str) -> Option<&'a str> {
    match field(of, name) {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn agent(node: &core::Node) -> String {
    use core::node::UserAgentVersionType::{UserAgentBuildVersion, UserAgentVersion};
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersion(version)) => version.clone(),
        Some(UserAgentBuildVersion(build)) => {
            build.version.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)).unwrap_or_default()
        }
        None => String::new(),
    };
    format!("{} {version}", node.user_agent_name).trim().to_owned()
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::google::protobuf::Value;

    use super::*;

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn object(fields: &[(&str, Kind)]) -> Struct {
        let fields: HashMap<_, _> = fields.iter().map(|(name, kind)| (name.to_string(), value(kind.clone()))).collect();
        Struct { fields }
    }

    fn text(text: &str) -> Kind {
        Kind::StringValue(text.to_owned())
    }

    fn wire(weir: Kind) -> core::Node {
        core::Node {
            id: "order-1".into(),
            cluster: "order".into(),
            metadata: Some(object(&[("weir", weir)])),
            ..Default::default()
        }
    }

    fn upstream(app: &str, listen: &str) -> Value {
        value(Kind::StructValue(object(&[("app", text(app)), ("listen", text(listen))])))
    }

    #[test]
    fn a_sidecar_says_where_it_stands() {
        let upstreams = ListValue { values: vec![upstream("stock", "127.0.0.1:15001")] };
        let weir = object(&[
            ("app", text("order")),
            ("address", text("127.0.0.7")),
            ("port", Kind::NumberValue(8000.0)),
            ("appPort", text("9000")),
            ("upstreams", Kind::ListValue(upstreams)),
            ("interceptOutbound", text("0.0.0.0:15001")),
        ]);
        let node = Node::read(&wire(Kind::StructValue(weir))).expect("well-formed");
        let sidecar = node.sidecar.expect("a sidecar");
        assert_eq!((node.id.as_str(), node.app.as_str()), ("order-1", "order"));
        assert_eq!(sidecar.inbound, "127.0.0.7:8000".parse().ok());
        assert_eq!(sidecar.application, "127.0.0.1:9000".parse().expect("an address"));
        assert_eq!(sidecar.upstreams, [("stock".to_owned(), "127.0.0.1:15001".parse().expect("an address"))]);
        assert_eq!((sidecar.intercept_inbound, sidecar.intercept_outbound), (None, "0.0.0.0:15001".parse().ok()));
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let bad = |fields: &[(&str, Kind)]| Node::read(&wire(Kind::StructValue(object(fields)))).expect_err("refused");
        assert_eq!(
            bad(&[("port", Kind::NumberValue(70_000.0))]),
            "node.metadata.weir: port: must be a whole number from 0 to 65535"
        );
        let upstreams = Kind::ListValue(ListValue { values: vec![upstream("stock", "there")] });
        let message = bad(&[("upstreams", upstreams)]);
        assert!(message.starts_with("node.metadata.weir: upstreams[0].listen: \"there\" is no address"), "{message}");
        assert!(Node::read(&wire(Kind::BoolValue(true))).is_err());
    }

    #[test]
    fn a_plain_node_is_a_client() {
        let plain = core::Node { id: "x".repeat(10_000), cluster: "edge".into(), ..Default::default() };
        let node = Node::read(&plain).expect("well-formed");
        assert_eq!((node.app.as_str(), node.sidecar, node.id.len()), ("edge", None, MAX_TEXT));
    }
}
