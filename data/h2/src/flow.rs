//! Flow-control windows (RFC 9113 section 5.2).

/// The largest window there is.
pub(crate) const MAX_WINDOW: i64 = (1 << 31) - 1;
/// The window of a connection and of every stream until told otherwise.
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

/// What the peer may send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecvWindow {
    left: i64,
    size: u32,
    /// Taken by the application and not yet told to the peer.
    released: u32,
}

impl RecvWindow {
    pub(crate) fn new(size: u32) -> Self {
        RecvWindow { left: i64::from(size), size, released: 0 }
    }

    /// The peer has sent so much; false if it was not allowed to.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        self.left -= bytes as i64;
        self.left >= 0
    }

    /// So much may come again. Returns what to tell the peer: half a window at a time, so that it is told seldom.
    pub(crate) fn release(&mut self, bytes: usize) -> Option<u32> {
        self.released += bytes as u32;
        if self.released < self.size / 2 {
            return None;
        }
        let increment = std::mem::take(&mut self.released);
        self.left += i64::from(increment);
        Some(increment)
    }
}

/// What we may send. It can be negative, when the peer makes its windows smaller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendWindow(i64);

impl SendWindow {
    pub(crate) fn new(size: u32) -> Self {
        SendWindow(i64::from(size))
    }

    pub(crate) fn room(self) -> usize {
        self.0.max(0) as usize
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    /// False if the window would be larger than there is.
    pub(crate) fn change(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= MAX_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_told_half_a_window_at_a_time() {
        let mut window = RecvWindow::new(100);
        assert!(window.take(60));
        assert_eq!((window.release(49), window.release(1)), (None, Some(50)));
        assert!(window.take(90));
        assert!(!window.take(1));
    }

    #[test]
    fn a_window_may_be_negative_but_not_too_large() {
        let mut window = SendWindow::new(10);
        assert!(window.change(-20));
        assert_eq!(window.room(), 0);
        assert!(window.change(MAX_WINDOW + 10));
        assert!(!window.change(1));
    }
}
