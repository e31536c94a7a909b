//! The one task that writes: a queue in front, a transaction per batch, acknowledgements after the commit.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use weir_model::{Author, Key, Object};
use weir_store::history::History;
use weir_store::{Clock, Error, Event, Fence, Lease, Result, Retention};

use crate::open::{FileLock, Opened, push_changes};
use crate::statements::Batch;
use crate::unavailable;

/// Writes that may wait; further writers wait to be let in.
const QUEUE: usize = 1024;
/// Writes in one transaction.
const BATCH: usize = 128;

/// One write.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create { object: Object, author: Author },
    Update { object: Object, author: Author },
    UpdateStatus { object: Object },
    Delete { key: Key, resource_version: Option<u64>, author: Author },
    AcquireLease { name: String, holder: String, ttl: Duration, now: Timestamp },
    ReleaseLease { name: String, holder: String },
    AppendEvent { event: Event },
}

/// What a write that succeeded answers.
#[derive(Debug)]
pub(crate) enum Done {
    Object(Box<Object>),
    Lease(Option<Lease>),
    Nothing,
}

pub(crate) struct Request {
    pub op: Op,
    pub fence: Option<Fence>,
    reply: oneshot::Sender<Result<Done>>,
}

enum Message {
    Write(Box<Request>),
    Close(oneshot::Sender<()>),
}

/// Where writes go.
pub(crate) struct Queue {
    sender: mpsc::Sender<Message>,
}

impl Queue {
    pub async fn write(&self, op: Op, fence: Option<Fence>) -> Result<Object> {
        match self.send(op, fence).await? {
            Done::Object(object) => Ok(*object),
            other => Err(unavailable(format!("a write of a resource was answered {other:?}"))),
        }
    }

    pub async fn acquire_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Option<Lease>> {
        match self.send(Op::AcquireLease { name: name.to_owned(), holder: holder.to_owned(), ttl, now }, None).await? {
            Done::Lease(lease) => Ok(lease),
            other => Err(unavailable(format!("a lease was answered {other:?}"))),
        }
    }

    pub async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        self.send(Op::ReleaseLease { name: name.to_owned(), holder: holder.to_owned() }, None).await.map(drop)
    }

    pub async fn append_event(&self, event: Event) -> Result<()> {
        self.send(Op::AppendEvent { event }, None).await.map(drop)
    }

    /// Returns when all that was sent before is written and the connection is closed.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.sender.send(Message::Close(reply)).await.is_ok() {
            // An error means that it was closed by somebody else's request.
            let _ = closed.await;
        }
    }

    async fn send(&self, op: Op, fence: Option<Fence>) -> Result<Done> {
        let (reply, answer) = oneshot::channel();
        let closed = || unavailable("the store is closed");
        self.sender.send(Message::Write(Box::new(Request { op, fence, reply }))).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// Starts the task; it ends when it is told to, or when the queue has no more senders.
pub(crate) fn start(opened: Opened, retention: Retention, clock: Clock) -> Queue {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let Opened { writer, writing, history, lock, .. } = opened;
    let writer = Writer { connection: Some(writer), options: writing, history, retention, clock, lock };
    tokio::spawn(writer.run(receiver));
    Queue { sender }
}

struct Writer {
    /// None after a failure, until the file can be opened again.
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    history: Arc<History>,
    retention: Retention,
    clock: Clock,
    lock: FileLock,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        let mut closing = Vec::new();
        while closing.is_empty() && receiver.recv_many(&mut messages, BATCH).await > 0 {
            let mut requests = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Write(request) => requests.push(*request),
                    Message::Close(reply) => closing.push(reply),
                }
            }
            self.write_all(requests).await;
        }
        // The last connection to close moves the log into the file; it is complete without that as well.
        self.disconnect().await;
        // Free before anybody is told, so that whoever closed the store can open it again.
        drop(self.lock);
        drop(closing);
    }

    /// Writes a batch; if its transaction fails as a whole before the commit, each by itself, so that one write that
    /// the database cannot take does not fail its neighbours.
    async fn write_all(&mut self, requests: Vec<Request>) {
        match self.transact(&requests).await {
            Ok(answers) => acknowledge(requests, answers),
            Err(Broken::Commit(error)) => refuse(requests, &error),
            Err(Broken::Body(error)) if requests.len() == 1 => refuse(requests, &error),
            Err(Broken::Body(_)) => {
                for request in requests {
                    match self.transact(std::slice::from_ref(&request)).await {
                        Ok(answers) => acknowledge(vec![request], answers),
                        Err(Broken::Commit(error) | Broken::Body(error)) => refuse(vec![request], &error),
                    }
                }
            }
        }
    }

    /// One transaction. After a failure of any sort the connection is replaced: SQLite may have rolled back by itself
    /// (a full disk, an I/O error) or not, and a new connection is in a known state.
    async fn transact(&mut self, requests: &[Request]) -> std::result::Result<Vec<Result<Done>>, Broken> {
        let result = self.attempt(requests).await;
        if result.is_err() {
            self.disconnect().await;
            // If this fails, so will the next write, which tries again.
            let _ = self.connect().await;
        }
        result
    }

    async fn attempt(&mut self, requests: &[Request]) -> std::result::Result<Vec<Result<Done>>, Broken> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.connect().await.map_err(Broken::Body)?;
        let connection = self.connection.as_mut().ok_or_else(|| Broken::Body(unavailable("no connection")))?;
        let begun = connection.begin_with("BEGIN IMMEDIATE").await;
        let transaction = begun.map_err(|error| Broken::Body(unavailable(error)))?;
        let mut batch = Batch::begin(transaction, self.history.head(), self.retention, (self.clock)());
        let answers = batch.apply_all(requests).await.map_err(Broken::Body)?;
        let (transaction, changes) = batch.finish().await.map_err(Broken::Body)?;
        transaction.commit().await.map_err(|error| Broken::Commit(unavailable(error)))?;
        changes.into_iter().for_each(|change| self.history.push(change));
        Ok(answers)
    }

    /// Opens the connection again after a failure. Nobody knows whether a commit that failed is on disk; what is there
    /// counts, and watchers must see it.
    async fn connect(&mut self) -> Result<()> {
        if self.connection.is_none() {
            let mut connection = self.options.connect().await.map_err(unavailable)?;
            push_changes(&mut connection, self.history.head(), &self.history).await?;
            self.connection = Some(connection);
        }
        Ok(())
    }

    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            // An error leaves nothing that could be done; what was committed is safe.
            let _ = connection.close().await;
        }
    }
}

/// Where a transaction failed.
enum Broken {
    /// Before the commit: nothing was written.
    Body(Error),
    /// At the commit: it may have been written.
    Commit(Error),
}

fn acknowledge(requests: Vec<Request>, answers: Vec<Result<Done>>) {
    for (request, answer) in requests.into_iter().zip(answers) {
        // Whoever no longer waits for the answer has his write all the same.
        let _ = request.reply.send(answer);
    }
}

fn refuse(requests: Vec<Request>, error: &Error) {
    for request in requests {
        let _ = request.reply.send(Err(error.clone()));
    }
}
