//! Keeps what is secret in memory from getting out of it: by a core dump, a debugger of the same user,
//! or a later allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// What is freed is wiped up to this size, bytes: keys, handshakes and texts with keys are shorter, and
/// packets' buffers longer.
const WIPED: usize = 8192;

/// No core dumps of this process, and nobody but root looks into it. First thing in a process.
///
/// It is no error when a system refuses: then it is as without.
#[expect(unsafe_code, reason = "std has neither setrlimit nor prctl")]
pub fn hide_memory() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit lives as long as the call, which only reads it.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
    no_tracing();
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std has no prctl")]
fn no_tracing() {
    // SAFETY: this prctl takes plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

#[cfg(target_os = "freebsd")]
#[expect(unsafe_code, reason = "std has no procctl")]
fn no_tracing() {
    let mut disable: libc::c_int = libc::PROC_TRACE_CTL_DISABLE;
    // SAFETY: this procctl reads one int, which lives as long as the call; zero is this process.
    unsafe {
        libc::procctl(
            libc::P_PID,
            0,
            libc::PROC_TRACE_CTL,
            (&raw mut disable).cast(),
        );
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn no_tracing() {}

/// The system's allocator; what is freed is zeroed before somebody else gets it. Sessions, handshakes
/// (snow wipes nothing) and key files are all on the heap, so it holds for all of them, however they end.
#[derive(Debug)]
pub struct Wiping<A = System>(A);

impl Wiping {
    /// The program's allocator.
    pub const fn new() -> Self {
        Self(System)
    }
}

impl Default for Wiping {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
// SAFETY: all is done by the allocator inside; memory is written to only while its owner frees it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if layout.size() <= WIPED {
            // SAFETY: the caller gives up a block of this size that is its own. That somebody may look at
            // it keeps the compiler from leaving the write out.
            unsafe { black_box(memory).write_bytes(0, layout.size()) };
            black_box(memory);
        }
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() > WIPED {
            // SAFETY: the caller's promise is the same.
            return unsafe { self.0.realloc(memory, layout, size) };
        }
        // SAFETY: the caller promises that the size is one for this alignment.
        let layout_then = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the new block is another one, as long as said; the old one is freed once.
        unsafe {
            let moved = self.alloc(layout_then);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Notes what was in the blocks that are freed.
    #[derive(Default)]
    struct Noting(RefCell<Vec<Vec<u8>>>);

    #[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
    // SAFETY: the system's own, and a look at a block before it is freed.
    unsafe impl GlobalAlloc for Noting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise is the same. Zeroed, so that all of it may be read.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            // SAFETY: the block is still the caller's, and was written whole.
            let bytes = unsafe { std::slice::from_raw_parts(memory, layout.size()) };
            self.0.borrow_mut().push(bytes.to_vec());
            // SAFETY: the caller's promise is the same.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    /// Field row A6: nobody finds a key in memory that was freed.
    #[test]
    #[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
    fn what_is_freed_is_wiped() {
        let heap = Wiping(Noting::default());
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: one block, written within its bounds, moved, and freed once with its last layout.
        unsafe {
            let key = heap.alloc(layout);
            key.write_bytes(7, 64);
            let key = heap.realloc(key, layout, 96);
            assert_eq!(std::slice::from_raw_parts(key, 64), [7; 64]);
            heap.dealloc(key, Layout::from_size_align(96, 8).unwrap());
        }
        assert_eq!(*heap.0.0.borrow(), [vec![0; 64], vec![0; 96]]);
    }
}
