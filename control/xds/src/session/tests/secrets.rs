//! Secrets on a stream.

use super::*;
use crate::names::{ROOTS, WORKLOAD};

fn secret(name: &str, version: &str) -> Arc<Resource> {
    Resource::secret(name, version.into(), version.as_bytes().to_vec())
}

#[test]
fn a_secret_that_is_not_ready_is_neither_sent_nor_said_to_be_gone() {
    for mut client in both(&mesh()) {
        client.session.put_secret(secret(ROOTS, "r1"));
        client.ask(Type::Secret, &[WORKLOAD, ROOTS]);
        client.settle();
        assert_eq!(client.names(Type::Secret), [ROOTS], "{:?}", client.mode);
        assert_eq!(client.session.accepted_secret(ROOTS).as_deref(), Some("r1"));
        client.session.put_secret(secret(WORKLOAD, "w1"));
        client.log.clear();
        client.settle();
        assert_eq!(client.log, [(Type::Secret, 1)]);
        assert_eq!(client.names(Type::Secret), [ROOTS, WORKLOAD]);
    }
}

#[test]
fn nobody_is_sent_secrets_unasked() {
    for mut client in both(&mesh()) {
        client.session.put_secret(secret(ROOTS, "r1"));
        client.log.clear();
        client.settle();
        assert!(client.log.is_empty());
    }
}

#[test]
fn a_secret_is_sent_before_what_may_name_it() {
    let mut store = mesh();
    let mut clients = both(&store);
    for client in &mut clients {
        client.ask(Type::Secret, &[WORKLOAD]);
        client.settle();
        client.log.clear();
        client.session.put_secret(secret(WORKLOAD, "w1"));
    }
    store.put(instance("order", 3, ""));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.settle();
        assert_eq!(client.log, [(Type::Secret, 1), (Type::Endpoints, 1)]);
    }
}

#[test]
fn a_secret_counts_as_accepted_once_it_is() {
    for mut client in both(&mesh()) {
        client.session.put_secret(secret(ROOTS, "r1"));
        client.ask(Type::Secret, &[ROOTS]);
        client.read();
        assert_eq!(client.session.accepted_secret(ROOTS), None);
        client.settle();
        client.session.put_secret(secret(ROOTS, "r2"));
        client.read();
        assert_eq!(client.session.accepted_secret(ROOTS), None, "of the new one");
        client.settle();
        assert_eq!(client.session.accepted_secret(ROOTS).as_deref(), Some("r2"));
    }
}

#[test]
fn listeners_and_clusters_are_taken_when_everything_of_them_is_acknowledged() {
    let mut store = mesh();
    let mut clients = both(&store);
    let before = store.index.world().seq;
    store.put(route("canary", "order", &[("stock", "", 1), ("order", "", 9)]));
    publish(&mut store, &mut clients);
    let after = store.index.world().seq;
    for client in &mut clients {
        assert_eq!(client.session.taken(Type::Cluster), before);
        client.read();
        assert_eq!(client.session.taken(Type::Cluster), before, "{:?}: it is on its way", client.mode);
        client.settle();
        assert_eq!(client.session.taken(Type::Cluster), after);
        assert_eq!(client.session.taken(Type::Listener), after);
    }
}

#[test]
fn what_was_rejected_is_not_taken() {
    let mut store = mesh();
    let mut clients = both(&store);
    let before = store.index.world().seq;
    store.put(route("canary", "order", &[("stock", "", 1), ("order", "", 9)]));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.read();
        let response = client.unanswered.remove(0);
        client.acknowledge(&response, Some("no".to_owned()));
        client.read();
        assert_eq!(client.session.taken(Type::Cluster), before);
    }
}
