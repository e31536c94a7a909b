//! Ending a worker's traffic without failing a request.
//!
//! A proxy drains inbound first. An application that still answers may call others meanwhile, over connections it has
//! and over new ones, so outbound is served as before until nothing inbound is left.

use std::rc::Rc;

use tokio::time::{sleep, timeout};
use weir_config::Direction;

use super::{Phase, Worker};
use crate::options::DrainOptions;

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

    fn enter(&self, direction: Direction, phase: Phase) {
        self.phase(direction).set(phase);
        self.connections.wake_all();
    }
}
