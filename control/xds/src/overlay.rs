//! Configuration that a change under way lays over what is stored, for those proxies alone whose Instance names its
//! revision. It is read from the change itself, so it is gone with it.

use std::collections::{BTreeMap, BTreeSet};

use weir_model::change::{Action, Change};
use weir_model::encryption::EncryptionMode;
use weir_model::{App, AppSpec, Key, Kind, Object, Route};

/// What is different for those proxies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay {
    /// What their Instances name.
    pub revision: String,
    /// Routes to put in the place of those of the same name; `None`: the Route is to go.
    pub routes: BTreeMap<String, Option<Route>>,
    /// Apps likewise.
    pub apps: BTreeMap<String, Option<AppSpec>>,
    /// How callers of an app are to speak, by the app.
    pub encryptions: BTreeMap<String, EncryptionMode>,
}

impl Overlay {
    /// Whether a stored change may have one; spares reading those that can't.
    pub fn is_likely(change: &Object) -> bool {
        ["configPublish", "encryptionSwitch"].iter().any(|action| change.spec["action"].get(action).is_some())
    }

    /// Of a change that has begun and not ended.
    pub fn of(change: &Change) -> Option<Overlay> {
        let action = &change.spec.action;
        let under_way = change.status.started_at.is_some() && !change.status.phase.ended();
        if !action.is_configuration() || !under_way {
            return None;
        }
        let mut overlay = Overlay { revision: change.spec.target().to_owned(), ..Overlay::default() };
        if let Action::EncryptionSwitch { apps, mode } = action {
            overlay.encryptions.extend(apps.iter().map(|app| (app.clone(), *mode)));
            return Some(overlay);
        }
        for name in action.unwanted() {
            match name.kind {
                Kind::Route => drop(overlay.routes.insert(name.name.clone(), None)),
                _ => drop(overlay.apps.insert(name.name.clone(), None)),
            }
        }
        for resource in action.wanted().iter() {
            let object = resource.object();
            match resource.kind {
                Kind::Route => drop(overlay.routes.insert(object.key().name, Some(Route::try_from(object).ok()?))),
                _ => drop(overlay.apps.insert(object.key().name, Some(App::try_from(object).ok()?.spec))),
            }
        }
        Some(overlay)
    }

    /// Apps that look different for those proxies, given the app of each stored Route.
    pub fn touches<'a>(&'a self, app_of: impl Fn(&str) -> Option<&'a str>) -> BTreeSet<String> {
        let before = self.routes.keys().filter_map(|name| app_of(name));
        let after = self.routes.values().flatten().map(|route| route.spec.app.as_str());
        let apps = self.apps.keys().chain(self.encryptions.keys());
        before.chain(after).chain(apps.map(String::as_str)).map(str::to_owned).collect()
    }

    /// How callers of `app` speak that have this, where `stored` is what holds for everybody. Strict is for servers, by
    /// their own acknowledged steps: a caller never runs ahead of what they take.
    pub fn encryption(&self, app: &str, stored: Option<EncryptionMode>) -> Option<EncryptionMode> {
        match (self.encryptions.get(app), stored) {
            (None, stored) | (Some(_), stored @ Some(EncryptionMode::Strict)) => stored,
            (Some(EncryptionMode::Disabled), _) => Some(EncryptionMode::Disabled),
            (Some(EncryptionMode::Permissive | EncryptionMode::Strict), _) => Some(EncryptionMode::Permissive),
        }
    }
}

/// Overlays of all changes under way, and who has which.
#[derive(Debug, Default)]
pub struct Overlays {
    by_change: BTreeMap<String, Overlay>,
    pins: BTreeMap<String, String>,
    /// Instances whose revision is another one than in the last world.
    moved: BTreeSet<String>,
    /// World from which on each has been told what it is to have now.
    told: BTreeMap<String, u64>,
    stale: bool,
}

impl Overlays {
    /// Takes a change as it is stored now; `None`: it is gone.
    pub fn put_change(&mut self, key: &Key, overlay: Option<Overlay>) {
        if self.by_change.get(&key.name) == overlay.as_ref() {
            return;
        }
        let revision = overlay.as_ref().map(|o| o.revision.clone());
        let before = match overlay {
            Some(overlay) => self.by_change.insert(key.name.clone(), overlay),
            None => self.by_change.remove(&key.name),
        };
        let revisions = [revision, before.map(|o| o.revision)];
        let named = self.pins.iter().filter(|(_, pin)| revisions.iter().flatten().any(|r| r == *pin));
        self.moved.extend(named.map(|(instance, _)| instance.clone()));
        self.stale = true;
    }

    /// Takes what an Instance names; empty: nothing. `taken`: what its proxy is known to have.
    pub fn pin(&mut self, instance: &str, revision: &str, taken: &str) {
        let known = self.pins.get(instance).map_or("", String::as_str);
        if known != revision {
            match revision {
                "" => drop(self.pins.remove(instance)),
                _ => drop(self.pins.insert(instance.to_owned(), revision.to_owned())),
            }
            self.moved.insert(instance.to_owned());
        }
        // After a restart too: what a proxy has been told of is not known any more.
        if revision != taken && !self.told.contains_key(instance) {
            self.moved.insert(instance.to_owned());
        }
    }

    /// Forgets an instance that is gone.
    pub fn forget(&mut self, instance: &str) {
        self.pin(instance, "", "");
        self.told.remove(instance);
    }

    /// Something of it is different since the last world.
    pub fn is_dirty(&self) -> bool {
        self.stale || !self.moved.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Overlay> {
        self.by_change.values()
    }

    /// Who has which.
    pub fn pins(&self) -> &BTreeMap<String, String> {
        &self.pins
    }

    /// Marks all as told by the world of this sequence; returns who was moved.
    pub fn tell(&mut self, seq: u64) -> BTreeSet<String> {
        self.stale = false;
        let moved = std::mem::take(&mut self.moved);
        self.told.extend(moved.iter().map(|instance| (instance.clone(), seq)));
        moved
    }

    /// Instances that are to have taken what they name, with the world from which on they were told.
    pub fn awaited(&self) -> impl Iterator<Item = (&String, &str, u64)> {
        self.told.iter().map(|(name, seq)| (name, self.pins.get(name).map_or("", String::as_str), *seq))
    }

    /// The instance's proxy has taken it, and the store says so.
    pub fn settle(&mut self, instance: &str) {
        self.told.remove(instance);
    }
}

#[cfg(test)]
mod tests;
