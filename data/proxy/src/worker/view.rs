//! A snapshot as one worker serves it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::AbortHandle;
use weir_config::Direction;

use crate::io::Listener;
use crate::rpc::Protocol;
use crate::snapshot::{CompiledListener, Passage, RouteEntry, RouteId, Snapshot};
use crate::stats::{RpcKey, Series, SeriesKey, WorkerStats, direction_label};
use crate::tls::Accepts;
use crate::upstream::ClusterState;

/// The snapshot in force and this worker's state of its clusters.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) clusters: Vec<Rc<ClusterState>>,
}

/// A listener in a view. A request keeps the one it began with.
#[derive(Debug)]
pub(crate) struct ListenerView {
    pub(crate) compiled: Arc<CompiledListener>,
    pub(crate) view: Rc<View>,
    series: RefCell<Vec<Option<Arc<Series>>>>,
    /// By `/service/method`.
    rpc_series: RefCell<HashMap<Box<str>, Arc<Series<RpcKey>>>>,
}

/// A listener of one worker, over all snapshots that have it.
#[derive(Debug)]
pub(crate) struct ListenerState {
    current: RefCell<Rc<ListenerView>>,
    listener: RefCell<Option<Rc<Listener>>>,
    /// The socket was inherited, and so outlives this process.
    pub(crate) inherited: bool,
    pub(crate) accepting: RefCell<Option<AbortHandle>>,
    pub(crate) connections: Cell<usize>,
    pub(crate) direction: Cell<Direction>,
    /// Taken out of the configuration: its connections go after what they carry.
    pub(crate) retired: Cell<bool>,
    /// Connections secured otherwise go after what they carry.
    pub(crate) accepts: Cell<Accepts>,
}

impl ListenerState {
    /// Without a socket, it serves connections that other listeners pass to it.
    pub(crate) fn new(view: Rc<ListenerView>, listener: Option<Listener>, inherited: bool) -> Self {
        ListenerState {
            direction: Cell::new(view.compiled.config.direction),
            accepts: Cell::new(Accepts::of(view.compiled.tls.as_ref())),
            current: RefCell::new(view),
            listener: RefCell::new(listener.map(Rc::new)),
            inherited,
            accepting: RefCell::default(),
            connections: Cell::new(0),
            retired: Cell::new(false),
        }
    }

    /// How the listener is configured now.
    #[inline]
    pub(crate) fn view(&self) -> Rc<ListenerView> {
        self.current.borrow().clone()
    }

    /// True if connections are to be secured otherwise than before.
    pub(crate) fn set_view(&self, view: Rc<ListenerView>) -> bool {
        self.direction.set(view.compiled.config.direction);
        let accepts = Accepts::of(view.compiled.tls.as_ref());
        self.current.replace(view);
        self.accepts.replace(accepts) != accepts
    }

    /// The socket, as long as it accepts.
    pub(crate) fn listener(&self) -> Option<Rc<Listener>> {
        self.listener.borrow().clone()
    }

    /// Takes no more connections. The socket is closed once the returned handle is dropped; connections that are open
    /// live on.
    pub(crate) fn stop_accepting(&self) -> Option<Rc<Listener>> {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.listener.take()
    }
}

impl ListenerView {
    pub(crate) fn new(compiled: Arc<CompiledListener>, view: Rc<View>) -> Self {
        let series = first_passage(&compiled, &view) + compiled.passing.len();
        ListenerView { compiled, view, series: RefCell::new(vec![None; series]), rpc_series: RefCell::default() }
    }

    /// A route of this listener's table.
    pub(crate) fn route(&self, id: RouteId) -> Option<&RouteEntry> {
        Some(self.view.snapshot.routers[self.compiled.router?].route(id))
    }

    /// Place of the series for connections that are passed on this way.
    pub(crate) fn series_of(&self, passage: Passage) -> usize {
        first_passage(&self.compiled, &self.view) + passage.place
    }

    /// Counts a finished request. The series is looked up by its labels once, then by its place.
    #[inline]
    pub(crate) fn record(&self, stats: &WorkerStats, place: usize, labels: Labels<'_>, status: u16, micros: u64) {
        let mut series = self.series.borrow_mut();
        let Some(slot) = series.get_mut(place) else { return };
        let series = slot.get_or_insert_with(|| stats.series(self.key(labels)));
        series.record(status, micros);
    }

    /// Where calls of a method are counted; looked up by its labels once, then by its path.
    pub(crate) fn rpc_series(
        &self,
        stats: &WorkerStats,
        protocol: Protocol,
        path: &str,
        service: &str,
        method: &str,
    ) -> Arc<Series<RpcKey>> {
        if let Some(series) = self.rpc_series.borrow().get(path) {
            return series.clone();
        }
        let series = stats.rpc_series(RpcKey {
            listener: self.compiled.name.clone(),
            direction: direction_label(self.compiled.config.direction),
            protocol: protocol.as_str(),
            service: service.into(),
            method: method.into(),
        });
        // What is counted under `other` is not remembered: there is no bound to it.
        if *series.key.service == *service {
            self.rpc_series.borrow_mut().insert(path.into(), series.clone());
        }
        series
    }

    fn key(&self, labels: Labels<'_>) -> SeriesKey {
        SeriesKey {
            listener: self.compiled.name.clone(),
            direction: direction_label(self.compiled.config.direction),
            route: labels.route.cloned().unwrap_or_default(),
            cluster: labels.cluster.cloned().unwrap_or_default(),
        }
    }
}

/// Series of requests come first; one for those without a route there is always.
fn first_passage(compiled: &CompiledListener, view: &View) -> usize {
    compiled.router.map_or(1, |router| view.snapshot.routers[router].series)
}

/// Labels of a series, as far as they apply.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Labels<'a> {
    pub(crate) route: Option<&'a Arc<str>>,
    pub(crate) cluster: Option<&'a Arc<str>>,
}
