//! Stopping when asked. As process 1 of its container a program is sent SIGTERM but the kernel does nothing by default.
#![allow(
    unsafe_code,
    reason = "the standard library has no signals, and an example should need no other library"
)]

use std::ffi::c_int;

const SIGTERM: c_int = 15;

unsafe extern "C" {
    fn signal(signum: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn _exit(status: c_int) -> !;
}

extern "C" fn leave(_: c_int) {
    // SAFETY: _exit is async-signal-safe and touches nothing of ours.
    unsafe { _exit(0) }
}

/// Makes SIGTERM end the program at once with status 0. What it keeps must be on disk after every step.
pub fn on_sigterm() {
    // SAFETY: `leave` does nothing but `_exit`, which a signal handler may call.
    unsafe { signal(SIGTERM, leave) };
}
