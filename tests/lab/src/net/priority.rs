//! The priority of the thread that emulates the links.
#![expect(
    unsafe_code,
    reason = "there is no safe wrapper of sched_setscheduler in nix"
)]

use nix::sys::prctl::set_timerslack;

/// The lowest real-time priority: above every normal thread, below the kernel's own.
const PRIORITY: i32 = 1;

/// Gives the calling thread a real-time priority when we may; tells whether we may. Without it the
/// timers of the thread are at least made as sharp as a normal thread's can be.
pub(crate) fn realtime() -> bool {
    // One nanosecond instead of the usual 50 microseconds; a failure costs only sharpness.
    let _ = set_timerslack(1);
    // SAFETY: plain integers, for which zero is a value; with musl there are more than the one.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = PRIORITY;
    // What this thread starts is normal again.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the parameters live across the call, which only reads them.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}
