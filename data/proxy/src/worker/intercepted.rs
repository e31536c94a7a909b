//! Connections that the kernel has turned round to a listener: where they were going, and which listener serves them.

use super::connections::Connection;
use super::count_refusal;
use crate::stats::Refusal;

impl Connection {
    /// Finds out where it was going, if its listener wants to know, and passes it to the listener for that. False: it is
    /// the proxy's own and has come back; passed on, it would come back for ever.
    ///
    /// To be called by the connection's own task: the one that opened it, if it is the proxy's own, has run by then (see
    /// [`OwnConnections`](crate::upstream::OwnConnections)).
    pub(crate) fn find_destination(&mut self) -> bool {
        let view = self.listener.view();
        if !view.compiled.config.original_destination {
            return true;
        }
        let Some(destination) = self.stream.original_destination() else { return true };
        if self.worker.own.contains(self.peer, destination) {
            count_refusal(&self.worker, Refusal::Loop);
            tracing::warn!(peer = %self.peer, %destination, "the proxy's own connection was turned round to it: exclude its user from interception");
            return false;
        }
        self.destination = Some(Box::new(destination));
        let snapshot = &view.view.snapshot;
        let place = snapshot.destinations.find(self.listener.direction.get(), destination);
        let listeners = self.worker.listeners.borrow();
        let serving = place.and_then(|place| listeners.get(&snapshot.listeners[place].name).cloned());
        drop(listeners);
        if let Some(serving) = serving {
            self.listener = serving;
        }
        true
    }
}
