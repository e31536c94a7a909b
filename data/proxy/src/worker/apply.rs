//! Switching a worker to a new snapshot.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::connections;
use super::view::{ListenerState, ListenerView, View};
use crate::io::Listener;
use crate::snapshot::{CompiledListener, Snapshot};
use crate::stats::Fault;
use crate::upstream::build_clusters;

/// After an error of `accept` (out of descriptors, say), it is tried again after this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A snapshot and the sockets of the listeners that are new in it.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) sockets: Vec<NewSocket>,
}

/// A socket bound for this worker.
#[derive(Debug)]
pub(crate) struct NewSocket {
    pub(crate) listener: Arc<str>,
    pub(crate) socket: TcpListener,
    pub(crate) inherited: bool,
}

impl Worker {
    /// From here on every request that begins is served by the new snapshot.
    pub(super) fn apply(self: &Rc<Self>, update: Update) {
        let before = self.view.borrow().clusters.clone();
        let clusters = build_clusters(&update.snapshot, &before, &self.shared());
        let view = Rc::new(View { snapshot: update.snapshot, clusters });
        self.view.replace(view.clone());
        self.own.watch(view.snapshot.config().listeners.iter().any(|listener| listener.original_destination));
        self.reconfigured.notify_waiters();
        self.show(&view);
        for socket in update.sockets {
            self.open(&view, socket);
        }
        self.retire_missing(&view.snapshot.listeners);
    }

    /// Gives each listener its new view. Connections that are no longer as wanted are to notice.
    fn show(self: &Rc<Self>, view: &Rc<View>) {
        let mut is_secured_otherwise = false;
        for listener in &view.snapshot.listeners {
            let listener_view = Rc::new(ListenerView::new(listener.clone(), view.clone()));
            let state = self.listeners.borrow().get(&listener.name).cloned();
            match state {
                Some(state) => {
                    is_secured_otherwise |= state.set_view(listener_view);
                    if !listener.config.bind_to_port {
                        self.stop_accepting(&state);
                    }
                }
                None if listener.config.bind_to_port => {}
                None => {
                    let state = Rc::new(ListenerState::new(listener_view, None, false));
                    self.listeners.borrow_mut().insert(listener.name.clone(), state);
                }
            }
        }
        if is_secured_otherwise {
            self.connections.wake_all();
        }
    }

    /// Accepts on a new socket; one that the listener had before is retired.
    fn open(self: &Rc<Self>, view: &Rc<View>, socket: NewSocket) {
        let compiled = view.snapshot.listeners.iter().find(|listener| listener.name == socket.listener);
        let (Some(compiled), Ok(listener)) = (compiled, Listener::new(socket.socket)) else {
            self.stats.fault(Fault::Accept);
            return;
        };
        let listener_view = Rc::new(ListenerView::new(compiled.clone(), view.clone()));
        let state = Rc::new(ListenerState::new(listener_view, Some(listener), socket.inherited));
        let task = tokio::task::spawn_local(accept(self.clone(), state.clone()));
        state.accepting.replace(Some(task.abort_handle()));
        if let Some(before) = self.listeners.borrow_mut().insert(socket.listener, state) {
            self.retire(&before);
        }
    }

    fn retire_missing(self: &Rc<Self>, now: &[Arc<CompiledListener>]) {
        let mut listeners = self.listeners.borrow_mut();
        let gone = |state: &Rc<ListenerState>| !now.iter().any(|listener| listener.name == state.view().compiled.name);
        let gone: Vec<_> = listeners.extract_if(|_, state| gone(state)).map(|(_, state)| state).collect();
        drop(listeners);
        gone.iter().for_each(|state| self.retire(state));
    }

    fn retire(self: &Rc<Self>, state: &Rc<ListenerState>) {
        self.stop_accepting(state);
        state.retired.set(true);
        self.connections.wake_all();
    }

    /// Connections which the kernel has completed already would be reset with the socket, so they are taken first. An
    /// inherited socket stays open elsewhere, and they wait there.
    pub(super) fn stop_accepting(self: &Rc<Self>, state: &Rc<ListenerState>) {
        let Some(listener) = state.stop_accepting() else { return };
        while let Some((stream, peer)) = (!state.inherited).then(|| listener.accept_waiting()).flatten() {
            connections::start(self, state, stream, peer);
        }
    }
}

async fn accept(worker: Rc<Worker>, state: Rc<ListenerState>) {
    let Some(listener) = state.listener() else { return };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => connections::start(&worker, &state, stream, peer),
            Err(error) => {
                tracing::warn!(listener = %state.view().compiled.name, %error, "cannot accept");
                worker.stats.fault(Fault::Accept);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
