//! What time it is, as an argument: stores and controllers are given a clock and never ask the machine themselves.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// A clock that starts at `start` and runs as tokio's time does: in tests with paused time it stands still between
/// timers, so simulated hours take milliseconds and every run is the same.
pub fn tokio_clock(start: Timestamp) -> Clock {
    let origin = tokio::time::Instant::now();
    Arc::new(move || start + origin.elapsed())
}
