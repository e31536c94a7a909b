//! Memory that connections of a thread lend each other.

use std::cell::RefCell;

/// Vectors a thread keeps.
const MAX_VECS: usize = 32;
/// A vector that has grown larger is freed, bytes.
const MAX_KEPT_BYTES: usize = 2 * crate::limits::OUT_BYTES;
/// What is read at once, bytes.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static VECS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An empty vector.
pub(crate) fn take() -> Vec<u8> {
    VECS.try_with(|vecs| vecs.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Gives a vector back.
pub(crate) fn put(mut vec: Vec<u8>) {
    if (1..=MAX_KEPT_BYTES).contains(&vec.capacity()) {
        vec.clear();
        // While the thread ends there is nobody to lend it to.
        let _ = VECS.try_with(|vecs| {
            let mut vecs = vecs.borrow_mut();
            if vecs.len() < MAX_VECS {
                vecs.push(vec);
            }
        });
    }
}

/// Runs with the memory into which everything is read. It must not be asked for again meanwhile.
pub(crate) fn with_scratch<R>(run: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.is_empty() {
            scratch.resize(SCRATCH_BYTES, 0);
        }
        run(scratch)
    })
}
