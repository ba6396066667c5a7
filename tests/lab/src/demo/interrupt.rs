//! Ctrl-C and SIGTERM as a flag that is looked at between steps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::clock::now;
use crate::error::{Context, Error};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP only set the flag. To be called before any thread is
/// started: threads inherit what is blocked.
pub fn catch() -> Result<(), Error> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().context("cannot block signals")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.wait().is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        })
        .context("cannot start the thread of the signals")?;
    Ok(())
}

/// Whether one of them came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error when one of them came.
pub(crate) fn check() -> Result<(), Error> {
    if interrupted() {
        Err(Error::failed("interrupted"))
    } else {
        Ok(())
    }
}

/// Sleeps so long, or less when one of them comes, which is an error.
pub(crate) fn sleep(duration: Duration) -> Result<(), Error> {
    let start = now();
    loop {
        check()?;
        let left = duration.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
