use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use weir_config::{ClusterTls, IdentityMatch, TlsMode};

use super::*;
use crate::fixtures::{
    SECRETS, assignment_with_tls, downstream_tls, roots, switchable_cluster, tls_socket, upstream_tls, with_tls,
    workload,
};

fn cluster(proto: ClusterProto) -> Arc<ClusterResource> {
    match resource(&pack_any(proto)).unwrap().1 {
        Resource::Cluster(cluster) => cluster,
        other => panic!("{other:?}"),
    }
}

fn endpoints(is_ready: bool) -> Vec<bool> {
    match resource(&pack_any(assignment_with_tls("stock", &[("10.0.0.1", 80)], is_ready))).unwrap().1 {
        Resource::Endpoints(assignment) => assignment.endpoints.iter().map(|endpoint| endpoint.tls).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_speaks_tls_to_endpoints_that_are_ready() {
    let read = cluster(switchable_cluster("stock"));
    let expected = ClusterTls {
        sni: "stock".into(),
        certificate: Some(SECRETS[0].into()),
        trust: SECRETS[1].into(),
        identities: vec![IdentityMatch::Prefix("spiffe://weir/app/stock/".into())],
    };
    assert_eq!((read.cluster.tls.clone(), read.tls_endpoints), (Some(expected), TlsEndpoints::Marked));
    assert_eq!((endpoints(true), endpoints(false)), (vec![true], vec![false]));
}

#[test]
fn one_transport_socket_is_for_all_endpoints() {
    let socket = tls_socket(pack_any(upstream_tls("stock", "spiffe://weir/app/stock/")));
    let read = cluster(ClusterProto { transport_socket: Some(socket), ..eds_cluster("stock") });
    assert_eq!(read.tls_endpoints, TlsEndpoints::All);
}

#[test]
fn a_listener_with_both_chains_takes_both() {
    let tls = |plaintext| read_listener(with_tls(listener("l", 80, "r"), plaintext)).listener.tls.clone().unwrap();
    assert_eq!((tls(true).mode, tls(false).mode), (TlsMode::Permissive, TlsMode::Strict));
    let tls = tls(true);
    assert_eq!((tls.certificate.as_str(), tls.trust.as_deref()), (SECRETS[0], Some(SECRETS[1])));
}

#[test]
fn chains_that_serve_differently_are_refused() {
    let mut proto = with_tls(listener("l", 80, "r"), true);
    proto.filter_chains[1] = listener("l", 80, "other").filter_chains.remove(0);
    assert!(refused(proto).contains("the same filter"));
}

/// What is said of a cluster whose context was changed so.
fn refused_context(change: impl FnOnce(&mut UpstreamTlsContext, &mut CommonTlsContext)) -> String {
    let mut context = upstream_tls("stock", "spiffe://weir/app/stock/");
    let mut common = context.common_tls_context.take().unwrap();
    change(&mut context, &mut common);
    context.common_tls_context = Some(common);
    refused(ClusterProto { transport_socket: Some(tls_socket(pack_any(context))), ..eds_cluster("stock") })
}

#[test]
fn whatever_would_weaken_the_check_of_a_peer_is_refused() {
    let words = refused_context(|_, common| common.validation_context_type = None);
    assert!(words.contains("a server must be verified"), "{words}");
    let words = refused_context(|_, common| {
        let Some(ValidationContextType::CombinedValidationContext(combined)) = &mut common.validation_context_type
        else {
            panic!()
        };
        combined.default_validation_context.as_mut().unwrap().trust_chain_verification = 1;
    });
    assert!(words.contains("ACCEPT_UNTRUSTED"), "{words}");
    let words = refused_context(|_, common| common.tls_certificates.push(Default::default()));
    assert!(words.contains("only by SDS"), "{words}");
    let mut context = downstream_tls();
    context.require_client_certificate = None;
    let mut proto: ListenerProto = listener("l", 80, "r");
    proto.filter_chains[0].transport_socket = Some(tls_socket(pack_any(context)));
    let words = refused(proto);
    assert!(words.contains("require_client_certificate: must be true"), "{words}");
}

#[test]
fn secrets_are_read_and_never_shown() {
    for proto in [workload("chain", "s3cret"), roots("s3cret")] {
        let (name, read) = resource(&pack_any(proto)).unwrap();
        assert!(SECRETS.contains(&name.as_str()));
        assert!(!format!("{read:?}").contains("s3cret") && !format!("{read:?}").contains("115, 51"), "{read:?}");
    }
}
