//! Ending a worker's traffic without failing a request.
//!
//! A proxy drains inbound first. An application that still answers may call others meanwhile, over connections it has
//! and over new ones, so outbound is served as before until nothing inbound is left.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use weir_config::Direction;

use super::{Phase, Worker};
use crate::options::DrainOptions;
use crate::stats::Fault;

/// Requests whose connections were cut end within this; what an upstream still holds on to is counted and left.
const CUT_PATIENCE: Duration = Duration::from_millis(250);

/// Whether requests that end are being cut.
#[derive(Debug, Default)]
pub(super) struct Cutting {
    begun: Cell<bool>,
    /// Told when the last request has ended.
    over: Notify,
}

impl Worker {
    /// Announce -> stop accepting after the grace -> close what is quiet -> wait for the rest.
    pub(super) async fn drain(self: &Rc<Self>, direction: Direction, options: DrainOptions) {
        self.enter(direction, Phase::Announcing);
        sleep(options.grace).await;
        let listeners: Vec<_> = self.listeners.borrow().values().cloned().collect();
        let drained = listeners.iter().filter(|state| state.direction.get() == direction);
        drained.for_each(|state| self.stop_accepting(state));
        drop(listeners);
        if timeout(options.quiet, self.connections.none(direction)).await.is_err() {
            self.enter(direction, Phase::Closing);
            self.connections.none(direction).await;
        }
    }

    /// Cuts all that is left; the number of requests that this ended.
    pub(super) async fn cut(&self) -> u64 {
        let before = self.stats.faults(Fault::Cut).get();
        self.cutting.begun.set(true);
        self.connections.abort_all();
        let ended = async {
            while self.stats.active_requests.get() > 0 {
                self.cutting.over.notified().await;
            }
        };
        if timeout(CUT_PATIENCE, ended).await.is_err() {
            (0..self.stats.active_requests.get()).for_each(|_| self.stats.fault(Fault::Cut));
        }
        self.stats.faults(Fault::Cut).get() - before
    }

    /// True once requests that end have been cut.
    pub(crate) fn is_cutting(&self) -> bool {
        self.cutting.begun.get()
    }

    /// The last request has ended.
    pub(super) fn note_none_active(&self) {
        self.cutting.over.notify_one();
    }

    fn enter(&self, direction: Direction, phase: Phase) {
        self.phase(direction).set(phase);
        self.connections.wake_all();
    }
}
