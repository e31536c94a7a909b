//! Brings the newest world to the streams, and wakes only those whose apps have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::index::Published;
use crate::world::{Change, World};

/// The newest world, and who is interested in what.
#[derive(Debug, Default)]
pub struct Hub {
    world: RwLock<Arc<World>>,
    interests: Mutex<Interests>,
}

#[derive(Debug, Default)]
struct Interests {
    by_app: HashMap<String, HashMap<u64, Arc<Mailbox>>>,
    in_all: HashMap<u64, Arc<Mailbox>>,
    by_node: HashMap<String, HashMap<u64, Arc<Mailbox>>>,
}

/// What has changed for one stream since it last looked.
#[derive(Debug, Default)]
pub struct Mailbox {
    changes: Mutex<BTreeMap<Arc<str>, Change>>,
    ready: Notify,
}

/// A stream's registration; ends with it.
#[derive(Debug)]
pub struct Listening {
    hub: Arc<Hub>,
    stream: u64,
    node: String,
    mailbox: Arc<Mailbox>,
    apps: BTreeSet<String>,
    all: bool,
}

impl Hub {
    /// The newest world.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the world and tells the streams that are interested in what is different.
    pub fn publish(&self, world: Arc<World>, published: &Published) {
        // Under one lock, so that who looks sees a world together with all that is different in it.
        let interests = self.lock();
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = world;
        for (app, change) in &published.apps {
            let interested = interests.by_app.get(&**app).into_iter().flat_map(HashMap::values);
            for mailbox in interested.chain(interests.in_all.values()) {
                mailbox.put(app, *change);
            }
        }
        for (node, changes) in &published.moved {
            for mailbox in interests.by_node.get(node).into_iter().flat_map(HashMap::values) {
                changes.iter().for_each(|(app, change)| mailbox.put(app, *change));
                mailbox.ready.notify_one();
            }
        }
    }

    /// Registers a stream of a node, which is interested in no app yet.
    pub fn listen(self: &Arc<Self>, stream: u64, node: &str) -> Listening {
        let mailbox: Arc<Mailbox> = Arc::default();
        self.lock().by_node.entry(node.to_owned()).or_default().insert(stream, Arc::clone(&mailbox));
        let node = node.to_owned();
        Listening { hub: Arc::clone(self), stream, node, mailbox, apps: BTreeSet::new(), all: false }
    }

    fn lock(&self) -> MutexGuard<'_, Interests> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    fn put(&self, app: &Arc<str>, change: Change) {
        let mut changes = self.lock();
        let known = changes.entry(Arc::clone(app)).or_default();
        *known = known.and(change);
        drop(changes);
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Resolves when something has changed.
    pub async fn changed(&self) {
        self.mailbox.ready.notified().await;
    }

    /// The newest world as this node is to see it, and what has changed since the last call up to exactly this world.
    pub fn look(&self) -> (Arc<World>, BTreeMap<Arc<str>, Change>) {
        let _still = self.hub.lock();
        (self.hub.world().seen_by(&self.node), std::mem::take(&mut *self.mailbox.lock()))
    }

    /// Hears of these apps (`None`: of all) from now on. To miss nothing, [look](Self::look) after this.
    pub fn set_interests(&mut self, apps: Option<BTreeSet<String>>) {
        let hub = Arc::clone(&self.hub);
        let mut interests = hub.lock();
        self.all = apps.is_none();
        match apps {
            None => drop(interests.in_all.insert(self.stream, Arc::clone(&self.mailbox))),
            Some(_) => drop(interests.in_all.remove(&self.stream)),
        }
        let apps = apps.unwrap_or_default();
        for app in self.apps.difference(&apps) {
            interests.forget(app, self.stream);
        }
        for app in apps.difference(&self.apps) {
            interests.by_app.entry(app.clone()).or_default().insert(self.stream, Arc::clone(&self.mailbox));
        }
        self.apps = apps;
    }
}

impl Interests {
    fn forget(&mut self, app: &str, stream: u64) {
        if let Some(streams) = self.by_app.get_mut(app) {
            streams.remove(&stream);
            if streams.is_empty() {
                self.by_app.remove(app);
            }
        }
    }

    fn part(&mut self, node: &str, stream: u64) {
        if let Some(streams) = self.by_node.get_mut(node) {
            streams.remove(&stream);
            if streams.is_empty() {
                self.by_node.remove(node);
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut interests = self.hub.lock();
        interests.in_all.remove(&self.stream);
        for app in &self.apps {
            interests.forget(app, self.stream);
        }
        interests.part(&self.node, self.stream);
    }
}
