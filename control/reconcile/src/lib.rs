//! The controller loop: what every domain that acts by itself is built on.
//!
//! # How a controller thinks
//!
//! A [`Controller`] is asked one question again and again: *here is the name of something; look at what is wanted and
//! at what is so, and take the next step from the one towards the other*. It is not told what happened, because what
//! happened is not a thing to rely on: a notification can be lost, doubled, late, or describe a state that has passed
//! while the process was down. So an activation carries a key and nothing else. Whatever a reconcile needs it reads
//! when it runs. A controller written like this has no special case for its own restart, for a missed event or for a
//! person who changed something by hand: all of them look like "it is not yet as it should be".
//!
//! From that follow the rules for `reconcile`:
//! - **Level-triggered.** Decide by what is read now, never by a memory of earlier calls. Memory is a cache at most.
//! - **Idempotent.** Called twice, the second call finds nothing to do. Updates that change nothing write nothing, so
//!   a controller that writes its status wakes itself once and comes to rest.
//! - **Safe to kill anywhere.** It can end at any `.await`: by a crash, a lost lease, a time limit. Record an intention
//!   before acting on it, and make the act one that can be repeated.
//! - **Short.** Waiting is not done inside: return [`Next::After`] and be called again.
//!
//! # What the loop gives in return
//!
//! - One run at a time per key, many keys at once up to a bound ([`Options::concurrency`]). Activations of a key that
//!   runs are remembered as one more run.
//! - A wake-up for every change of a watched kind, at start-up for everything there is, and for everything again each
//!   [`Options::resync`], for what changes outside of the store or was forgotten.
//! - Errors, panics and runs that exceed [`Options::run_limit`] are counted, logged, written as an event about the
//!   resource, and tried again with exponential backoff and full jitter. A change to the resource cuts the wait short,
//!   but not below [`Backoff::floor`], so that a failing controller which notes its failure in the status does not
//!   wake itself into a hot loop.
//! - One leader: the loop works only while it holds the lease `controller/NAME`, and hands `reconcile` a store whose
//!   writes are fenced by it ([`Context::store`]). A replica that was paused for a minute and believes it still leads
//!   has its writes refused by the store itself.
//! - An orderly end: running reconciles get [`Options::grace`] to finish, then the lease is released, so that the
//!   successor starts at once.
//!
//! Dropping the future that [`Runner::run`] returns stops everything at once, as a crash would.

mod backoff;
mod feed;
mod inbox;
mod lead;
mod run;
mod schedule;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_model::{Key, Kind, Object};
use weir_store::{Clock, SharedStore, system_clock};

pub use backoff::Backoff;
pub use inbox::Activator;
pub use run::Runner;
pub use schedule::Schedule;
pub use stats::{Stats, Totals};

/// Why a reconcile failed, in words for the log and the event. It is tried again in any case.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Brings one kind of thing from how it is to how it is wanted.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Names the lease, the logs and the events: `change` becomes `controller/change`. Unique in the process.
    fn name(&self) -> &'static str;

    /// Kinds whose changes may call for a reconcile.
    fn watches(&self) -> Vec<Kind>;

    /// Keys to reconcile because `object`, of a watched kind, was there at start-up, changed, or was deleted. By
    /// default the object itself. Must be quick; it may answer more keys than needed, and ones that do not exist.
    fn concerns(&self, object: &Object) -> Vec<Key> {
        vec![object.key()]
    }

    /// Takes the next step for `key`, which may have been deleted meanwhile. See the crate's documentation for the
    /// rules.
    ///
    /// # Errors
    /// Anything; it is called again after a backoff. [`weir_store::Error::Conflict`] passed on as it is counts as
    /// bad luck rather than as a failure: it is tried again without noise.
    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure>;
}

/// What a reconcile is given besides the key.
#[derive(Clone)]
pub struct Context {
    /// The store, fenced by the controller's lease. Write through this one.
    pub store: SharedStore,
    /// The clock to go by.
    pub clock: Clock,
}

impl Context {
    /// The time now.
    pub fn now(&self) -> jiff::Timestamp {
        (self.clock)()
    }
}

/// When a key wants to be reconciled next, if nothing wakes it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something changes (or at the resync).
    OnChange,
    /// After this time.
    After(Duration),
}

/// How a controller is run. All bounds hold per controller.
#[derive(Clone)]
pub struct Options {
    /// Who leads, as the lease records it: unique among live processes.
    pub holder: String,
    /// How long the lease outlives a leader that died; renewed at a third of it.
    pub lease_ttl: Duration,
    /// Everything is reconciled at least so often.
    pub resync: Duration,
    /// Keys reconciled at the same time.
    pub concurrency: usize,
    /// Delays after failures.
    pub backoff: Backoff,
    /// A reconcile that takes longer is stopped and counts as failed.
    pub run_limit: Duration,
    /// What running reconciles are given to finish at shutdown.
    pub grace: Duration,
    /// The clock for leases and reconciles.
    pub clock: Clock,
    /// Randomness of the jitter; seed it for runs that repeat.
    pub random: fastrand::Rng,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            holder: format!("process/{}-{:016x}", std::process::id(), fastrand::u64(..)),
            lease_ttl: Duration::from_secs(15),
            resync: Duration::from_secs(300),
            concurrency: 8,
            backoff: Backoff::default(),
            run_limit: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            clock: system_clock(),
            random: fastrand::Rng::new(),
        }
    }
}

/// Runs a controller until `shutdown` completes: shorthand for [`Runner::new`] and [`Runner::run`].
pub async fn run(
    store: SharedStore,
    controller: Arc<dyn Controller>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) {
    Runner::new(store, controller, options).run(shutdown).await;
}
