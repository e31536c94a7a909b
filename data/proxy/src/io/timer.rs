//! One timer per task, moved as rarely as can be.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// A timer that serves one task for one deadline after the other.
///
/// Deadlines of requests are set and forgotten thousands of times a second, and hardly ever reached. So a later
/// deadline leaves the timer where it is: when it goes off too early, it is moved then. Only an earlier deadline moves
/// it at once. The task that polls must stay the same, since it is woken through the waker given first.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Timer { sleep: None }
    }

    /// Ready once `deadline` has passed.
    #[inline]
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Elapsed> {
        match &self.sleep {
            Some(sleep) if sleep.deadline() <= deadline && !sleep.is_elapsed() => Poll::Pending,
            _ => self.rearm(cx, deadline),
        }
    }

    #[cold]
    fn rearm(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Elapsed> {
        if Instant::now() >= deadline {
            return Poll::Ready(Elapsed);
        }
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(deadline);
                sleep
            }
            None => self.sleep.insert(Box::pin(sleep_until(deadline))),
        };
        // A task that has spent its budget would be told to come again, and the timer left unregistered; but when the task
        // does, the timer is taken for registered.
        pin!(unconstrained(sleep.as_mut())).poll(cx).map(|()| Elapsed)
    }

    /// Runs a future until it is done, or for this long. What is done at once, as nearly all is, costs no look at a clock.
    pub(crate) async fn within<F: Future>(&mut self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut deadline = None;
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
                self.poll_until(cx, deadline).map(Err)
            }
        })
        .await
    }

    /// Runs a future until it is done or the deadline passes; no deadline: until it is done.
    pub(crate) async fn limit<F: Future>(
        &mut self,
        deadline: Option<Instant>,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| match (future.as_mut().poll(cx), deadline) {
            (Poll::Ready(output), _) => Poll::Ready(Ok(output)),
            (Poll::Pending, Some(deadline)) => self.poll_until(cx, deadline).map(Err),
            (Poll::Pending, None) => Poll::Pending,
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    #[tokio::test(start_paused = true)]
    async fn a_timer_goes_off_even_if_it_was_set_by_a_task_without_budget() {
        let (mut timer, mut spent) = (Timer::new(), false);
        let deadline = Instant::now() + Duration::from_secs(1);
        let set = poll_fn(|cx| {
            while !spent && has_budget_remaining() {
                assert!(pin!(consume_budget()).poll(cx).is_ready());
            }
            spent = true;
            timer.poll_until(cx, deadline)
        });
        assert_eq!(tokio::time::timeout(Duration::from_secs(2), set).await, Ok(Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn one_timer_serves_later_and_earlier_deadlines() {
        let mut timer = Timer::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(timer.limit(Some(at(10)), async { 1 }).await, Ok(1));
        for seconds in [3, 20, 21] {
            let never = std::future::pending::<()>();
            assert_eq!(timer.limit(Some(at(seconds)), never).await, Err(Elapsed));
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }
}
