//! Counts what one thread allocates, so that a fuzz function can hold it against the bytes that it fed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

/// What a piece of work took, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Most that was held at once, beyond what was held before.
    pub peak: usize,
    /// All that was asked for, given back or not: what is copied again and again shows here.
    pub total: usize,
}

/// Runs `work` and tells what it allocated on this thread.
pub fn measure(work: impl FnOnce()) -> Taken {
    let (live, total) = (LIVE.get(), TOTAL.get());
    PEAK.set(live);
    work();
    Taken { peak: usize::try_from(PEAK.get() - live).unwrap_or(0), total: TOTAL.get() - total }
}

fn note(bytes: isize) {
    // A thread that ends may allocate once more: that is not counted.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    if let Ok(bytes) = usize::try_from(bytes) {
        let _ = TOTAL.try_with(|total| total.set(total.get() + bytes));
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Growing in place or by a copy: the new size counts as asked for, the old one is given back.
        note(size as isize);
        note(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}
