//! The loop itself: leads, schedules, runs, counts.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use weir_model::Key;
use weir_store::{Error, Event, EventType, SharedStore};

use crate::feed::Feed;
use crate::inbox::Activator;
use crate::lead::{Leadership, Term};
use crate::schedule::Schedule;
use crate::stats::{Stats, count};
use crate::{Context, Controller, Failure, Next, Options};

/// A controller with its loop, ready to run.
pub struct Runner {
    store: SharedStore,
    controller: Arc<dyn Controller>,
    options: Options,
    inbox: Activator,
    stats: Arc<Stats>,
}

impl Runner {
    /// A loop for `controller`; nothing happens before [`Runner::run`].
    pub fn new(store: SharedStore, controller: Arc<dyn Controller>, options: Options) -> Runner {
        Runner { store, controller, options, inbox: Activator::default(), stats: Arc::default() }
    }

    /// To wake the controller from outside of the store.
    pub fn activator(&self) -> Activator {
        self.inbox.clone()
    }

    /// To see what it does.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Runs until `shutdown` completes: campaigns, leads, and campaigns again when leadership was lost.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let leadership = self.leadership();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let mut term = tokio::select! {
                biased;
                () = &mut shutdown => return,
                term = leadership.campaign() => term,
            };
            tracing::info!(controller = self.controller.name(), fencing = term.lease.fencing, "leads");
            let ended = self.lead(&leadership, &mut term, shutdown.as_mut()).await;
            self.stats.leading.store(false, Relaxed);
            match ended {
                Ended::Shutdown => return leadership.release().await,
                Ended::Deposed => tracing::warn!(controller = self.controller.name(), "leads no more: lease lost"),
            }
        }
    }

    fn leadership(&self) -> Leadership {
        Leadership {
            store: self.store.clone(),
            name: format!("controller/{}", self.controller.name()),
            holder: self.options.holder.clone(),
            ttl: self.options.lease_ttl,
            clock: self.options.clock.clone(),
        }
    }

    async fn lead(&self, leadership: &Leadership, term: &mut Term, shutdown: impl Future<Output = ()>) -> Ended {
        let mut worker = Worker::new(self, self.store.fenced(&term.lease));
        let ended = tokio::select! {
            biased;
            () = leadership.keep(term) => Ended::Deposed,
            () = shutdown => Ended::Shutdown,
            () = worker.work() => Ended::Deposed,
        };
        if let Ended::Shutdown = ended {
            tokio::select! {
                () = leadership.keep(term) => {}
                _ = timeout(self.options.grace, worker.drain()) => {}
            }
        }
        // What still runs is stopped with the worker.
        ended
    }
}

enum Ended {
    Shutdown,
    Deposed,
}

/// How one reconcile ended.
enum Outcome {
    Done(Next),
    Failed,
}

/// One term's work. Dropping it stops everything at once.
struct Worker<'a> {
    runner: &'a Runner,
    context: Context,
    random: fastrand::Rng,
    schedule: Schedule<Key>,
    running: JoinSet<(Key, Outcome)>,
    failing: HashMap<Key, Failing>,
    /// One task that never ends by itself; in a set so that it stops with the worker.
    feed: JoinSet<()>,
}

/// Failures of a key in a row.
#[derive(Clone, Copy)]
struct Failing {
    count: u32,
    /// No wake-up makes it run before this.
    floor: Instant,
}

