//! Memory for futures that live as long as one request.
//!
//! What a request needs while it is under way is many times what a connection needs while it waits, so it must not be
//! part of the connection's task: a proxy has thousands of idle connections and a few busy ones. Nor should it cost an
//! allocation per request. So it lies in memory of its own, lent by the worker and given back with the request.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::buf::Spares;

/// Pieces of memory a worker keeps for reuse.
const MAX_POOLED: usize = 256;

/// Memory of one worker for futures of one size; a future of another size gets memory that is not kept.
#[derive(Debug)]
pub(crate) struct FramePool {
    layout: Cell<Layout>,
    free: RefCell<Vec<NonNull<u8>>>,
    spares: Spares,
}

impl Default for FramePool {
    fn default() -> Self {
        FramePool { layout: Cell::new(Layout::new::<()>()), free: RefCell::default(), spares: Spares::default() }
    }
}

impl FramePool {
    /// Puts a future into lent memory.
    #[inline]
    pub(crate) fn run<F: Future>(&self, future: F) -> Frame<'_, F> {
        let place = self.take(Layout::new::<F>()).cast::<F>();
        // SAFETY: the memory has the layout of `F`, and nobody else has it until it is given back.
        unsafe { place.write(future) };
        Frame { place, pool: self }
    }

    #[inline]
    fn take(&self, layout: Layout) -> NonNull<u8> {
        assert!(layout.size() > 0, "a future that holds nothing needs no memory");
        if layout == self.layout.get() {
            let mut free = self.free.borrow_mut();
            let pooled = free.pop();
            self.spares.note(free.len());
            if let Some(place) = pooled {
                return place;
            }
        }
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
    }

    #[inline]
    fn give_back(&self, place: NonNull<u8>, layout: Layout) {
        let mut free = self.free.borrow_mut();
        if free.is_empty() {
            self.layout.set(layout);
        }
        if layout == self.layout.get() && free.len() < MAX_POOLED {
            free.push(place);
            return;
        }
        drop(free);
        // SAFETY: `place` was allocated with this layout, and its future has been dropped.
        unsafe { dealloc(place.as_ptr(), layout) };
    }

    /// Frees what nobody has needed since the last call.
    pub(crate) fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let unused = self.spares.unused(free.len());
        for place in free.drain(..unused) {
            // SAFETY: all free pieces have this layout, and nothing lies in them.
            unsafe { dealloc(place.as_ptr(), self.layout.get()) };
        }
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        for place in self.free.take() {
            // SAFETY: all free pieces have this layout, and nothing lies in them.
            unsafe { dealloc(place.as_ptr(), self.layout.get()) };
        }
    }
}

/// A future in lent memory.
#[derive(Debug)]
pub(crate) struct Frame<'p, F> {
    place: NonNull<F>,
    pool: &'p FramePool,
}

impl<F: Future> Future for Frame<'_, F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future is this frame's alone, and stays where it is until it is dropped.
        unsafe { Pin::new_unchecked(self.place.as_mut()) }.poll(cx)
    }
}

impl<F> Drop for Frame<'_, F> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the future was written by `run` and is dropped only here. If it panics, its memory is not reused.
        unsafe { self.place.drop_in_place() };
        self.pool.give_back(self.place.cast(), Layout::new::<F>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    async fn holds(value: Rc<u8>) -> u8 {
        tokio::task::yield_now().await;
        *value
    }

    #[tokio::test(flavor = "current_thread")]
    async fn memory_is_used_again_and_the_future_dropped_once() {
        let (pool, value) = (FramePool::default(), Rc::new(7));
        for _ in 0..3 {
            assert_eq!(pool.run(holds(value.clone())).await, 7);
            assert_eq!((Rc::strong_count(&value), pool.free.borrow().len()), (1, 1));
        }
        drop((pool.run(holds(value.clone())), pool.run(holds(value.clone()))));
        assert_eq!((Rc::strong_count(&value), pool.free.borrow().len()), (1, 2));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn futures_of_another_size_do_not_mix() {
        let (pool, value) = (FramePool::default(), Rc::new(7));
        pool.run(holds(value.clone())).await;
        let large = [1_u8; 5000];
        let sum = pool.run(async {
            tokio::task::yield_now().await;
            large.iter().map(|&byte| u32::from(byte)).sum::<u32>()
        });
        assert_eq!(sum.await, 5000);
        assert_eq!(pool.run(holds(value.clone())).await, 7);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_not_needed_is_freed() {
        let (pool, value) = (FramePool::default(), Rc::new(7));
        let many: Vec<_> = (0..10).map(|_| pool.run(holds(value.clone()))).collect();
        drop(many);
        pool.trim();
        pool.run(holds(value.clone())).await;
        pool.trim();
        assert_eq!(pool.free.borrow().len(), 1);
        pool.trim();
        assert_eq!(pool.free.borrow().len(), 0);
    }
}
