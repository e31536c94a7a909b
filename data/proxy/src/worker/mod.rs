//! One worker: a thread with its own runtime, sockets, pools and counters.

mod apply;
mod connections;
mod drain;
mod intercepted;
mod run;
mod ticket;
mod view;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

pub(crate) use apply::{NewSocket, Update};
use connections::Connections;
pub(crate) use connections::{Connection, Leaving};
use drain::Cutting;
pub(crate) use run::{Command, Handle, Setup, spawn};
pub(crate) use ticket::{Details, Ticket, count_refusal};
pub(crate) use view::{ListenerState, ListenerView, View};

use weir_config::Direction;

use crate::access_log::LogBuffer;
use crate::io::{BufferPool, FramePool};
use crate::options::Drill;
use crate::rpc::Scratch;
use crate::stats::{Span, WorkerStats};
use crate::upstream::{ClusterState, OwnConnections, Shared};

/// What all tasks of a worker share; never leaves its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) buffers: Rc<BufferPool>,
    /// Connections that the worker has opened, to know them should they come back.
    pub(crate) own: Rc<OwnConnections>,
    /// TLS handshakes under way.
    pub(crate) handshakes: Cell<usize>,
    /// Memory of requests under way.
    pub(crate) frames: FramePool,
    pub(crate) scratch: Scratch,
    pub(crate) drill: Option<Drill>,
    pub(crate) log: LogBuffer,
    pub(crate) spans: Option<SyncSender<Span>>,
    trace_ratio: f64,
    connections: Connections,
    inbound: Cell<Phase>,
    outbound: Cell<Phase>,
    cutting: Cutting,
    view: RefCell<Rc<View>>,
    /// Told when there is another view.
    reconfigured: Notify,
    listeners: RefCell<HashMap<Arc<str>, Rc<ListenerState>>>,
}

/// How a worker treats its connections of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Serving -> Announcing
    Serving,
    /// Answers ask callers to go elsewhere; requests are still taken. -> Closing
    Announcing,
    /// Connections without a request are closed.
    Closing,
}

impl Worker {
    /// What clusters need of the worker.
    fn shared(&self) -> Shared {
        Shared { stats: self.stats.clone(), buffers: self.buffers.clone(), own: self.own.clone() }
    }

    /// True once callers of this direction are to be told to use another connection.
    #[inline]
    fn is_draining(&self, direction: Direction) -> bool {
        self.phase(direction).get() >= Phase::Announcing
    }

    /// True once connections of this direction without a request are to be closed.
    #[inline]
    fn is_closing(&self, direction: Direction) -> bool {
        self.phase(direction).get() == Phase::Closing
    }

    /// Resolves with the next configuration that comes after this call.
    pub(crate) fn reconfigured(&self) -> Notified<'_> {
        self.reconfigured.notified()
    }

    /// A cluster as it is now.
    pub(crate) fn cluster(&self, name: &str) -> Option<Rc<ClusterState>> {
        self.view.borrow().clusters.iter().find(|cluster| *cluster.compiled.name == *name).cloned()
    }

    fn phase(&self, direction: Direction) -> &Cell<Phase> {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Whether a trace that begins here is recorded.
    pub(crate) fn samples(&self) -> bool {
        self.spans.is_some() && fastrand::f64() < self.trace_ratio
    }
}
