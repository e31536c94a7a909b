//! Filter chains: the one filter that serves what is for this proxy, and what is passed on as it is beside it.

use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener as Proto};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use envoy_types::pb::google::protobuf::Any;
use weir_config::{ListenerTls, ServerNames, TlsMode};

use super::error::{ConvertError, Result, Under, refuse};
use super::{decode, tls};

pub(super) const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// What Envoy's HTTP inspector tells HTTP by; this proxy always looks for it.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// All chains of a listener.
#[derive(Debug, Default)]
pub(super) struct Chains<'a> {
    /// The filter that serves, and where it is.
    pub(super) filter: Option<(&'a Any, String)>,
    pub(super) tls: Option<ListenerTls>,
    pub(super) server_names: Vec<ServerNames>,
    /// Cluster of the chain for what is no HTTP.
    pub(super) tcp_cluster: Option<String>,
}

/// One chain that serves by what a connection speaks.
#[derive(Debug)]
struct Serving<'a> {
    chain: &'a FilterChain,
    filter: &'a Any,
    field: String,
    /// Only for HTTP.
    http: bool,
}

pub(super) fn chains(proto: &Proto) -> Result<Chains<'_>> {
    let numbered =
        proto.filter_chains.iter().enumerate().map(|(index, chain)| (chain, format!("filter_chains[{index}]")));
    let default = proto.default_filter_chain.iter().map(|chain| (chain, "default_filter_chain".to_owned()));
    let (mut all, mut secure, mut plain) = (Chains::default(), Vec::new(), Vec::new());
    for (chain, field) in numbered.chain(default) {
        let is_tls = tls::is_tls(chain.transport_socket.as_ref()).under(&field)?;
        let filter = one_filter(chain).under(&field)?;
        let matches = chain.filter_chain_match.clone().unwrap_or_default();
        if !matches.server_names.is_empty() {
            all.server_names.push(named(filter, is_tls, matches).under(&field)?);
            continue;
        }
        let http = told(matches, is_tls).under(&field)?;
        let serving = Serving { chain, filter, field, http };
        if is_tls { secure.push(serving) } else { plain.push(serving) }
    }
    all.tcp_cluster = take_tcp(&mut plain)?;
    serve(&mut all, secure, plain)?;
    Ok(all)
}

/// The one filter that serves, and how its connections are secured. There may be two chains with it: one for connections
/// with TLS, one for others.
fn serve<'a>(all: &mut Chains<'a>, secure: Vec<Serving<'a>>, plain: Vec<Serving<'a>>) -> Result<()> {
    let (secure, plain) = match (secure.as_slice(), plain.as_slice()) {
        ([], []) if !all.server_names.is_empty() => return Ok(()),
        ([], []) => return Err(ConvertError::at("filter_chains", "is empty")),
        ([], [only]) => {
            all.filter = Some((only.filter, format!("{}.filters[0]", only.field)));
            return Ok(());
        }
        ([secure], []) => (secure, None),
        ([secure], [plain]) if secure.filter == plain.filter => (secure, Some(plain)),
        _ => {
            let message = "has several chains; this proxy supports one, or one with TLS beside one without that has the same \
                           filter, and beside those chains for server_names and one for what is no HTTP";
            return Err(ConvertError::at("filter_chains", message));
        }
    };
    let mode = if plain.is_some() { TlsMode::Permissive } else { TlsMode::Strict };
    let tls = secure.chain.transport_socket.as_ref().map(|socket| tls::listener(socket, mode));
    all.tls = tls.transpose().under(format!("{}.transport_socket", secure.field))?;
    all.filter = Some((secure.filter, format!("{}.filters[0]", secure.field)));
    Ok(())
}

/// TLS for these servers, which goes on as it is.
fn named(filter: &Any, is_tls: bool, matches: FilterChainMatch) -> Result<ServerNames> {
    refuse(is_tls, "transport_socket beside filter_chain_match.server_names")?;
    let names = matches.server_names.clone();
    let rest = FilterChainMatch { server_names: Vec::new(), ..matches };
    told(rest, true)?;
    if filter.type_url != TCP_PROXY {
        let message = "must be a tcp_proxy where filter_chain_match.server_names is set: the bytes are encrypted";
        return Err(ConvertError::at("filters[0]", message));
    }
    Ok(ServerNames { names, cluster: tcp_cluster(&decode(filter)?).under("filters[0]")? })
}

/// Whether a chain is only for HTTP. What else it may be told by is not supported.
fn told(matches: FilterChainMatch, is_tls: bool) -> Result<bool> {
    let protocol = if is_tls { "tls" } else { "raw_buffer" };
    let tells = matches.transport_protocol.is_empty() || matches.transport_protocol == protocol;
    let http = !is_tls && !matches.application_protocols.is_empty();
    let http = http && matches.application_protocols.iter().all(|name| HTTP.contains(&name.as_str()));
    let mut rest = FilterChainMatch { transport_protocol: String::new(), ..matches };
    if http {
        rest.application_protocols.clear();
    }
    refuse(!tells || rest != FilterChainMatch::default(), "filter_chain_match")?;
    Ok(http)
}

/// Takes out the chain for what is no HTTP, if there is one beside a chain for HTTP.
fn take_tcp(plain: &mut Vec<Serving<'_>>) -> Result<Option<String>> {
    let rest = plain.iter().position(|serving| !serving.http && serving.filter.type_url == TCP_PROXY);
    let Some(rest) = rest.filter(|_| plain.iter().any(|serving| serving.http)) else { return Ok(None) };
    let rest = plain.remove(rest);
    let cluster = decode(rest.filter).and_then(|tcp: TcpProxy| tcp_cluster(&tcp));
    cluster.under(format!("{}.filters[0]", rest.field)).map(Some)
}

/// The cluster that gets the bytes.
pub(super) fn tcp_cluster(tcp: &TcpProxy) -> Result<String> {
    refuse(tcp.tunneling_config.is_some(), "tunneling_config")?;
    refuse(tcp.metadata_match.is_some(), "metadata_match")?;
    match &tcp.cluster_specifier {
        Some(ClusterSpecifier::Cluster(cluster)) => Ok(cluster.clone()),
        _ => Err(ConvertError::at("cluster", "is absent; weighted_clusters is not supported by this proxy")),
    }
}

fn one_filter(chain: &FilterChain) -> Result<&Any> {
    let [filter] = chain.filters.as_slice() else {
        return Err(ConvertError::at(
            "filters",
            format!("has {} filters; this proxy supports one", chain.filters.len()),
        ));
    };
    typed(filter).under("filters[0]")
}

fn typed(filter: &Filter) -> Result<&Any> {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => Ok(any),
        Some(ConfigType::ConfigDiscovery(_)) => Err(ConvertError::unsupported("config_discovery")),
        None => Err(ConvertError::at("typed_config", "is absent")),
    }
}
