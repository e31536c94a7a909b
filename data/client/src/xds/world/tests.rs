use envoy_types::pb::envoy::config::cluster::v3::cluster::DiscoveryType;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;

use super::*;
use crate::convert;
use crate::fixtures::{
    SECRETS, assignment, assignment_with_tls, cluster_at, eds_cluster, listener, roots, routes, switchable_cluster,
    with_tls, workload,
};

fn put(world: &mut World, any: Any) {
    let (name, resource) = convert::resource(&any).unwrap();
    let kind = Kind::from_url(&any.type_url).unwrap();
    world.note_received(kind);
    world.put(name, "1".into(), resource);
}

/// One listener to one cluster with one endpoint, all active.
fn serving(now: Instant) -> World {
    let mut world = World::default();
    put(&mut world, pack_any(eds_cluster("a")));
    put(&mut world, pack_any(assignment("a", &[("10.0.0.1", 80)])));
    put(&mut world, pack_any(listener("l", 80, "r")));
    put(&mut world, pack_any(routes("r", "a")));
    world.settle(now);
    assert!(world.is_complete());
    world
}

fn target(world: &World) -> Vec<String> {
    let config = world.config();
    weir_config::validate(&config).unwrap();
    config.clusters.iter().flat_map(|cluster| &cluster.endpoints).map(|endpoint| endpoint.address.to_string()).collect()
}

fn names(world: &World) -> (Vec<String>, Vec<String>, Vec<String>) {
    let config = world.config();
    weir_config::validate(&config).unwrap();
    (
        config.listeners.into_iter().map(|listener| listener.name).collect(),
        config.route_tables.into_iter().map(|table| table.name).collect(),
        config.clusters.into_iter().map(|cluster| cluster.name).collect(),
    )
}

#[test]
fn a_listener_waits_for_all_below_it() {
    let now = Instant::now();
    let mut world = World::default();
    put(&mut world, pack_any(listener("l", 80, "r")));
    put(&mut world, pack_any(routes("r", "a")));
    put(&mut world, pack_any(eds_cluster("a")));
    world.settle(now);
    assert_eq!(world.warming(), ["cluster `a`", "routes `r`", "listener `l`"]);
    assert_eq!(world.config(), ProxyConfig::default());
    assert_eq!(world.wanted(Kind::Endpoints), BTreeSet::from(["a".to_owned()]));
    put(&mut world, pack_any(assignment("a", &[("10.0.0.1", 80)])));
    world.settle(now);
    assert!(world.is_complete());
    assert_eq!(target(&world), ["10.0.0.1:80"]);
}

#[test]
fn what_was_serves_until_its_successor_is_ready() {
    let now = Instant::now();
    let mut world = serving(now);
    put(&mut world, pack_any(routes("r", "b")));
    world.remove(Kind::Cluster, "a");
    world.settle(now);
    // The cluster is gone at the control plane, but the active routes still send there.
    assert_eq!(target(&world), ["10.0.0.1:80"]);
    put(&mut world, pack_any(eds_cluster("b")));
    world.settle(now);
    assert_eq!(target(&world), ["10.0.0.1:80"]);
    put(&mut world, pack_any(assignment("b", &[("10.0.0.2", 80)])));
    world.settle(now);
    assert_eq!(target(&world), ["10.0.0.2:80"]);
    assert_eq!(world.wanted(Kind::Endpoints), BTreeSet::from(["b".to_owned()]));
}

#[test]
fn endpoints_that_are_removed_stay_while_a_cluster_needs_them() {
    let now = Instant::now();
    let mut world = serving(now);
    world.remove(Kind::Endpoints, "a");
    world.settle(now);
    assert_eq!(target(&world), ["10.0.0.1:80"]);
    assert!(world.versions(Kind::Endpoints).is_empty());
    put(&mut world, pack_any(assignment("a", &[])));
    world.settle(now);
    assert!(target(&world).is_empty());
}

#[test]
fn a_removed_listener_goes_at_once_and_takes_its_own_along() {
    let now = Instant::now();
    let mut world = serving(now);
    world.keep_only(Kind::Listener, &BTreeSet::new());
    world.keep_only(Kind::Cluster, &BTreeSet::new());
    world.settle(now);
    assert_eq!(names(&world), (vec![], vec![], vec![]));
    assert_eq!(world.count(Kind::Endpoints) + world.count(Kind::Routes), 0);
}

