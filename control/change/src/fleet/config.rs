//! What is stored of configuration, and whom other configuration would concern.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;
use weir_model::change::Action;
use weir_model::change::publication::ConfigResource;
use weir_model::{Key, Kind, Object};

use crate::world::Stored;

/// Apps, Routes and Encryptions.
#[derive(Debug, Default)]
pub(super) struct Configuration(BTreeMap<Key, Known>);

#[derive(Debug)]
struct Known {
    uid: String,
    generation: u64,
    spec: Value,
    /// Of an Encryption: what is so, and what is said of it.
    effective: Value,
    message: String,
}

/// Whose proxies a configuration makes a difference to.
#[derive(Debug, Default)]
pub(super) struct Concern {
    /// Apps of which the calls, or the instances, are configured.
    apps: HashSet<String>,
    /// Of those, apps whose own instances are told too.
    own: HashSet<String>,
    /// Apps that calls of an app may end at, by what is stored and by what is to be.
    ends: BTreeMap<String, BTreeSet<String>>,
}

impl Configuration {
    pub fn note(&mut self, object: &Object) {
        let (uid, generation) = (object.metadata.uid.clone(), object.metadata.generation);
        let effective = object.status["effectiveMode"].clone();
        let message = object.status["message"].as_str().unwrap_or_default().to_owned();
        self.0.insert(object.key(), Known { uid, generation, spec: object.spec.clone(), effective, message });
    }

    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// What is stored of everything that `action` is about.
    pub fn stored(&self, action: &Action) -> Vec<Stored> {
        let resources = action.wanted();
        let wanted = resources.iter().map(|r| (r.key(), Some(r)));
        let all = wanted.chain(action.unwanted().iter().map(|name| (name.key(), None)));
        all.map(|(key, wanted)| {
            let known = self.0.get(&key);
            let found = known.map(|k| (k.uid.clone(), k.generation));
            let as_wanted = match (wanted, known) {
                (Some(wanted), Some(known)) => known.says(wanted),
                (wanted, known) => wanted.is_none() && known.is_none(),
            };
            let unsettled = known.filter(|_| as_wanted).and_then(|known| known.unsettled(&key));
            Stored { key, found, as_wanted, unsettled }
        })
        .collect()
    }

    /// Whom `action` concerns; `None`: it is no configuration.
    pub fn concern(&self, action: &Action) -> Option<Concern> {
        if !action.is_configuration() {
            return None;
        }
        let resources = action.wanted();
        let mut concern = Concern::default();
        for key in action.resources() {
            concern.add(&key, self.0.get(&key).map(|k| &k.spec));
        }
        resources.iter().for_each(|r| concern.add(&r.key(), Some(&r.spec)));
        let replaced: BTreeSet<Key> = action.unwanted().iter().map(|d| d.key()).collect();
        let stored = self.0.iter().filter(|(key, _)| key.kind == Kind::Route && !replaced.contains(key));
        let to_be = resources.iter().filter(|r| r.kind == Kind::Route).map(|r: &ConfigResource| &r.spec);
        for spec in stored.map(|(_, known)| &known.spec).chain(to_be) {
            concern.ends.entry(app_of(spec).to_owned()).or_default().extend(backends(spec));
        }
        Some(concern)
    }
}

impl Known {
    /// An Encryption may say more than its mode, which is left as it is.
    fn says(&self, wanted: &ConfigResource) -> bool {
        match wanted.kind {
            Kind::Encryption => self.spec["app"] == wanted.spec["app"] && self.spec["mode"] == wanted.spec["mode"],
            _ => wanted.canonical().is_ok_and(|spec| spec == self.canonical(&wanted.key())),
        }
    }

    /// Why what is stored is not so yet.
    fn unsettled(&self, key: &Key) -> Option<String> {
        // Without a status the default holds: disabled.
        let mode = self.spec["mode"].as_str().unwrap_or("disabled");
        let waits = key.kind == Kind::Encryption && self.effective.as_str().unwrap_or("disabled") != mode;
        waits.then(|| format!("{key} is on its way: {}", self.message))
    }

    fn canonical(&self, key: &Key) -> Value {
        let resource = ConfigResource { kind: key.kind, name: key.name.clone(), spec: self.spec.clone() };
        resource.canonical().unwrap_or_else(|_| self.spec.clone())
    }
}

impl Concern {
    fn add(&mut self, key: &Key, spec: Option<&Value>) {
        match key.kind {
            Kind::App => {
                self.own.insert(key.name.clone());
                self.apps.insert(key.name.clone());
            }
            _ => self.apps.extend(spec.map(|spec| app_of(spec).to_owned())),
        }
    }

    /// An instance of `app` that calls `calls` is told something else by it.
    pub fn reaches<'c>(&self, app: &str, mut calls: impl Iterator<Item = &'c str>) -> bool {
        let ends_there = |app: &str| self.ends.get(app).is_some_and(|ends| ends.iter().any(|e| self.apps.contains(e)));
        self.own.contains(app) || calls.any(|called| self.apps.contains(called) || ends_there(called))
    }
}

fn app_of(route: &Value) -> &str {
    route["app"].as_str().unwrap_or_default()
}

fn backends(route: &Value) -> impl Iterator<Item = String> + '_ {
    let rules = route["rules"].as_array().into_iter().flatten();
    let backends = rules.flat_map(|rule| rule["backends"].as_array().into_iter().flatten());
    backends.filter_map(|backend| backend["app"].as_str().map(str::to_owned))
}
