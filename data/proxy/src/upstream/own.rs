//! The worker's own connections, so that one that comes back by a wrong rule of interception is known.
//!
//! Such a connection has both ends of the one that the proxy opened, and no other connection has. Workers do not know
//! each other's: among several, a connection goes round until it meets the worker that opened it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::io::{Stream, canonical};

/// Where from and where to.
type Ends = (SocketAddr, SocketAddr);

/// Those that are open. Nothing is kept unless some listener takes intercepted connections.
#[derive(Debug, Default)]
pub(crate) struct OwnConnections {
    open: RefCell<HashSet<Ends>>,
    watched: Cell<bool>,
}

/// One of them, for as long as it is open.
#[derive(Debug)]
pub(super) struct Own {
    all: Rc<OwnConnections>,
    ends: Ends,
}

impl OwnConnections {
    /// Whether connections may come back.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.set(watched);
    }

    /// Whether a connection from `peer` that was going to `destination` is the worker's own.
    pub(crate) fn contains(&self, peer: SocketAddr, destination: SocketAddr) -> bool {
        self.open.borrow().contains(&(canonical(peer), canonical(destination)))
    }

    /// Notes a connection that the worker has opened. Should it have come back, the task for that has not run yet: this end
    /// was connected no later than that one could be accepted, so its task was woken no later, and another for the
    /// accepted one was made only then.
    pub(super) fn note(self: &Rc<Self>, stream: &Stream, to: SocketAddr) -> Option<Box<Own>> {
        let from = self.watched.get().then(|| stream.local_address()).flatten()?;
        let ends = (canonical(from), canonical(to));
        self.open.borrow_mut().insert(ends);
        Some(Box::new(Own { all: self.clone(), ends }))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.all.open.borrow_mut().remove(&self.ends);
    }
}