#[test]
fn what_never_comes_is_taken_for_empty_in_the_end() {
    let start = Instant::now();
    let mut world = World::default();
    put(&mut world, pack_any(listener("l", 80, "r")));
    put(&mut world, pack_any(eds_cluster("a")));
    put(&mut world, pack_any(routes("r", "nowhere")));
    assert_eq!(world.settle(start), Some(start + PATIENCE));
    world.settle(start + PATIENCE - Duration::from_millis(1));
    assert!(!world.is_complete());
    assert_eq!(world.settle(start + PATIENCE), None);
    assert!(world.is_complete());
    assert_eq!(names(&world), (vec!["l".into()], vec!["r".into()], vec!["a".into(), "nowhere".into()]));
    // What comes late still counts.
    put(&mut world, pack_any(cluster_at("nowhere", DiscoveryType::Static, "10.0.0.9", 80)));
    world.settle(start + PATIENCE);
    assert_eq!(target(&world), ["10.0.0.9:80"]);
}

#[test]
fn each_missing_thing_has_its_own_patience() {
    let start = Instant::now();
    let mut world = serving(start);
    put(&mut world, pack_any(eds_cluster("b")));
    world.settle(start);
    put(&mut world, pack_any(eds_cluster("c")));
    let next = world.settle(start + PATIENCE / 2);
    assert_eq!(next, Some(start + PATIENCE));
    assert_eq!(world.settle(start + PATIENCE), Some(start + PATIENCE / 2 + PATIENCE));
    assert_eq!(world.warming(), ["cluster `c`"]);
}

#[test]
fn names_become_addresses_when_they_resolve() {
    let now = Instant::now();
    let mut world = serving(now);
    put(&mut world, pack_any(cluster_at("db", DiscoveryType::StrictDns, "db.local", 5432)));
    world.settle(now);
    assert_eq!(world.dns_names(), BTreeSet::from(["db.local".to_owned()]));
    assert_eq!(world.warming(), ["cluster `db`"]);
    world.resolved("db.local".into(), Some(vec![[10, 0, 0, 7].into()]));
    world.settle(now);
    assert_eq!(target(&world), ["10.0.0.1:80", "10.0.0.7:5432"]);
    // A failure keeps what is known.
    world.resolved("db.local".into(), None);
    world.settle(now);
    assert_eq!(target(&world), ["10.0.0.1:80", "10.0.0.7:5432"]);
}

#[test]
fn what_needs_a_secret_waits_for_it_unless_it_serves_plaintext_meanwhile() {
    let now = Instant::now();
    let mut world = serving(now);
    put(&mut world, pack_any(with_tls(listener("l", 80, "r"), false)));
    put(&mut world, pack_any(switchable_cluster("a")));
    world.settle(now);
    assert_eq!(world.warming(), ["cluster `a`", "listener `l`"]);
    assert_eq!(world.wanted(Kind::Secret), SECRETS.map(str::to_owned).into());
    put(&mut world, pack_any(with_tls(listener("l", 80, "r"), true)));
    world.settle(now);
    assert_eq!(world.warming(), ["cluster `a`"]);
    assert_eq!(target(&world), ["10.0.0.1:80"]);
    put(&mut world, pack_any(workload("c", "k")));
    put(&mut world, pack_any(roots("r")));
    world.settle(now);
    assert!(world.is_complete());
    let config = world.config();
    assert!(config.secrets.iter().all(|secret| secret.certificate.is_some() != secret.trust.is_some()));
    assert!(config.clusters[0].tls.is_some() && !config.clusters[0].endpoints[0].tls);
}

#[test]
fn endpoints_are_spoken_tls_to_only_where_the_cluster_says_how() {
    let now = Instant::now();
    let mut world = serving(now);
    put(&mut world, pack_any(assignment_with_tls("a", &[("10.0.0.1", 80)], true)));
    world.settle(now);
    assert!(!world.config().clusters[0].endpoints[0].tls);
    put(&mut world, pack_any(workload("c", "k")));
    put(&mut world, pack_any(roots("r")));
    put(&mut world, pack_any(switchable_cluster("a")));
    world.settle(now);
    assert!(world.config().clusters[0].endpoints[0].tls);
}

#[test]
fn a_secret_that_is_taken_away_is_kept() {
    let now = Instant::now();
    let mut world = serving(now);
    put(&mut world, pack_any(workload("c", "k")));
    put(&mut world, pack_any(roots("r")));
    put(&mut world, pack_any(switchable_cluster("a")));
    world.settle(now);
    world.remove(Kind::Secret, SECRETS[0]);
    world.settle(now);
    assert!(world.config().secrets.iter().any(|secret| secret.certificate.is_some()));
}

#[test]
fn a_secret_that_never_comes_leaves_its_cluster_without_connections() {
    let start = Instant::now();
    let mut world = serving(start);
    put(&mut world, pack_any(switchable_cluster("a")));
    world.settle(start);
    world.settle(start + PATIENCE);
    assert!(world.is_complete());
    assert_eq!(world.config().secrets.len(), 2);
    assert!(world.config().secrets.iter().all(|secret| secret.certificate.is_none() && secret.trust.is_none()));
}
