//! Ending a worker's traffic without failing a request.

use std::rc::Rc;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Phase, Worker};
use crate::options::DrainOptions;

/// What a worker's drain came to.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    /// Connections open at its start.
    pub(crate) connections: usize,
    /// Requests cut at its end.
    pub(crate) cut: usize,
}

impl Worker {
    /// Announce -> stop accepting after the grace -> close what is quiet -> wait for the rest -> cut it at the deadline.
    pub(super) async fn drain(self: &Rc<Self>, options: DrainOptions) -> Drained {
        let deadline = Instant::now() + options.deadline;
        let connections = self.connections.count();
        self.enter(Phase::Announcing);
        sleep(options.grace).await;
        let listeners: Vec<_> = self.listeners.borrow().values().cloned().collect();
        listeners.iter().for_each(|state| self.stop_accepting(state));
        drop(listeners);
        if timeout_at(deadline.min(Instant::now() + options.quiet), self.connections.none()).await.is_ok() {
            return Drained { connections, cut: 0 };
        }
        self.enter(Phase::Closing);
        let ended = timeout_at(deadline, self.connections.none()).await.is_ok();
        let cut = if ended { 0 } else { self.connections.abort_all() };
        self.log.flush();
        Drained { connections, cut }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.connections.wake_all();
    }
}
