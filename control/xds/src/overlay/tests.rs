//! Who sees what while configuration is on its way.

use std::sync::Arc;

use jiff::Timestamp;
use weir_model::change::publication::{ConfigName, ConfigResource};
use weir_model::change::{Action, ChangePhase, ChangeSpec};
use weir_model::encryption::EncryptionMode;
use weir_model::instance::InstanceConfig;
use weir_model::{Change, Kind};

use crate::fixtures::{Store, app, instance, route};
use crate::index::Published;
use crate::world::World;

/// `order` is to go to `stock` instead, and the Route of `stock` is to go.
fn change(phase: ChangePhase) -> Change {
    let spec = route("order", "order", &[("stock", "", 1)]).to_object().spec;
    let resources = vec![ConfigResource { kind: Kind::Route, name: "order".into(), spec }];
    let delete = vec![ConfigName { kind: Kind::Route, name: "stock".into() }];
    let action = Action::ConfigPublish { revision: "r1".into(), resources, delete };
    let mut change = Change::new("to-r1", ChangeSpec { action, ..ChangeSpec::proxy_upgrade("") });
    change.status.phase = phase;
    change.status.started_at = Some(Timestamp::UNIX_EPOCH);
    change
}

fn mesh() -> Store {
    let mut store = Store::default();
    ["front", "order", "stock"].into_iter().for_each(|name| store.put(app(name)));
    store.put(instance("front", 1, ""));
    store.put(instance("front", 2, ""));
    store.put(route("order", "order", &[("order", "", 1)]));
    store.put(route("stock", "stock", &[("order", "", 1)]));
    store.index.publish();
    store
}

fn pin(store: &mut Store, number: u8, revision: &str, taken: &str) {
    let mut front = instance("front", number, "");
    front.spec.config_revision = revision.into();
    front.status.config = Some(InstanceConfig { revision: taken.into(), ..InstanceConfig::default() });
    store.put(front);
}

/// Where calls of an app end, as a proxy sees it.
fn ends(store: &Store, node: &str, app: &str) -> Vec<String> {
    let world: Arc<World> = store.index.world().seen_by(node);
    world.app(app).used.iter().cloned().collect()
}

fn told(published: &Published) -> Vec<(&str, Vec<&str>)> {
    let apps = |of: &'_ [(Arc<str>, _)]| of.iter().map(|(app, _)| app.to_string()).collect::<Vec<_>>();
    published
        .moved
        .iter()
        .map(|(node, changes)| {
            assert_eq!(apps(changes), ["order", "stock"]);
            (node.as_str(), vec!["order", "stock"])
        })
        .collect()
}

#[test]
fn only_proxies_that_are_let_go_see_it() {
    let mut store = mesh();
    store.put(change(ChangePhase::Running));
    assert!(store.index.publish().moved.is_empty(), "nobody has it yet");
    pin(&mut store, 1, "r1", "");
    let published = store.index.publish();
    assert_eq!(told(&published), [("front-1", vec!["order", "stock"])]);
    assert_eq!(ends(&store, "front-1", "order"), ["order", "stock"]);
    assert_eq!(ends(&store, "front-2", "order"), ["order"]);
    assert_eq!(ends(&store, "front-1", "stock"), ["stock"]);
    assert_eq!(ends(&store, "front-2", "stock"), ["order", "stock"]);
    let seq = store.index.world().seq;
    assert_eq!(store.index.overlays().awaited().collect::<Vec<_>>(), [(&"front-1".to_owned(), "r1", seq)]);
}

#[test]
fn what_is_stored_is_seen_again_when_the_change_ends_or_lets_go() {
    for ended in [false, true] {
        let mut store = mesh();
        store.put(change(ChangePhase::Running));
        pin(&mut store, 1, "r1", "");
        store.index.publish();
        store.index.settle_configuration("front-1");
        if ended {
            store.put(change(ChangePhase::Aborted));
        } else {
            pin(&mut store, 1, "", "r1");
        }
        assert_eq!(told(&store.index.publish()), [("front-1", vec!["order", "stock"])], "{ended}");
        assert_eq!(ends(&store, "front-1", "order"), ["order"], "{ended}");
    }
}

/// What callers are told of endpoints does not depend on the configuration they have.
#[test]
fn endpoints_keep_the_world_they_are_acknowledged_by() {
    let mut store = mesh();
    store.put(change(ChangePhase::Running));
    pin(&mut store, 1, "r1", "");
    store.index.publish();
    store.put(instance("order", 1, ""));
    store.index.publish();
    let world = store.index.world();
    let seq = |node: &str| world.seen_by(node).app("order").endpoints[""].seq;
    assert_eq!(seq("front-1"), world.seq);
    assert_eq!(seq("front-1"), seq("front-2"));
}

#[test]
fn a_new_process_waits_for_the_acknowledgement_anew() {
    let mut store = mesh();
    store.put(change(ChangePhase::Running));
    pin(&mut store, 1, "r1", "r1");
    pin(&mut store, 2, "", "r1");
    store.index.publish();
    let again = store.restarted();
    let awaited: Vec<_> =
        again.index.overlays().awaited().map(|(name, revision, _)| (name.as_str(), revision)).collect();
    assert_eq!(awaited, [("front-1", "r1"), ("front-2", "")]);
    assert_eq!(ends(&again, "front-1", "order"), ["order", "stock"]);
}

/// Callers that have it speak TLS to whoever takes it, before the app has an Encryption; servers refuse nothing.
#[test]
fn encryption_reaches_callers_one_by_one() {
    let mut store = mesh();
    let mut order = instance("order", 1, "");
    order.status.tls = Some(weir_model::instance::InstanceTls { ready: true, ..Default::default() });
    store.put(order);
    let mut switch = change(ChangePhase::Running);
    switch.spec.action = Action::EncryptionSwitch { apps: vec!["order".into()], mode: EncryptionMode::Strict };
    store.put(switch);
    pin(&mut store, 1, "strict", "");
    store.index.publish();
    let seen = |node: &str| store.index.world().seen_by(node).app("order");
    let (new, old) = (seen("front-1"), seen("front-2"));
    assert_eq!((new.encryption, old.encryption), (Some(EncryptionMode::Permissive), None));
    let endpoints = |view: &crate::world::AppView| view.endpoints[""].resource.version.clone();
    assert_ne!(endpoints(&new), endpoints(&old), "TLS is spoken to that endpoint");
}

#[test]
fn a_change_that_has_not_begun_is_nothing_to_proxies() {
    let mut store = mesh();
    let mut pending = change(ChangePhase::Pending);
    pending.status.started_at = None;
    store.put(pending);
    pin(&mut store, 1, "r1", "");
    store.index.publish();
    assert_eq!(ends(&store, "front-1", "order"), ["order"]);
}