impl<'a> Worker<'a> {
    fn new(runner: &'a Runner, store: SharedStore) -> Worker<'a> {
        let context = Context { store, clock: runner.options.clock.clone() };
        let mut worker = Worker {
            runner,
            context,
            random: runner.options.random.clone(),
            schedule: Schedule::default(),
            running: JoinSet::new(),
            failing: HashMap::new(),
            feed: JoinSet::new(),
        };
        runner.stats.leading.store(true, Relaxed);
        worker.start_feed();
        worker
    }

    fn start_feed(&mut self) {
        let feed = Feed {
            store: self.runner.store.clone(),
            controller: self.runner.controller.clone(),
            inbox: self.runner.inbox.clone(),
            stats: self.runner.stats.clone(),
            resync: self.runner.options.resync,
        };
        self.feed.spawn(feed.run());
    }

    async fn work(&mut self) {
        loop {
            self.start_due();
            self.publish_gauges();
            self.wait().await;
        }
    }

    /// Waits for whichever comes first: a wake-up, the end of a run, the next due key.
    async fn wait(&mut self) {
        let free = self.running.len() < self.runner.options.concurrency.max(1);
        let due = self.schedule.next_due().filter(|_| free);
        tokio::select! {
            keys = self.runner.inbox.take() => keys.into_iter().for_each(|key| self.wake(key)),
            Some(ended) = self.running.join_next() => self.finish(ended),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }

    /// Finishes what runs, and starts nothing.
    async fn drain(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    fn wake(&mut self, key: Key) {
        let now = Instant::now();
        let at = self.failing.get(&key).map_or(now, |failing| failing.floor.max(now));
        self.schedule.wake(key, at);
    }

    fn start_due(&mut self) {
        while self.running.len() < self.runner.options.concurrency.max(1)
            && let Some(key) = self.schedule.take(Instant::now())
        {
            let failures = self.failing.get(&key).map_or(0, |failing| failing.count);
            let attempt = Attempt {
                controller: self.runner.controller.clone(),
                context: self.context.clone(),
                stats: self.runner.stats.clone(),
                limit: self.runner.options.run_limit,
                failures,
            };
            self.running.spawn(attempt.run(key));
        }
    }

    fn finish(&mut self, ended: Result<(Key, Outcome), tokio::task::JoinError>) {
        // Panics are caught inside of the task, and nobody aborts one before the worker is dropped.
        let Ok((key, outcome)) = ended else { return };
        let now = Instant::now();
        match outcome {
            Outcome::Done(next) => {
                self.failing.remove(&key);
                self.schedule.finish(key, next_at(next, now), now);
            }
            Outcome::Failed => self.back_off(key, now),
        }
    }

    fn back_off(&mut self, key: Key, now: Instant) {
        let backoff = self.runner.options.backoff;
        let floor = now + backoff.floor;
        let failing = self.failing.entry(key.clone()).or_insert(Failing { count: 0, floor });
        *failing = Failing { count: failing.count.saturating_add(1), floor };
        let delay = backoff.delay(failing.count, &mut self.random);
        self.schedule.finish(key, Some(now + delay), floor);
    }

    fn publish_gauges(&self) {
        self.runner.stats.waiting.store(self.schedule.waiting() as u64, Relaxed);
        self.runner.stats.running.store(self.running.len() as u64, Relaxed);
    }
}

fn next_at(next: Next, now: Instant) -> Option<Instant> {
    match next {
        Next::OnChange => None,
        // Beyond what the clock can tell is never.
        Next::After(delay) => now.checked_add(delay),
    }
}

/// One call of `reconcile` and the account of it.
struct Attempt {
    controller: Arc<dyn Controller>,
    context: Context,
    stats: Arc<Stats>,
    limit: Duration,
    /// Failures in a row before this attempt.
    failures: u32,
}

impl Attempt {
    async fn run(self, key: Key) -> (Key, Outcome) {
        let call = AssertUnwindSafe(self.controller.reconcile(&key, &self.context)).catch_unwind();
        let ended = timeout(self.limit, call).await;
        count(&self.stats.runs);
        let failure = match ended {
            Ok(Ok(Ok(next))) => return (key, Outcome::Done(next)),
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(panic)) => self.panicked(panic.as_ref()),
            Err(_) => self.overran(),
        };
        count(&self.stats.failures);
        match failure.downcast_ref() {
            // Bad luck, or no longer our business: nothing that anybody could act on.
            Some(Error::Conflict { .. } | Error::Fenced { .. }) => {
                count(&self.stats.conflicts);
                tracing::debug!(controller = self.controller.name(), %key, error = %failure, "tries again");
            }
            _ => self.report(&key, &failure).await,
        }
        (key, Outcome::Failed)
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Failure {
        count(&self.stats.panics);
        let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        format!("a defect in the controller: it panicked with {:?}", text.unwrap_or("no message")).into()
    }

    fn overran(&self) -> Failure {
        count(&self.stats.overruns);
        format!("took longer than {:?} and was stopped", self.limit).into()
    }

    /// Logs every failure; writes an event for the 1st, 2nd, 4th, 8th... in a row, so that a resource that fails for
    /// days does not push everything else out of the event log.
    async fn report(&self, key: &Key, failure: &Failure) {
        let count = self.failures.saturating_add(1);
        let name = self.controller.name();
        tracing::warn!(controller = name, %key, failures = count, error = %failure, "reconcile failed");
        if !count.is_power_of_two() {
            return;
        }
        let times = if count == 1 { String::new() } else { format!(" ({count} times in a row)") };
        let event = Event {
            time: self.context.now(),
            about: key.clone(),
            r#type: EventType::Warning,
            reason: "ReconcileFailed".to_owned(),
            message: format!("{failure}{times}; it is tried again"),
            source: format!("controller/{name}"),
        };
        if let Err(error) = self.context.store.append_event(event).await {
            tracing::warn!(controller = name, %key, %error, "cannot record the failure as an event");
        }
    }
}
