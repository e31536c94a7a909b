//! How long a request may take, over all its attempts.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::ForwardAction;

/// The limits of one request. They count from where the whole request had been sent for the first time, so that a slow
/// upload is not the upstream's fault.
#[derive(Debug)]
pub(crate) struct Deadlines {
    timeout: Option<Duration>,
    per_try: Option<Duration>,
    first_sent: Cell<Option<Instant>>,
}

impl Deadlines {
    pub(crate) fn new(action: &ForwardAction) -> Self {
        Deadlines { timeout: action.timeout, per_try: action.per_try_timeout(), first_sent: Cell::new(None) }
    }

    /// When the response's head must be there, for an attempt that was sent whole at `sent`.
    pub(crate) fn head(&self, sent: Instant) -> Option<Instant> {
        let first = self.first_sent.get().unwrap_or_else(|| {
            self.first_sent.set(Some(sent));
            sent
        });
        let (whole, attempt) = (self.timeout.map(|limit| first + limit), self.per_try.map(|limit| sent + limit));
        [whole, attempt].into_iter().flatten().min()
    }

    /// Until when to wait for a connection; `idle` where the route has no limit.
    pub(crate) fn connection(&self, idle: Duration) -> Instant {
        match (self.first_sent.get(), self.timeout) {
            (Some(first), Some(limit)) => first + limit,
            (None, Some(limit)) => Instant::now() + limit,
            (_, None) => Instant::now() + idle,
        }
    }

    /// True if there is no time for another attempt.
    pub(crate) fn are_over(&self) -> bool {
        let whole = self.first_sent.get().zip(self.timeout);
        whole.is_some_and(|(first, limit)| Instant::now() >= first + limit)
    }
}

/// How far a request with a body is, for the one who waits for the response meanwhile.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When all was sent.
    pub(crate) sent_at: Cell<Option<Instant>>,
    /// When something was last taken from the caller, or by the upstream.
    pub(crate) moved: Cell<Instant>,
}

impl Progress {
    /// All was sent already.
    pub(crate) fn sent(now: Instant) -> Self {
        Progress { sent_at: Cell::new(Some(now)), moved: Cell::new(now) }
    }

    /// There is more to come.
    pub(crate) fn begun(now: Instant) -> Self {
        Progress { sent_at: Cell::new(None), moved: Cell::new(now) }
    }

    /// The request moves.
    pub(crate) fn note(&self) {
        self.moved.set(Instant::now());
    }

    /// Until when the response's head is awaited: while the request is still on its way, as long as it moves, or does not
    /// for `silence`.
    pub(crate) fn deadline(&self, deadlines: &Deadlines, silence: Option<Duration>) -> Option<Instant> {
        match self.sent_at.get() {
            Some(sent) => deadlines.head(sent),
            None => silence.map(|silence| self.moved.get() + silence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines(timeout: u64, per_try: Option<u64>) -> Deadlines {
        let seconds = Duration::from_secs;
        Deadlines { timeout: Some(seconds(timeout)), per_try: per_try.map(seconds), first_sent: Cell::new(None) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_holds_for_all_attempts_and_another_for_each() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let deadlines = deadlines(10, Some(4));
        assert_eq!(deadlines.head(at(1)), Some(at(5)));
        assert_eq!(deadlines.head(at(9)), Some(at(11)), "of the whole, counted from the first attempt");
        assert_eq!(deadlines.connection(Duration::from_secs(60)), at(11));
        assert!(!deadlines.are_over());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(deadlines.are_over());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_awaited_as_long_as_it_moves() {
        let (deadlines, idle) = (deadlines(1, None), Duration::from_secs(60));
        let progress = Progress::begun(Instant::now());
        tokio::time::advance(Duration::from_secs(50)).await;
        progress.note();
        assert_eq!(progress.deadline(&deadlines, Some(idle)), Some(Instant::now() + idle));
        assert_eq!(progress.deadline(&deadlines, None), None);
        progress.sent_at.set(Some(Instant::now()));
        assert_eq!(progress.deadline(&deadlines, Some(idle)), Some(Instant::now() + Duration::from_secs(1)));
    }
}
