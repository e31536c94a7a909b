//! A worker's open connections, so that they can be told to go.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::Waker;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use weir_config::Direction;

use super::Worker;
use super::view::ListenerState;
use crate::io::{Stream, Timer};
use crate::phases::Ends;
use crate::stats::{Fault, Link, Refusal};
use crate::tls::Security;

/// A caller's connection while it is served.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Rc<ListenerState>,
    pub(crate) control: Rc<Control>,
    pub(crate) stream: Stream,
    pub(crate) peer: SocketAddr,
    /// Where it was going, if it was turned round to the proxy.
    /// Boxed since most were not, and an idle connection is to be small.
    pub(crate) destination: Option<Box<SocketAddr>>,
    pub(crate) timer: Timer,
    pub(crate) security: Security,
    /// Who is at the other end, where that is asked.
    pub(crate) link: Option<Link>,
}

impl Connection {
    /// Where it comes from and was going.
    pub(crate) fn ends(&self) -> Ends {
        Ends { peer: self.peer.ip(), destination: self.destination.as_deref().copied() }
    }

    /// True once the connection is to end with the answer in hand.
    pub(crate) fn is_leaving(&self) -> bool {
        Leaving { worker: &self.worker, listener: &self.listener, security: self.security }.now()
    }
}

/// Whether a connection is to end with its next answer. Asked as late as can be: while an answer was awaited, a drain
/// may have begun, or the listener may have come to want its connections secured otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) listener: &'a ListenerState,
    pub(crate) security: Security,
}

impl Leaving<'_> {
    pub(crate) fn now(self) -> bool {
        self.worker.is_draining(self.listener.direction.get())
            || self.listener.retired.get()
            || !self.listener.accepts.get().takes(self.security)
    }

    /// True once the connection is to end if it carries no request.
    pub(crate) fn when_quiet(self) -> bool {
        self.worker.is_closing(self.listener.direction.get()) || self.listener.retired.get()
    }
}

/// What a connection can be told from outside. It is polled by its own task alone, so a waker set once stays right.
#[derive(Debug, Default)]
pub(crate) struct Control {
    waker: RefCell<Option<Waker>>,
    abort: RefCell<Option<AbortHandle>>,
}

impl Control {
    /// Asks to be woken when the worker changes its phase.
    pub(crate) fn listen(&self, waker: &Waker) {
        let mut current = self.waker.borrow_mut();
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// So many connections must have gone before their memory is worth the search for it.
const EBB: usize = 512;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Most that were open since memory was last given back.
    peak: Cell<usize>,
    open: RefCell<Vec<Weak<Control>>>,
    inbound: Cell<usize>,
    outbound: Cell<usize>,
    /// Told when the last one of a direction is gone.
    none_left: Notify,
}

impl Connections {
    fn count(&self) -> usize {
        self.inbound.get() + self.outbound.get()
    }

    /// True once after most of many connections have gone.
    pub(super) fn have_ebbed(&self) -> bool {
        let (now, peak) = (self.count(), self.peak.get());
        let ebbed = peak - now.min(peak) >= EBB && now < peak / 2;
        if ebbed {
            self.peak.set(now);
            retain_open(&mut self.open.borrow_mut());
        }
        ebbed
    }

    fn of(&self, direction: Direction) -> &Cell<usize> {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Lets each look at the worker's phase.
    pub(crate) fn wake_all(&self) {
        for control in self.all() {
            control.wake();
        }
    }

    /// Cuts each.
    pub(super) fn abort_all(&self) {
        for control in self.all() {
            if let Some(abort) = control.abort.take() {
                abort.abort();
            }
        }
    }

    /// Resolves when there is no inbound one; for outbound, which is drained last, when there is none at all.
    pub(crate) async fn none(&self, direction: Direction) {
        let left = || match direction {
            Direction::Inbound => self.inbound.get(),
            Direction::Outbound => self.count(),
        };
        while left() > 0 {
            self.none_left.notified().await;
        }
    }

    fn all(&self) -> Vec<Rc<Control>> {
        self.open.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    fn add(&self, direction: Direction, control: &Rc<Control>) {
        let mut open = self.open.borrow_mut();
        // Entries of connections that are gone are cleared when they are half of all: constant cost on average.
        if open.len() > 64 && open.len() > 2 * self.count() {
            retain_open(&mut open);
        }
        open.push(Rc::downgrade(control));
        self.of(direction).set(self.of(direction).get() + 1);
        self.peak.set(self.peak.get().max(self.count()));
    }

    fn remove(&self, direction: Direction) {
        let count = self.of(direction);
        count.set(count.get() - 1);
        if count.get() == 0 {
            self.none_left.notify_waiters();
        }
    }
}

/// Clears the entries of connections that are gone: each holds on to a little memory.
fn retain_open(open: &mut Vec<Weak<Control>>) {
    open.retain(|control| control.strong_count() > 0);
    open.shrink_to(2 * open.len());
}

/// Counts a connection as open; dropped while its task panics, it counts the panic.
struct Open {
    worker: Rc<Worker>,
    listener: Rc<ListenerState>,
    direction: Direction,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.stats.active_connections.dec();
        self.listener.connections.set(self.listener.connections.get() - 1);
        self.worker.connections.remove(self.direction);
        if std::thread::panicking() {
            self.worker.stats.fault(Fault::Panic);
        }
    }
}

/// Serves a connection in a task of its own, unless its listener has as many as it may.
pub(super) fn start(worker: &Rc<Worker>, listener: &Rc<ListenerState>, stream: Stream, peer: SocketAddr) {
    let limit = listener.view().compiled.config.limits.max_connections;
    worker.stats.connections.inc();
    if listener.connections.get() >= limit {
        super::count_refusal(worker, Refusal::Connections);
        return;
    }
    listener.connections.set(listener.connections.get() + 1);
    worker.stats.active_connections.inc();
    let control = Rc::new(Control::default());
    let direction = listener.direction.get();
    worker.connections.add(direction, &control);
    let open = Open { worker: worker.clone(), listener: listener.clone(), direction };
    let connection = Box::new(Connection {
        worker: worker.clone(),
        listener: listener.clone(),
        control: control.clone(),
        stream,
        peer,
        destination: None,
        timer: Timer::new(),
        security: Security::Plain,
        link: None,
    });
    let task = tokio::task::spawn_local(async move {
        let _open = open;
        crate::serve::serve(connection).await;
    });
    control.abort.replace(Some(task.abort_handle()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_most_have_gone() {
        let connections = Connections::default();
        let controls: Vec<_> = (0..2 * EBB).map(|_| Rc::new(Control::default())).collect();
        controls.iter().for_each(|control| connections.add(Direction::Inbound, control));
        assert!(!connections.have_ebbed());
        (0..=EBB).for_each(|_| connections.remove(Direction::Inbound));
        assert!(connections.have_ebbed());
        assert!(!connections.have_ebbed());
    }
}
