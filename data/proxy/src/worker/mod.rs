//! One worker: a thread with its own runtime, sockets, pools and counters.

mod apply;
mod connections;
mod drain;
mod run;
mod ticket;
mod view;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

pub(crate) use apply::{NewSocket, Update};
use connections::Connections;
pub(crate) use connections::{Connection, Leaving};
pub(crate) use drain::Drained;
pub(crate) use run::{Command, Handle, Setup, spawn};
pub(crate) use ticket::{Details, Ticket, count_refusal};
pub(crate) use view::{ListenerState, ListenerView, View};

use crate::access_log::LogBuffer;
use crate::io::BufferPool;
use crate::options::Drill;
use crate::stats::{Span, WorkerStats};

/// What all tasks of a worker share; never leaves its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) buffers: BufferPool,
    pub(crate) drill: Option<Drill>,
    pub(crate) log: LogBuffer,
    pub(crate) spans: Option<SyncSender<Span>>,
    trace_ratio: f64,
    connections: Connections,
    phase: Cell<Phase>,
    view: RefCell<Rc<View>>,
    listeners: RefCell<HashMap<Arc<str>, Rc<ListenerState>>>,
}

/// How a worker treats its connections.
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
    /// True once callers are to be told to use another connection.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() >= Phase::Announcing
    }

    /// True once connections without a request are to be closed.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.phase.get() == Phase::Closing
    }

    /// Whether a trace that begins here is recorded.
    pub(crate) fn samples(&self) -> bool {
        self.spans.is_some() && fastrand::f64() < self.trace_ratio
    }
}
