//! What an acknowledgement says, and of which world.

use super::*;

#[test]
fn an_acknowledgement_counts_for_the_world_it_was_made_from() {
    let mut store = mesh();
    let mut clients = both(&store);
    store.put(in_phase(instance("order", 1, ""), InstancePhase::Unpublishing, 1));
    publish(&mut store, &mut clients);
    let leaving = store.index.leaving().next().expect("one leaves").1.clone();
    let need = leaving.need.expect("published")["order"];
    for client in &mut clients {
        client.read();
        assert!(client.acknowledged["order"] < need);
        client.answer();
        client.read();
        assert!(client.acknowledged["order"] >= need);
    }
}

#[test]
fn an_acknowledgement_does_not_settle_what_a_later_response_says() {
    let mut store = mesh();
    let mut clients = both(&store);
    let unpublish = |store: &mut Store, clients: &mut [Client], n| {
        store.put(in_phase(instance("order", n, ""), InstancePhase::Unpublishing, n.into()));
        publish(store, clients);
        store.index.world().seq
    };
    let first = unpublish(&mut store, &mut clients, 1);
    clients.iter_mut().for_each(|client| _ = client.read());
    let second = unpublish(&mut store, &mut clients, 2);
    for client in &mut clients {
        client.now += PATIENCE;
        assert_eq!(client.read(), 1, "patience has run out");
        client.answer();
    }
    // The world moves on, and says the same of these endpoints.
    store.put(route("r", "order", &[("order", "", 1), ("stock", "", 1)]));
    store.put(instance("stock", 3, ""));
    publish(&mut store, &mut clients);
    for client in &mut clients {
        client.session.of_mut(Type::Endpoints).touch("order");
        client.read();
        assert_eq!(client.acknowledged["order"], first, "{:?}: the second is not answered yet", client.mode);
        client.settle();
        assert!(client.acknowledged["order"] >= second);
    }
}

#[test]
fn an_acknowledgement_on_its_way_counts_for_every_world_that_says_the_same() {
    let mut store = mesh();
    let mut clients = both(&store);
    store.put(instance("order", 3, ""));
    publish(&mut store, &mut clients);
    clients.iter_mut().for_each(|client| _ = client.read());
    // There and back before the client has answered.
    for phase in [InstancePhase::Unpublishing, InstancePhase::Serving] {
        store.put(in_phase(instance("order", 3, ""), phase, 1));
        publish(&mut store, &mut clients);
    }
    for client in &mut clients {
        client.now += PATIENCE;
        client.settle();
        assert_eq!(client.acknowledged["order"], store.index.world().seq, "{:?}", client.mode);
    }
}
