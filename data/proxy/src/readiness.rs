//! Whether the proxy should get traffic, as `/ready` tells it.

use std::sync::Mutex;

/// Answer of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet; the text says what is awaited.
    Starting(String),
    /// It serves.
    Ready,
    /// The self-check failed; the text says how.
    Failed(String),
    /// It finishes what it has and takes no more.
    Draining,
}

impl Readiness {
    /// True only for [`Readiness::Ready`].
    pub fn is_ready(&self) -> bool {
        matches!(self, Readiness::Ready)
    }
}

/// The current [`Readiness`], shared by those who set and those who show it; not on the request path.
#[derive(Debug)]
pub(crate) struct ReadinessCell(Mutex<Readiness>);

impl ReadinessCell {
    pub(crate) fn starting() -> Self {
        ReadinessCell(Mutex::new(Readiness::Starting("no configuration yet".into())))
    }

    pub(crate) fn get(&self) -> Readiness {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Sets it, except that a draining proxy never becomes ready again.
    pub(crate) fn set(&self, next: Readiness) {
        let mut current = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *current != Readiness::Draining {
            *current = next;
        }
    }
}
