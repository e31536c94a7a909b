//! Keys that were woken and not yet scheduled. A set, so that a burst of activations costs no more memory than there
//! are keys, and whoever activates never waits.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weir_model::Key;

/// Wakes a controller for a key, for reasons that the store does not see (a process ended, a stream opened).
#[derive(Debug, Clone, Default)]
pub struct Activator {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    keys: Mutex<BTreeSet<Key>>,
    notify: Notify,
}

impl Activator {
    /// Wakes the controller for `key`. Carries nothing else on purpose.
    pub fn activate(&self, key: Key) {
        self.lock().insert(key);
        self.shared.notify.notify_one();
    }

    /// Waits until there are keys, and takes them. Safe to cancel.
    pub(crate) async fn take(&self) -> BTreeSet<Key> {
        loop {
            let keys = self.drain();
            if !keys.is_empty() {
                return keys;
            }
            self.shared.notify.notified().await;
        }
    }

    pub(crate) fn drain(&self) -> BTreeSet<Key> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
