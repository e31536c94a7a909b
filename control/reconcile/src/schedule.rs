//! Which key is due when: dedupe and delay, nothing else. Pure: the caller brings the time.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// Keys that wait for their time and keys that run. A key is at most once in either, so the size is bounded by the
/// number of distinct keys.
#[derive(Debug)]
pub struct Schedule<K> {
    /// In the order they fall due; the number keeps first come, first served among equals.
    queue: BTreeMap<(Instant, u64), K>,
    slots: HashMap<K, Slot>,
    next_number: u64,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Waiting { at: Instant, number: u64 },
    Running { again: Option<Instant> },
}

impl<K> Default for Schedule<K> {
    fn default() -> Schedule<K> {
        Schedule { queue: BTreeMap::new(), slots: HashMap::new(), next_number: 0 }
    }
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// Wants `key` to run at `at`. If it waits already, the earlier time holds; if it runs, it will run once more.
    pub fn wake(&mut self, key: K, at: Instant) {
        match self.slots.get_mut(&key) {
            None => self.enqueue(key, at),
            Some(Slot::Running { again }) => *again = Some(again.map_or(at, |old| old.min(at))),
            Some(Slot::Waiting { at: old, number }) if at < *old => {
                let position = (*old, *number);
                self.queue.remove(&position);
                self.enqueue(key, at);
            }
            Some(Slot::Waiting { .. }) => {}
        }
    }

    /// The key that is due and has been for longest; it counts as running from here on.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let first = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let key = first.remove();
        self.slots.insert(key.clone(), Slot::Running { again: None });
        Some(key)
    }

    /// `key` has run; it wants to run again at `next`, or earlier where it was woken meanwhile, but for such a wake-up
    /// not before `floor`.
    pub fn finish(&mut self, key: K, next: Option<Instant>, floor: Instant) {
        let Some(Slot::Running { again }) = self.slots.remove(&key) else { return };
        let woken = again.map(|at| at.max(floor));
        if let Some(at) = [next, woken].into_iter().flatten().min() {
            self.enqueue(key, at);
        }
    }

    /// When the next key falls due.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Keys that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn enqueue(&mut self, key: K, at: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        self.queue.insert((at, number), key.clone());
        self.slots.insert(key, Slot::Waiting { at, number });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn keys_run_when_due_in_the_order_they_fell_due() {
        let (mut schedule, t0) = (Schedule::default(), Instant::now());
        schedule.wake("later", t0 + 2 * S);
        schedule.wake("first", t0);
        schedule.wake("second", t0);
        assert_eq!(schedule.take(t0), Some("first"));
        assert_eq!(schedule.take(t0), Some("second"));
        assert_eq!(schedule.take(t0), None);
        assert_eq!(schedule.next_due(), Some(t0 + 2 * S));
        assert_eq!(schedule.take(t0 + 2 * S), Some("later"));
    }

    #[test]
    fn the_earlier_of_two_wake_ups_holds() {
        let (mut schedule, t0) = (Schedule::default(), Instant::now());
        schedule.wake("a", t0 + 5 * S);
        schedule.wake("a", t0 + S);
        schedule.wake("a", t0 + 9 * S);
        assert_eq!(schedule.waiting(), 1);
        assert_eq!(schedule.take(t0 + S), Some("a"));
        assert_eq!(schedule.take(t0 + 9 * S), None);
    }

    #[test]
    fn wake_ups_during_a_run_become_one_more_run() {
        let (mut schedule, t0) = (Schedule::default(), Instant::now());
        schedule.wake("a", t0);
        schedule.take(t0);
        schedule.wake("a", t0);
        schedule.wake("a", t0 + S);
        assert_eq!(schedule.take(t0 + S), None, "it runs already");
        schedule.finish("a", Some(t0 + 9 * S), t0);
        assert_eq!(schedule.take(t0), Some("a"), "before its own wish");
        schedule.finish("a", None, t0);
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn after_a_failure_a_wake_up_waits_for_the_floor() {
        let (mut schedule, t0) = (Schedule::default(), Instant::now());
        schedule.wake("a", t0);
        schedule.take(t0);
        schedule.wake("a", t0);
        schedule.finish("a", Some(t0 + 60 * S), t0 + S);
        assert_eq!(schedule.next_due(), Some(t0 + S));
    }

    proptest! {
        /// Whatever happens: no key runs twice at a time, none runs early, and every wake-up is followed by a run.
        #[test]
        fn no_wake_up_is_lost_and_no_key_runs_twice_at_once(steps in prop::collection::vec((0u8..3, 0u8..4, 0u64..20), 1..200)) {
            let t0 = Instant::now();
            let mut now = t0;
            let mut schedule = Schedule::default();
            let (mut running, mut owed) = (HashSet::new(), HashSet::new());
            for (what, key, seconds) in steps {
                match what {
                    0 => {
                        schedule.wake(key, now + S * seconds as u32);
                        owed.insert(key);
                    }
                    1 => {
                        now += S * seconds as u32;
                        while let Some(key) = schedule.take(now) {
                            prop_assert!(running.insert(key), "runs already");
                            owed.remove(&key);
                        }
                    }
                    _ => {
                        if running.remove(&key) {
                            schedule.finish(key, None, now);
                        }
                    }
                }
            }
            running.drain().for_each(|key| schedule.finish(key, None, now));
            while let Some(key) = schedule.take(now + S * 1_000) {
                owed.remove(&key);
            }
            prop_assert!(owed.is_empty(), "never ran: {owed:?}");
        }
    }
}
