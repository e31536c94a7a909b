//! Whatever a control plane does, its delta responses and its whole-state responses lead to the same configuration.

use std::collections::BTreeMap;
use std::time::Instant;

use envoy_types::pb::envoy::config::cluster::v3::cluster::DiscoveryType;
use proptest::prelude::*;

use super::*;
use crate::fixtures::cluster_at;
use crate::xds::engine::{Engine, Update, Verdict, Versioned};

/// What a control plane holds, by type and name.
type State = BTreeMap<(&'static str, String), Any>;

/// One step of a control plane: a resource appears, changes or goes.
#[derive(Debug, Clone)]
enum Step {
    Cluster(u8, bool),
    Endpoints(u8, u8),
    Listener(u8, u8),
    Routes(u8, u8),
    Remove(&'static str, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..3u8;
    prop_oneof![
        (index.clone(), any::<bool>()).prop_map(|(name, fixed)| Step::Cluster(name, fixed)),
        (index.clone(), any::<u8>()).prop_map(|(name, host)| Step::Endpoints(name, host)),
        (index.clone(), index.clone()).prop_map(|(name, routes)| Step::Listener(name, routes)),
        (index.clone(), index.clone()).prop_map(|(name, cluster)| Step::Routes(name, cluster)),
        (prop_oneof![Just(CDS), Just(LDS)], index).prop_map(|(kind, name)| Step::Remove(kind, name)),
    ]
}

fn name(kind: &str, index: u8) -> String {
    let letter = match kind {
        CDS | EDS => 'c',
        LDS => 'l',
        _ => 'r',
    };
    format!("{letter}{index}")
}

fn perform(state: &mut State, step: &Step) -> &'static str {
    let (kind, name, resource) = match *step {
        Step::Cluster(index, true) => {
            let name = name(CDS, index);
            (CDS, name.clone(), Some(pack_any(cluster_at(&name, DiscoveryType::Static, "10.1.0.1", 80))))
        }
        Step::Cluster(index, false) => (CDS, name(CDS, index), Some(pack_any(eds_cluster(&name(CDS, index))))),
        Step::Endpoints(index, host) => {
            let name = name(EDS, index);
            let host = format!("10.0.0.{host}");
            (EDS, name.clone(), Some(pack_any(assignment(&name, &[(&host, 80)]))))
        }
        Step::Listener(index, routes) => {
            let port = 8000 + u16::from(index);
            (LDS, name(LDS, index), Some(pack_any(listener(&name(LDS, index), port, &name(RDS, routes)))))
        }
        Step::Routes(index, cluster) => {
            (RDS, name(RDS, index), Some(pack_any(routes(&name(RDS, index), &name(CDS, cluster)))))
        }
        Step::Remove(kind, index) => (kind, name(kind, index), None),
    };
    match resource {
        Some(resource) => drop(state.insert((kind, name), resource)),
        None => drop(state.remove(&(kind, name))),
    }
    kind
}

/// Takes every configuration and keeps the last.
#[derive(Default, Clone)]
struct Last(Arc<std::sync::Mutex<ProxyConfig>>);

impl Sink for Last {
    async fn apply(&mut self, config: ProxyConfig) -> Result<(), ApplyError> {
        weir_config::validate(&config).expect("only sound configurations reach the proxy");
        *self.0.lock().unwrap() = config;
        Ok(())
    }

    fn rejected(&mut self, message: &str) {
        panic!("{message}");
    }
}

/// What of a type the client has asked for.
fn asked(engine: &Engine<Last>, kind: Kind, state: &State) -> BTreeMap<String, Any> {
    let wanted = engine.world.wanted(kind);
    let of_kind = state
        .iter()
        .filter(|((url, name), _)| *url == kind.type_url() && (kind.is_wildcard() || wanted.contains(name)));
    of_kind.map(|((_, name), any)| (name.clone(), any.clone())).collect()
}

fn versioned(resources: BTreeMap<String, Any>) -> Vec<Versioned> {
    resources.into_values().map(|resource| Versioned { name: String::new(), version: "1".into(), resource }).collect()
}

/// Tells all of a type.
async fn tell_whole(engine: &mut Engine<Last>, kind: Kind, state: &State, now: Instant) {
    let resources = versioned(asked(engine, kind, state));
    let update = Update { kind, resources, removed: Vec::new(), is_whole: kind.is_wildcard() };
    assert_eq!(engine.take(update, now).await, Verdict::Accepted);
}

/// Tells what differs from what was told before.
async fn tell_delta(
    engine: &mut Engine<Last>,
    kind: Kind,
    state: &State,
    told: &mut BTreeMap<Kind, BTreeMap<String, Any>>,
    now: Instant,
) {
    let all = asked(engine, kind, state);
    let before = told.insert(kind, all.clone()).unwrap_or_default();
    let removed = before.keys().filter(|name| !all.contains_key(*name) && kind.is_wildcard()).cloned().collect();
    let fresh = all.into_iter().filter(|(name, any)| before.get(name) != Some(any)).collect();
    let update = Update { kind, resources: versioned(fresh), removed, is_whole: false };
    assert_eq!(engine.take(update, now).await, Verdict::Accepted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_variants_lead_to_the_same(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (whole, delta) = (Last::default(), Last::default());
        let (mut by_whole, mut by_delta) = (Engine::new(whole.clone()), Engine::new(delta.clone()));
        let now = Instant::now();
        runtime.block_on(async {
            let mut state = State::new();
            let mut told = BTreeMap::new();
            for step in &steps {
                let kind = Kind::from_url(perform(&mut state, step)).unwrap();
                // The changed type first, then what the client may have come to ask for because of it.
                for kind in [kind].into_iter().chain(Kind::ALL).chain(Kind::ALL) {
                    tell_whole(&mut by_whole, kind, &state, now).await;
                    tell_delta(&mut by_delta, kind, &state, &mut told, now).await;
                }
                prop_assert_eq!(by_whole.world.config(), by_delta.world.config());
                prop_assert_eq!(by_whole.world.warming(), by_delta.world.warming());
            }
            Ok(())
        })?;
        prop_assert_eq!(&*whole.0.lock().unwrap(), &*delta.0.lock().unwrap());
    }
}
