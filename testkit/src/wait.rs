//! Waiting for what another process should do.

use std::thread;
use std::time::{Duration, Instant};

/// A deadline far above what a slow machine needs: reaching it means that it will not happen.
pub const LONG: Duration = Duration::from_secs(60);

/// Between two looks. What is waited for lies in other processes, which give no event to wait on.
const PERIOD: Duration = Duration::from_millis(20);

/// Looks until `look` gives `Ok`, and gives that.
///
/// # Panics
/// After `deadline`, with `what` and the last `Err`, which should say what is there instead.
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(instead) if start.elapsed() > deadline => {
                panic!("after {deadline:?} still not so: {what}; instead: {instead}")
            }
            Err(_) => thread::sleep(PERIOD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_until_it_is_so() {
        let mut looks = 0;
        let seen = eventually("three looks", LONG, || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks.to_string()) }
        });
        assert_eq!(seen, 3);
    }

    #[test]
    #[should_panic(expected = "still not so: rain; instead: sun")]
    fn says_what_it_saw_instead() {
        eventually("rain", Duration::ZERO, || Err::<(), _>("sun".into()));
    }
}
