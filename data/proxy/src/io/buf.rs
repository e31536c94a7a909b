//! Byte buffers, lent by the worker and given back as soon as they are empty.

use std::cell::{Cell, RefCell};

/// Size of a pooled buffer.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// Buffers a worker keeps for reuse.
const MAX_POOLED: usize = 128;

/// A buffer that is filled at its end and consumed at its front.
#[derive(Debug, Default)]
pub(crate) struct Buf {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buf {
    /// What is in it.
    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be decrypted where it lies.
    #[inline]
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Bytes in it.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True if it holds memory.
    pub(crate) fn is_allocated(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Room behind what is in it.
    #[inline]
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Takes `n` bytes of the spare room as filled.
    #[inline]
    pub(crate) fn advance_end(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Appends as much as there is room for; returns how much that was.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let len = bytes.len().min(spare.len());
        spare[..len].copy_from_slice(&bytes[..len]);
        self.advance_end(len);
        len
    }

    /// Drops `n` bytes at the front.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Makes room at the end by moving what is in it to the front, or, if it is full, by growing up to `max` bytes.
    /// False if there is no room left.
    pub(crate) fn make_room(&mut self, max: usize) -> bool {
        if self.end < self.bytes.len() {
            return true;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.bytes.len() < max {
            let mut larger = vec![0; (self.bytes.len() * 2).clamp(BUFFER_BYTES.min(max), max)];
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            self.bytes = larger.into();
        }
        self.end < self.bytes.len()
    }
}

impl Buf {
    /// Makes room for `n` bytes at the end, like [`Buf::make_room`]. False if there would have to be more than `max` in all.
    pub(crate) fn reserve(&mut self, n: usize, max: usize) -> bool {
        if self.bytes.len() - self.end >= n {
            return true;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let needed = self.end + n;
        if self.bytes.len() < needed && needed <= max {
            let mut larger = vec![0; needed];
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            self.bytes = larger.into();
        }
        self.bytes.len() >= needed
    }
}

/// How many pieces a pool could have done without: the fewest that lay in it at any time since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Spares(Cell<usize>);

impl Spares {
    /// Notes how many are left after one was taken.
    #[inline]
    pub(super) fn note(&self, left: usize) {
        self.0.set(self.0.get().min(left));
    }

    /// How many of `now` were not needed, and begins anew.
    pub(super) fn unused(&self, now: usize) -> usize {
        self.0.replace(now).min(now)
    }
}

/// Buffers of one worker that are not in use.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    bufs: RefCell<Vec<Box<[u8]>>>,
    spare_bufs: Spares,
    vecs: RefCell<Vec<Vec<u8>>>,
    spare_vecs: Spares,
}

impl BufferPool {
    /// Gives `buf` memory, if it has none.
    #[inline]
    pub(crate) fn fill(&self, buf: &mut Buf) {
        if !buf.is_allocated() {
            let mut bufs = self.bufs.borrow_mut();
            let pooled = bufs.pop();
            self.spare_bufs.note(bufs.len());
            buf.bytes = pooled.unwrap_or_else(|| vec![0; BUFFER_BYTES].into());
        }
    }

    /// Takes the memory of `buf` back, if nothing is in it.
    #[inline]
    pub(crate) fn release_if_empty(&self, buf: &mut Buf) {
        if buf.is_empty() && buf.is_allocated() {
            self.put(std::mem::take(&mut buf.bytes));
            (buf.start, buf.end) = (0, 0);
        }
    }

    /// Takes the memory of `buf` back with whatever is in it.
    pub(crate) fn discard(&self, buf: &mut Buf) {
        buf.consume(buf.len());
        self.release_if_empty(buf);
    }

    fn put(&self, bytes: Box<[u8]>) {
        let mut bufs = self.bufs.borrow_mut();
        if bytes.len() == BUFFER_BYTES && bufs.len() < MAX_POOLED {
            bufs.push(bytes);
        }
    }

    /// An empty vector to write a message into.
    #[inline]
    pub(crate) fn take_vec(&self) -> Vec<u8> {
        let mut vecs = self.vecs.borrow_mut();
        let pooled = vecs.pop();
        self.spare_vecs.note(vecs.len());
        pooled.unwrap_or_else(|| Vec::with_capacity(2048))
    }

    /// Frees what nobody has needed since the last call.
    pub(crate) fn trim(&self) {
        let (mut bufs, mut vecs) = (self.bufs.borrow_mut(), self.vecs.borrow_mut());
        let unused = (self.spare_bufs.unused(bufs.len()), self.spare_vecs.unused(vecs.len()));
        bufs.drain(..unused.0);
        vecs.drain(..unused.1);
    }

    /// Gives a vector back; one that has grown large is freed.
    #[inline]
    pub(crate) fn put_vec(&self, mut vec: Vec<u8>) {
        let mut vecs = self.vecs.borrow_mut();
        if (1..=BUFFER_BYTES).contains(&vec.capacity()) && vecs.len() < MAX_POOLED {
            vec.clear();
            vecs.push(vec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_by_moving_then_by_growing_up_to_the_limit() {
        let pool = BufferPool::default();
        let mut buf = Buf::default();
        pool.fill(&mut buf);
        buf.spare().fill(1);
        buf.advance_end(BUFFER_BYTES);
        buf.consume(10);
        assert!(buf.make_room(2 * BUFFER_BYTES));
        assert_eq!((buf.len(), buf.spare().len()), (BUFFER_BYTES - 10, 10));
        buf.advance_end(10);
        assert!(buf.make_room(2 * BUFFER_BYTES));
        buf.advance_end(usize::MAX / 2);
        assert_eq!(buf.len(), 2 * BUFFER_BYTES);
        assert!(!buf.make_room(2 * BUFFER_BYTES));
    }

    #[test]
    fn what_was_not_needed_is_freed() {
        let pool = BufferPool::default();
        let mut many: Vec<Buf> = std::iter::repeat_with(Buf::default).take(5).collect();
        many.iter_mut().for_each(|buf| pool.fill(buf));
        many.iter_mut().for_each(|buf| pool.release_if_empty(buf));
        pool.trim();
        pool.fill(&mut many[0]);
        pool.release_if_empty(&mut many[0]);
        pool.trim();
        assert_eq!(pool.bufs.borrow().len(), 1);
    }

    #[test]
    fn memory_goes_back_only_when_empty() {
        let pool = BufferPool::default();
        let mut buf = Buf::default();
        pool.fill(&mut buf);
        buf.advance_end(1);
        pool.release_if_empty(&mut buf);
        assert!(buf.is_allocated());
        buf.consume(1);
        pool.release_if_empty(&mut buf);
        assert!(!buf.is_allocated());
        assert_eq!(pool.bufs.borrow().len(), 1);
    }
}
