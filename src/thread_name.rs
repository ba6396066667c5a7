//! Names threads in place of musl, whose function can name any thread and prints the path in /proc for
//! that: printf is 10 kB of a router's program.

use std::ffi::{c_char, c_int};

/// Names the thread that runs: std names no other.
///
/// # Safety
/// `name` is a C string.
#[expect(unsafe_code, reason = "std calls it by this name")]
// SAFETY: the name is that of the function in musl, with the same parameters (pthread.h); the program
// is static, so that this one takes its place everywhere.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(_: libc::pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the kernel reads 16 bytes at most, to the NUL; the caller says that there is one.
    match unsafe { libc::prctl(libc::PR_SET_NAME, name) } {
        0 => 0,
        _ => libc::EINVAL,
    }
}
